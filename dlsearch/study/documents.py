"""The document of a study, as a database or a report has it: somebody else may have written it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dlsearch.config.progress import training_length
from dlsearch.core.bounded import IN_DATABASE, parse_json
from dlsearch.core.errors import ConfigError

#: The types of what is under a key, where it is there: earlier versions had fewer keys.
_KINDS: Mapping[str, tuple[type, ...]] = {
    "config": (dict,),
    "options": (dict,),
    "provenance": (dict,),
    "sha": (dict,),
    "sampler": (dict,),
    "data": (dict, type(None)),
    "model": (dict, type(None)),
    "default": (dict, type(None)),
    "pruner": (dict, type(None)),
    "space": (list,),
    "objectives": (list,),
    "directions": (list,),
    "allow_targets": (list,),
    "enqueue": (list,),
    "overrides": (list,),
    "name": (str,),
    "uuid": (str,),
    "seed": (int,),
}
_NEEDED = ("config", "space", "objectives", "directions", "uuid")
_LISTS_OF_TEXT = ("objectives", "directions", "allow_targets", "overrides")
_HINT = "it was changed by another program than dlsearch"
_SECTIONS = ("study", "trainer", "worker", "tracking", "paths")


@dataclass(frozen=True)
class StudyDocument:
    """What was composed when a study was opened, as far as it is read by what serves the study.

    Args:
        plain: All of it, as JSON, with the keys that nothing here knows.
        seed: The study's seed.
        objectives: The metrics that decide, the first of them the one that is pruned by.
        directions: ``maximize`` or ``minimize``, for each.
        space: Its dimensions, see :meth:`dlsearch.space.space.Space.from_json`.
        config: The composed config.
        sampler: The config of the sampler.
        pruner: That of the pruner; None prunes nothing.
        allow_targets: Packages whose targets may be built.
    """

    plain: Mapping[str, Any]
    seed: int
    objectives: list[str]
    directions: list[str]
    space: list[dict[str, Any]]
    config: Mapping[str, Any]
    sampler: Mapping[str, Any]
    pruner: Mapping[str, Any] | None
    allow_targets: list[str]

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> StudyDocument:
        """The document that checked plain JSON describes, see :func:`check_document`."""
        return cls(
            plain=plain,
            seed=int(plain["seed"]),
            objectives=plain["objectives"],
            directions=plain["directions"],
            space=plain["space"],
            config=plain["config"],
            sampler=plain["sampler"],
            pruner=plain["pruner"],
            allow_targets=plain.get("allow_targets") or [],
        )

    @property
    def study_settings(self) -> Mapping[str, Any]:
        """The section ``study`` of the config."""
        settings: Mapping[str, Any] = self.config["study"]
        return settings

    @property
    def max_epochs(self) -> int:
        """Length of a whole training."""
        return training_length(self.config["trainer"]).amount

    @property
    def lease_s(self) -> float:
        """How long an attempt may be silent, as the study was configured, seconds."""
        return float(self.config["worker"]["lease_s"])

    @property
    def defaults(self) -> dict[str, Any]:
        """The composed config's value of every searched key that has one."""
        return {
            dimension["name"]: dimension["default"]
            for dimension in self.space
            if dimension.get("default") is not None
        }


def study_document(text: str) -> dict[str, Any]:
    """The document that a row of the database holds.

    Raises:
        ConfigError: It is none.
    """
    found = parse_json(text, IN_DATABASE)
    check_document(found, IN_DATABASE)
    return dict(found)


def check_document(found: Any, where: str) -> None:
    """Check that a document is made as a study's is.

    Args:
        found: Plain data.
        where: What to call the place that it comes from.

    Raises:
        ConfigError: It is not.
    """
    if not isinstance(found, dict):
        kind = type(found).__name__
        raise ConfigError(where, f"expected the document of a study, got {kind}", _HINT)
    _check_types(found, where)
    _check_contents(found, where)


def _check_types(found: Mapping[str, Any], where: str) -> None:
    """Check that what is needed is there, and that each key has a value of its type."""
    for key in _NEEDED:
        if key not in found:
            raise ConfigError(where, f"the document of the study has no {key!r}", _HINT)
    for key, kinds in _KINDS.items():
        if key in found and not isinstance(found[key], kinds):
            raise ConfigError(where, f"the study's {key} is no {kinds[0].__name__}", _HINT)
    for key in _SECTIONS:
        if not isinstance(found["config"].get(key, {}), dict):
            raise ConfigError(where, f"the study's config.{key} is no dict", _HINT)


def _check_contents(found: Mapping[str, Any], where: str) -> None:
    """Check what lists and groups hold."""
    for key in _LISTS_OF_TEXT:
        if not all(isinstance(each, str) for each in found.get(key) or []):
            raise ConfigError(where, f"the study's {key} are no texts", _HINT)
    if not all(_is_dimension(entry) for entry in found["space"]):
        raise ConfigError(where, "the study's space is no list of dimensions", _HINT)
    if not all(isinstance(nodes, dict) for nodes in (found.get("options") or {}).values()):
        raise ConfigError(where, "the study's options are no dicts", _HINT)


def _is_dimension(entry: Any) -> bool:
    return isinstance(entry, dict) and all(
        isinstance(entry.get(key), str) for key in ("name", "kind")
    )
