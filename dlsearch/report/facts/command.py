"""The command lines that repeat a study, train its winner alone, verify it or predict with it."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dlsearch.report.facts.contents import Commands
    from dlsearch.report.study import Finalist, Finalization, StudyDocument, View

# What steers a search and means nothing to the training of one configuration; the goal decides
# which epoch is the best.
_OF_THE_SEARCH = ("study.", "worker.", "space", "hydra/", "hydra.", "sampler", "pruner")
_GOAL = ("study.objective", "study.direction")
# Where a study's files are, and its database.
_STORE = ("paths.store", "paths.data", "paths.weights")
_STORAGE = "study.storage"
# Hydra's options that say where configs come from, with a value of their own.
_SOURCES = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp")
_SOURCES_WITH_VALUE = tuple(f"{option}=" for option in _SOURCES)
# What Hydra's grammar of overrides reads as a string without quotes, and what it reads as no
# string.
_PLAIN = re.compile(r"[A-Za-z0-9_./:+@][A-Za-z0-9_./:+@-]*")
_CONSTANTS = {"true", "false", "null", "nan", "inf", "on", "off", "yes", "no"}
# A quote is escaped with a backslash, and so are the backslashes before a quote or the end.
_BACKSLASHES_BEFORE_QUOTE = re.compile(r"(\\+)(?='|$)")


@dataclass(frozen=True)
class _Training:
    """The training of one configuration; None where the study does not say."""

    params: Mapping[str, Any]
    seed: int | None
    threads: int | None


def reproduce(view: View) -> Commands:
    """The command of the study as it was given, and those of the winner where there is one."""
    document = view.document
    name = shlex.quote(document.name)
    packages = _admit_packages(document)
    store = _list_places(document, _STORE)
    commands: Commands = {
        "study": document.command,
        "again": f"dlsearch reproduce {name} --store again{store}{packages}",
        "winner": None,
        "verify": None,
        "predict": None,
        "commit": document.provenance.commit,
        "dirty": document.provenance.dirty,
    }
    training = _find_training(view)
    if training is not None:
        commands["winner"] = _train_one(document, training)
    suffix = _list_places(document, (*_STORE, _STORAGE)) + packages
    if view.winner is not None:
        commands["verify"] = f"dlsearch verify {name}/{view.winner.number}{suffix}"
    if view.finalization is not None and view.finalization.winner is not None:
        commands["predict"] = f"dlsearch predict {name} FILE{suffix}"
    return commands


def hydra_value(value: Any) -> str:
    """A value in the grammar of Hydra's overrides, quoted where it would read as something else."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        elements = [hydra_value(element) for element in value]
        return "[" + ",".join(elements) + "]"
    if isinstance(value, dict):
        items = [f"{key}:{hydra_value(element)}" for key, element in value.items()]
        return "{" + ",".join(items) + "}"
    return _quote_text(str(value))


def _quote_text(text: str) -> str:
    reads_as_text = text.lower() not in _CONSTANTS and not _is_number(text)
    if _PLAIN.fullmatch(text) and reads_as_text:
        return text
    doubled = _BACKSLASHES_BEFORE_QUOTE.sub(r"\1\1", text)
    escaped = doubled.replace("'", "\\'")
    return f"'{escaped}'"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _list_places(document: StudyDocument, keys: Sequence[str]) -> str:
    """The end of a command line that says where the study is, where the study's own said it."""
    words = [word for word in document.overrides if _key_of(word) in keys]
    return "".join(f" {shlex.quote(word)}" for word in words)


def _packages_of(document: StudyDocument) -> list[str]:
    """The packages that the study admitted targets of."""
    return document.config.get("allow_targets") or []


def _admit_packages(document: StudyDocument) -> str:
    """The end of a command line that admits the packages of the study."""
    packages = _packages_of(document)
    if not packages:
        return ""
    word = f"allow_targets={hydra_value(packages)}"
    return f" {shlex.quote(word)}"


def _find_training(view: View) -> _Training | None:
    """The training of the winner: of the replica that is kept, else of the best trial."""
    threads = view.document.provenance.threads
    final = view.finalization
    if final is not None and final.winner is not None:
        return _find_kept_training(final, final.winner, threads)
    if view.winner is None:
        return None
    return _Training(view.winner.params, view.winner.seed, threads)


def _find_kept_training(
    final: Finalization,
    winner: Finalist,
    threads: int | None,
) -> _Training:
    """The training of the kept replica, whose seed is not that of the trial."""
    for replica in winner.replicas:
        if replica.replica == final.kept_replica:
            own_threads = threads if replica.threads is None else replica.threads
            return _Training(winner.params, replica.seed, own_threads)
    return _Training(winner.params, None, threads)


def _train_one(document: StudyDocument, training: _Training) -> str:
    """The command that trains one configuration as the study trained it.

    It has the same files, values, threads and seed.
    """
    words = [word for word in document.overrides if _is_of_one_training(word, training.params)]
    words += _set_params(document, training.params)

    if training.threads is not None:  # sums are made in as many parts, and rounded so
        words.append(f"worker.threads={training.threads}")
    if training.seed is not None:
        words = [word for word in words if not word.startswith("seed=")]
        words.append(f"seed={training.seed}")
    packages = _packages_of(document)
    already_admitted = any(word.lstrip("+").startswith("allow_targets=") for word in words)
    if packages and not already_admitted:
        words.append(f"allow_targets={hydra_value(packages)}")
    return shlex.join(["dlsearch", *_list_sources(document.command), *words])


def _set_params(document: StudyDocument, params: Mapping[str, Any]) -> list[str]:
    """The overrides that set the hyperparameters, with ``++`` where the config lacks the key."""
    added = {dimension.name for dimension in document.space if dimension.added}
    words: list[str] = []
    for key, value in params.items():
        prefix = "++" if key in added else ""
        words.append(f"{prefix}{key}={hydra_value(value)}")
    return words


def _is_of_one_training(word: str, params: Mapping[str, Any]) -> bool:
    """Whether an override of the study means something to one training, and is not set anyway."""
    key = _key_of(word)
    if key in params:
        return False
    return key in _GOAL or not key.startswith(_OF_THE_SEARCH)


def _key_of(word: str) -> str:
    """The key of an override: ``model`` of ``++model=mlp``."""
    key, _, _ = word.partition("=")
    return key.lstrip("+~")


def _list_sources(command: str | None) -> list[str]:
    """The options of a command that say where configs come from."""
    try:
        words = shlex.split(command or "")
    except ValueError:  # of an older record; it was cut
        return []
    found: list[str] = []
    following = iter([*words[1:], ""])
    for word in words:
        value = next(following)
        if word in _SOURCES:
            found += [word, value]
        elif word.startswith(_SOURCES_WITH_VALUE):
            found.append(word)
    return found
