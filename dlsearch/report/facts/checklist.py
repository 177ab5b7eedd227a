"""The reproducibility checklists of NeurIPS and NAACL, answered from the record.

The items are those of the Machine Learning Reproducibility Checklist, version 2.0 (Pineau et al.,
2021), and of the NAACL 2021 Reproducibility Checklist (after Dodge et al., 2019), in words of our
own. What a record cannot know, such as where the data can be downloaded, is answered as not
recorded: it stays with the author.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from dlsearch.report.facts.contents import ChecklistRow, Findings, find_winner
from dlsearch.report.formats import duration, listed, number, plural

if TYPE_CHECKING:
    from dlsearch.report.study import StudyDocument


class Answer(StrEnum):
    """The answers to an item."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "not recorded"
    NONE = "not applicable"


class Source(StrEnum):
    """The checklists that an item is of."""

    BOTH = "NeurIPS, NAACL"
    NEURIPS = "NeurIPS"
    NAACL = "NAACL"


def answer_checklist(findings: Findings, document: StudyDocument) -> list[ChecklistRow]:
    """Answer every item."""
    return [
        *_answer_model(document),
        *_answer_data(findings, document),
        *_answer_code(findings, document),
        *_answer_search(findings, document),
        *_answer_results(findings, document),
    ]


def _make_row(
    topic: str,
    item: str,
    of: Source,
    answer: Answer,
    text: str,
    section: str,
) -> ChecklistRow:
    return {
        "topic": topic,
        "item": item,
        "of": of,
        "answer": answer,
        "text": text,
        "section": section,
    }


def _yes_if(known: object) -> Answer:
    """Yes where it is in the record."""
    return Answer.YES if known else Answer.UNKNOWN


# -- the model ------------------------------------------------------------------------------------


def _answer_model(document: StudyDocument) -> list[ChecklistRow]:
    return [
        _ask_for_description(document),
        _ask_for_parameters(document),
        _ask_for_complexity(document),
        _make_row(
            "Model",
            "Are theoretical claims stated with their assumptions and proofs?",
            Source.NEURIPS,
            Answer.NONE,
            "A study report makes none.",
            "limits",
        ),
    ]


def _ask_for_description(document: StudyDocument) -> ChecklistRow:
    layers = document.model.layers
    target = document.config_section("model").get("_target_")
    subject = f"The class {target}" if target else "The net"
    if layers:
        text = f"{subject}, with its layer table of {plural(len(layers), 'row')}."
    elif target:
        text = f"{subject}; no layer table is recorded."
    else:
        text = "The record names no model."
    answer = _yes_if(layers or target)
    return _make_row("Model", "Is the model described?", Source.BOTH, answer, text, "model")


def _ask_for_parameters(document: StudyDocument) -> ChecklistRow:
    n_params = document.model.n_params
    text = "It is not in the record."
    if n_params is not None:
        text = (
            f"{number(n_params)} in the base configuration; each trial's own number is in"
            " report.json."
        )
    return _make_row(
        "Model",
        "Is the number of parameters of each model given?",
        Source.NAACL,
        _yes_if(n_params is not None),
        text,
        "model",
    )


def _ask_for_complexity(document: StudyDocument) -> ChecklistRow:
    macs = document.model.macs
    text = "Multiply-adds are not in the record."
    if macs is not None:
        text = f"{number(macs)} multiply-adds for one example; times and parameters are measured."
    return _make_row(
        "Model",
        "Is the complexity of the model analysed?",
        Source.NEURIPS,
        _yes_if(macs is not None),
        text,
        "model",
    )


# -- the data -------------------------------------------------------------------------------------


def _answer_data(findings: Findings, document: StudyDocument) -> list[ChecklistRow]:
    return [
        _ask_for_statistics(document),
        _ask_for_splits(findings, document),
        _ask_for_preprocessing(document),
        _make_row(
            "Data",
            "Is there a link to a version of the data that can be downloaded?",
            Source.BOTH,
            Answer.UNKNOWN,
            "The record holds digests and no address: the author names the source.",
            "data",
        ),
        _make_row(
            "Data",
            "For new data, is their collection described?",
            Source.BOTH,
            Answer.UNKNOWN,
            "The record does not know who collected the data.",
            "data",
        ),
        _ask_for_languages(document),
    ]


def _ask_for_statistics(document: StudyDocument) -> ChecklistRow:
    data = document.data
    if not data.sizes:
        answer = Answer.UNKNOWN
        text = "The record says nothing about the data."
    elif any(data.class_counts.values()):
        answer = Answer.YES
        text = "Sizes of the splits and examples of each class."
    else:
        answer = Answer.NO
        text = "The sizes of the splits; the classes are not counted."
    item = (
        "Are the relevant statistics given, such as the numbers of examples and the distribution of"
        " labels?"
    )
    return _make_row("Data", item, Source.BOTH, answer, text, "data")


def _ask_for_splits(findings: Findings, document: StudyDocument) -> ChecklistRow:
    digests = document.data.digests
    text = "No digest of a split is recorded."
    if digests:
        text = _describe_splits(findings, document)
    return _make_row(
        "Data",
        "Are the splits described?",
        Source.BOTH,
        _yes_if(digests),
        text,
        "data",
    )


def _describe_splits(findings: Findings, document: StudyDocument) -> str:
    config = document.config_section("data")
    keys = ("val_size", "train_size", "split_seed")
    made_by = [key for key in keys if config.get(key) is not None]
    text = "Each split has its size and its SHA-256 digest"
    if made_by:
        text += f"; made by {listed(made_by)} of the config"
    text += "."
    overlap = None if findings["data"] is None else findings["data"]["overlap_index"]
    if overlap is not None:
        text += f" {plural(overlap, 'example')} shared between splits."
    return text


def _ask_for_preprocessing(document: StudyDocument) -> ChecklistRow:
    config = document.config_section("data")
    text = "The record holds no settings of the data."
    if config:
        text = (
            "The data's settings, augmentation and standardisation among them, are in the config"
            " that the record holds."
        )
    return _make_row(
        "Data",
        "Are excluded data and the preprocessing explained?",
        Source.BOTH,
        _yes_if(config),
        text,
        "data",
    )


def _ask_for_languages(document: StudyDocument) -> ChecklistRow:
    if document.data.shape is None:
        answer = Answer.UNKNOWN
        text = "The record does not tell."
    else:
        answer = Answer.NONE
        text = "The examples are arrays of a fixed shape, no text."
    item = "For data in natural language, are the languages named?"
    return _make_row("Data", item, Source.NAACL, answer, text, "data")


# -- the code -------------------------------------------------------------------------------------


def _answer_code(findings: Findings, document: StudyDocument) -> list[ChecklistRow]:
    return [
        _ask_for_dependencies(document),
        _ask_for_code(document),
        _ask_for_weights(findings),
        _ask_for_command(findings),
    ]


def _ask_for_dependencies(document: StudyDocument) -> ChecklistRow:
    if document.provenance.lock:
        answer = Answer.YES
        text = "By a lock file, whose digest is given, and the versions of the main packages."
    elif document.provenance.packages:
        answer = Answer.NO
        text = "The versions of the main packages are listed; there is no lock file."
    else:
        answer = Answer.UNKNOWN
        text = "They are not in the record."
    item = "Are the dependencies specified?"
    return _make_row("Code", item, Source.BOTH, answer, text, "provenance")


def _ask_for_code(document: StudyDocument) -> ChecklistRow:
    commit = document.provenance.commit
    if not commit:
        answer = Answer.UNKNOWN
        text = "No commit is recorded."
    elif document.provenance.dirty:
        answer = Answer.NO
        text = f"It is commit {commit[:10]}, with changes that were not committed."
    else:
        answer = Answer.YES
        text = f"It is commit {commit[:10]}; the author names the repository."
    item = "Is the code of training and evaluation available?"
    return _make_row("Code", item, Source.BOTH, answer, text, "provenance")


def _ask_for_weights(findings: Findings) -> ChecklistRow:
    confirmation = findings["confirmation"]
    checkpoint = None if confirmation is None else confirmation["checkpoint"]
    text = "The record names no checkpoint."
    if checkpoint:
        text = f"The kept model is {checkpoint} in the store of the study."
    return _make_row(
        "Code",
        "Is the trained model available?",
        Source.NEURIPS,
        _yes_if(checkpoint),
        text,
        "model",
    )


def _ask_for_command(findings: Findings) -> ChecklistRow:
    commands = findings["reproduce"]
    if commands["winner"]:
        text = "The command of the study, and the one that trains its winner alone."
    elif commands["study"]:
        text = "The command of the study."
    else:
        text = "The command is not in the record."
    return _make_row(
        "Code",
        "Is there the precise command that produces the results?",
        Source.NEURIPS,
        _yes_if(commands["study"]),
        text,
        "claim",
    )


# -- the search -----------------------------------------------------------------------------------


def _answer_search(findings: Findings, document: StudyDocument) -> list[ChecklistRow]:
    trials = plural(len(findings["trials"]), "trial")
    return [
        _ask_for_bounds(document),
        _ask_for_best(findings, document),
        _make_row(
            "Search",
            "Is the number of search trials given?",
            Source.NAACL,
            Answer.YES,
            f"{trials}, each accounted for.",
            "accounting",
        ),
        _ask_for_method(findings, document),
        _ask_for_budget(findings),
    ]


def _ask_for_bounds(document: StudyDocument) -> ChecklistRow:
    n_dimensions = len(document.space)
    if n_dimensions > 1:
        dimensions = plural(n_dimensions, "dimension")
        text = f"All {dimensions}, with scale, default and condition."
    elif n_dimensions == 1:
        text = "The dimension, with scale, default and condition."
    else:
        text = "The record names no dimension."
    return _make_row(
        "Search",
        "Are the bounds of each hyperparameter given?",
        Source.BOTH,
        _yes_if(n_dimensions),
        text,
        "space",
    )


def _ask_for_best(findings: Findings, document: StudyDocument) -> ChecklistRow:
    if not findings["top"]:
        answer = Answer.UNKNOWN
        text = "There is no best configuration."
    elif document.config:
        answer = Answer.YES
        text = (
            "Those that were searched in the table of the result, all others in the config that the"
            " record holds."
        )
    else:
        answer = Answer.NO
        text = "Those that were searched; the config is not in the record."
    item = "Are all hyperparameters of the best configuration given?"
    return _make_row("Search", item, Source.BOTH, answer, text, "claim")


def _ask_for_method(findings: Findings, document: StudyDocument) -> ChecklistRow:
    sampler = document.sampler
    text = "The sampler is not in the record."
    if sampler:
        target = str(sampler.get("_target_") or "the sampler")
        class_name = target.rsplit(".", 1)[-1]
        text = f"{class_name} chose; {_describe_criterion(findings)} was selected."
    return _make_row(
        "Search",
        "Is the method that chose values given, and the criterion that selected among them?",
        Source.BOTH,
        _yes_if(sampler),
        text,
        "space",
    )


def _describe_criterion(findings: Findings) -> str:
    objective = findings["objectives"][0]["name"]
    if find_winner(findings["confirmation"]) is not None:
        return f"the best mean {objective} over fresh seeds among the finalists"
    return f"the best {objective}"


def _ask_for_budget(findings: Findings) -> ChecklistRow:
    course = findings["course"]
    if course["expected_best"]:
        text = "The expected best score by number of trials."
    elif course["best_so_far"]:
        text = "The best score so far by number of trials; the trials are not independent draws."
    else:
        text = "There is no single best score to show."
    return _make_row(
        "Search",
        "Is what the budget bought shown, such as the expected validation performance?",
        Source.NAACL,
        Answer.YES if course["best_so_far"] else Answer.NO,
        text,
        "course",
    )


# -- the results ----------------------------------------------------------------------------------


def _answer_results(findings: Findings, document: StudyDocument) -> list[ChecklistRow]:
    return [
        _ask_for_runs(findings),
        _ask_for_metrics(findings),
        _ask_for_variation(findings),
        _ask_for_validation(findings),
        _ask_for_time(findings),
        _ask_for_machine(document),
    ]


def _ask_for_runs(findings: Findings) -> ChecklistRow:
    attempts = plural(findings["accounting"]["attempts"], "attempt")
    trials = plural(len(findings["trials"]), "trial")
    text = f"{attempts} at {trials}"
    if findings["confirmation"] is not None:
        finalists = findings["confirmation"]["finalists"]
        n_replicas = sum(len(finalist["replicas"]) for finalist in finalists)
        text += f", {plural(n_replicas, 'replica')}"
    text += f", {plural(findings['test']['opened'], 'opening')} of the test set."
    return _make_row(
        "Results",
        "Is the exact number of training and evaluation runs given?",
        Source.NEURIPS,
        Answer.YES,
        text,
        "accounting",
    )


def _ask_for_metrics(findings: Findings) -> ChecklistRow:
    names = [objective["name"] for objective in findings["objectives"]]
    them = "it" if len(names) == 1 else "them"
    return _make_row(
        "Results",
        "Are the metrics defined?",
        Source.BOTH,
        _yes_if(names),
        f"{listed(names)}, as the code at the recorded commit computes {them}.",
        "claim",
    )


def _ask_for_variation(findings: Findings) -> ChecklistRow:
    winner = find_winner(findings["confirmation"])
    if winner is not None and winner["sd"] is not None:
        answer = Answer.YES
        seeds = plural(winner["n"], "seed")
        text = f"Mean, standard deviation and intervals over {seeds}."
    else:
        answer = Answer.NO
        text = "One training each: the spread between seeds is not measured."
    item = "Are results given with a central tendency and a variation?"
    return _make_row("Results", item, Source.BOTH, answer, text, "confirmation")


def _ask_for_validation(findings: Findings) -> ChecklistRow:
    main = findings["test"]["main"]
    is_confirmed = find_winner(findings["confirmation"]) is not None
    if main is None:
        answer = Answer.NONE
        text = "There is no test result."
    elif is_confirmed or main["retrained_value"] is not None:
        answer = Answer.YES
        text = "Both are given for the model that was tested."
    else:
        answer = Answer.NO
        text = "The validation score of the tested model is not in the record."
    item = "Does each test result come with the validation result it belongs to?"
    return _make_row("Results", item, Source.NAACL, answer, text, "test")


def _ask_for_time(findings: Findings) -> ChecklistRow:
    mean = findings["compute"]["trial_mean"]
    text = "Times are not in the record."
    if mean is not None:
        text = f"A completed trial took {duration(mean)} on average; energy is not measured."
    return _make_row(
        "Results",
        "Is the average run time of a training given, or its energy?",
        Source.BOTH,
        _yes_if(mean is not None),
        text,
        "compute",
    )


def _ask_for_machine(document: StudyDocument) -> ChecklistRow:
    provenance = document.provenance
    known = [provenance.cpu, provenance.platform, *provenance.gpus]
    machine = [str(part) for part in known if part]
    text = f"{listed(machine)}." if machine else "The machine is not in the record."
    return _make_row(
        "Results",
        "Is the computing infrastructure described?",
        Source.BOTH,
        _yes_if(machine),
        text,
        "provenance",
    )
