"""The reproducibility checklists of NeurIPS and NAACL, answered from the record.

The items are those of the Machine Learning Reproducibility Checklist, version 2.0 (Pineau et al., 2021), and of the
NAACL 2021 Reproducibility Checklist (after Dodge et al., 2019), in words of our own. What a record cannot know, such as
where the data can be downloaded, is answered as not recorded: it stays with the author.
"""

from __future__ import annotations

from typing import Any

from dlsearch.report.formats import duration, listed, number, plural

YES, NO, UNKNOWN, NONE = "yes", "no", "not recorded", "not applicable"
_BOTH, _NEURIPS, _NAACL = "NeurIPS, NAACL", "NeurIPS", "NAACL"


def checklist(f: dict[str, Any]) -> list[dict[str, str]]:
    """Answer every item.

    Returns:
        Rows ``{"topic", "item", "of", "answer", "text", "section"}``; ``answer`` is one of yes, no, not recorded and
        not applicable, ``section`` the id of the section that holds the matter.
    """
    return [*_models(f), *_data(f), *_code(f), *_search(f), *_results(f)]


def _row(topic: str, item: str, of: str, answer: str, text: str, section: str) -> dict[str, str]:
    return {"topic": topic, "item": item, "of": of, "answer": answer, "text": text, "section": section}


def _models(f: dict[str, Any]) -> list[dict[str, str]]:
    model, config = f["study"].get("model") or {}, f["study"].get("config") or {}
    layers, target = model.get("layers"), (config.get("model") or {}).get("_target_")
    known = f"The class {target}" if target else "The net"
    n = model.get("n_params")
    return [
        _row(
            "Model",
            "Is the model described?",
            _BOTH,
            YES if layers or target else UNKNOWN,
            f"{known}, with its layer table of {plural(len(layers), 'row')}."
            if layers
            else f"{known}; no layer table is recorded."
            if target
            else "The record names no model.",
            "model",
        ),
        _row(
            "Model",
            "Is the number of parameters of each model given?",
            _NAACL,
            YES if n is not None else UNKNOWN,
            f"{number(n)} in the base configuration; each trial's own number is in report.json."
            if n is not None
            else "It is not in the record.",
            "model",
        ),
        _row(
            "Model",
            "Is the complexity of the model analysed?",
            _NEURIPS,
            YES if model.get("macs") is not None else UNKNOWN,
            f"{number(model['macs'])} multiply-adds for one example; times and parameters are measured."
            if model.get("macs") is not None
            else "Multiply-adds are not in the record.",
            "model",
        ),
        _row(
            "Model",
            "Are theoretical claims stated with their assumptions and proofs?",
            _NEURIPS,
            NONE,
            "A study report makes none.",
            "limits",
        ),
    ]


def _data(f: dict[str, Any]) -> list[dict[str, str]]:
    data, facts = f["study"].get("data") or {}, f["data"] or {}
    sizes, config = data.get("sizes") or {}, (f["study"].get("config") or {}).get("data") or {}
    counts, overlap = data.get("class_counts") or {}, facts.get("overlap_index")
    made = [k for k in ("val_size", "train_size", "split_seed") if config.get(k) is not None]
    return [
        _row(
            "Data",
            "Are the relevant statistics given, such as the numbers of examples and the distribution of labels?",
            _BOTH,
            YES if sizes and any(counts.values()) else NO if sizes else UNKNOWN,
            "Sizes of the splits and examples of each class."
            if sizes and any(counts.values())
            else "The sizes of the splits; the classes are not counted."
            if sizes
            else "The record says nothing about the data.",
            "data",
        ),
        _row(
            "Data",
            "Are the splits described?",
            _BOTH,
            YES if data.get("digests") else UNKNOWN,
            (
                f"Each split has its size and its SHA-256 digest; made by {listed(made)} of the config."
                if made
                else "Each split has its size and its SHA-256 digest."
            )
            + (f" {plural(overlap, 'example')} shared between splits." if overlap is not None else "")
            if data.get("digests")
            else "No digest of a split is recorded.",
            "data",
        ),
        _row(
            "Data",
            "Are excluded data and the preprocessing explained?",
            _BOTH,
            YES if config else UNKNOWN,
            "The data's settings, augmentation and standardisation among them, are in the config that the record holds."
            if config
            else "The record holds no settings of the data.",
            "data",
        ),
        _row(
            "Data",
            "Is there a link to a version of the data that can be downloaded?",
            _BOTH,
            UNKNOWN,
            "The record holds digests and no address: the author names the source.",
            "data",
        ),
        _row(
            "Data",
            "For new data, is their collection described?",
            _BOTH,
            UNKNOWN,
            "The record does not know who collected the data.",
            "data",
        ),
        _row(
            "Data",
            "For data in natural language, are the languages named?",
            _NAACL,
            UNKNOWN if data.get("shape") is None else NONE,
            "The record does not tell."
            if data.get("shape") is None
            else "The examples are arrays of a fixed shape, no text.",
            "data",
        ),
    ]


def _code(f: dict[str, Any]) -> list[dict[str, str]]:
    p, again = f["study"].get("provenance") or {}, f["reproduce"]
    commit, packages, dirty = p.get("commit"), p.get("packages"), p.get("dirty")
    kept = (f["confirmation"] or {}).get("checkpoint")
    return [
        _row(
            "Code",
            "Are the dependencies specified?",
            _BOTH,
            YES if p.get("lock") else NO if packages else UNKNOWN,
            "By a lock file, whose digest is given, and the versions of the main packages."
            if p.get("lock")
            else "The versions of the main packages are listed; there is no lock file."
            if packages
            else "They are not in the record.",
            "provenance",
        ),
        _row(
            "Code",
            "Is the code of training and evaluation available?",
            _BOTH,
            UNKNOWN if not commit else NO if dirty else YES,
            f"It is commit {commit[:10]}"
            + (", with changes that were not committed." if dirty else "; the author names the repository.")
            if commit
            else "No commit is recorded.",
            "provenance",
        ),
        _row(
            "Code",
            "Is the trained model available?",
            _NEURIPS,
            YES if kept else UNKNOWN,
            f"The kept model is {kept} in the store of the study." if kept else "The record names no checkpoint.",
            "model",
        ),
        _row(
            "Code",
            "Is there the precise command that produces the results?",
            _NEURIPS,
            YES if again["study"] else UNKNOWN,
            "The command of the study, and the one that trains its winner alone."
            if again["winner"]
            else "The command of the study."
            if again["study"]
            else "The command is not in the record.",
            "claim",
        ),
    ]


def _search(f: dict[str, Any]) -> list[dict[str, str]]:
    space, sampler = f["study"].get("space") or [], f["study"].get("sampler") or {}
    n, winner = len(f["trials"]), f["confirmation"] and f["confirmation"]["winner"] is not None
    objective = f["objectives"][0]["name"]
    selected = f"the best mean {objective} over fresh seeds among the finalists" if winner else f"the best {objective}"
    config = f["study"].get("config")
    return [
        _row(
            "Search",
            "Are the bounds of each hyperparameter given?",
            _BOTH,
            YES if space else UNKNOWN,
            f"All {plural(len(space), 'dimension')}, with scale, default and condition."
            if len(space) > 1
            else "The dimension, with scale, default and condition."
            if space
            else "The record names no dimension.",
            "space",
        ),
        _row(
            "Search",
            "Are all hyperparameters of the best configuration given?",
            _BOTH,
            YES if config and f["top"] else NO if f["top"] else UNKNOWN,
            "Those that were searched in the table of the result, all others in the config that the record holds."
            if config and f["top"]
            else "Those that were searched; the config is not in the record."
            if f["top"]
            else "There is no best configuration.",
            "claim",
        ),
        _row(
            "Search",
            "Is the number of search trials given?",
            _NAACL,
            YES,
            f"{plural(n, 'trial')}, each accounted for.",
            "accounting",
        ),
        _row(
            "Search",
            "Is the method that chose values given, and the criterion that selected among them?",
            _BOTH,
            YES if sampler else UNKNOWN,
            f"{str(sampler.get('_target_') or 'the sampler').rsplit('.', 1)[-1]} chose; {selected} was selected."
            if sampler
            else "The sampler is not in the record.",
            "space",
        ),
        _row(
            "Search",
            "Is what the budget bought shown, such as the expected validation performance?",
            _NAACL,
            YES if f["course"]["best_so_far"] else NO,
            "The expected best score by number of trials."
            if f["course"]["expected_best"]
            else "The best score so far by number of trials; the trials are not independent draws."
            if f["course"]["best_so_far"]
            else "There is no single best score to show.",
            "course",
        ),
    ]


def _results(f: dict[str, Any]) -> list[dict[str, str]]:
    c, main, p = f["confirmation"], f["test"]["main"], f["study"].get("provenance") or {}
    row = c["finalists"][c["winner"]] if c and c["winner"] is not None else None
    replicas = sum(len(r["replicas"]) for r in c["finalists"]) if c else 0
    mean = f["compute"]["trial_mean"]
    machine = [str(p[k]) for k in ("cpu", "platform") if p.get(k)] + [str(g) for g in p.get("gpus") or []]
    validated = main is not None and (row is not None or main["retrained_value"] is not None)
    return [
        _row(
            "Results",
            "Is the exact number of training and evaluation runs given?",
            _NEURIPS,
            YES,
            f"{plural(f['accounting']['attempts'], 'attempt')} at {plural(len(f['trials']), 'trial')}"
            + (f", {plural(replicas, 'replica')}" if c else "")
            + f", {plural(f['test']['opened'], 'opening')} of the test set.",
            "accounting",
        ),
        _row(
            "Results",
            "Are the metrics defined?",
            _BOTH,
            YES if f["objectives"] else UNKNOWN,
            f"{listed([o['name'] for o in f['objectives']])}, as the code at the recorded commit computes"
            f" {'it' if len(f['objectives']) == 1 else 'them'}.",
            "claim",
        ),
        _row(
            "Results",
            "Are results given with a central tendency and a variation?",
            _BOTH,
            YES if row and row["sd"] is not None else NO,
            f"Mean, standard deviation and intervals over {plural(row['n'], 'seed')}."
            if row and row["sd"] is not None
            else "One training each: the spread between seeds is not measured.",
            "confirmation",
        ),
        _row(
            "Results",
            "Does each test result come with the validation result it belongs to?",
            _NAACL,
            NONE if main is None else YES if validated else NO,
            "There is no test result."
            if main is None
            else "Both are given for the model that was tested."
            if validated
            else "The validation score of the tested model is not in the record.",
            "test",
        ),
        _row(
            "Results",
            "Is the average run time of a training given, or its energy?",
            _BOTH,
            YES if mean is not None else UNKNOWN,
            f"A completed trial took {duration(mean)} on average; energy is not measured."
            if mean is not None
            else "Times are not in the record.",
            "compute",
        ),
        _row(
            "Results",
            "Is the computing infrastructure described?",
            _BOTH,
            YES if machine else UNKNOWN,
            f"{listed(machine)}." if machine else "The machine is not in the record.",
            "provenance",
        ),
    ]
