"""The document of a study, as a database or a report has it: somebody else may have written it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlsearch.config.progress import training_length
from dlsearch.core.bounded import IN_DATABASE, parse_json
from dlsearch.core.errors import ConfigError

if TYPE_CHECKING:
    from dlsearch.core.types import ConfigTree, JsonObject, Params

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
    "racing_rule": (int, type(None)),
}
_NEEDED = ("config", "space", "objectives", "directions", "uuid")
_LISTS_OF_TEXT = ("objectives", "directions", "allow_targets", "overrides")
_HINT = "it was changed by another program than dlsearch"
_SECTIONS = ("study", "trainer", "worker", "tracking", "paths")


@dataclass(frozen=True)
class StudyDocument:
    """What was composed when a study was opened, as far as it is read here.

    Args:
        plain: All of it, as JSON, with the keys that nothing here knows.
        uuid: The study's own, which no other has.
        seed: The study's seed.
        objectives: The metrics that decide, the first of them the one that is pruned by.
        directions: ``maximize`` or ``minimize``, for each.
        space: Its dimensions, see :meth:`dlsearch.space.space.Space.from_json`.
        config: The composed config.
        sampler: The config of the sampler.
        pruner: That of the pruner; None prunes nothing.
        allow_targets: Packages whose targets may be built.
        default: The default configuration, which runs as trial 0; None where it does not.
        enqueue: Parameter sets that run first.
        digests: Of its parts: ``config``, ``space``, ``sampler``, ``data``, and more.
        fixed: The config without what may change between sessions.
        sessions: The later commands that went on with the study: what they were, and what they
            changed.
        racing_rule: The rule of racing of the study that this one repeats; None for the newest.
    """

    plain: JsonObject
    uuid: str
    seed: int
    objectives: list[str]
    directions: list[str]
    space: list[JsonObject]
    config: ConfigTree
    sampler: ConfigTree
    pruner: ConfigTree | None
    allow_targets: list[str]
    default: Params | None
    enqueue: list[Params]
    digests: Mapping[str, str]
    fixed: ConfigTree
    sessions: list[JsonObject]
    racing_rule: int | None

    @classmethod
    def from_json(cls, plain: JsonObject) -> StudyDocument:
        """The document that checked plain JSON describes, see :func:`check_document`."""
        return cls(
            plain=plain,
            uuid=plain["uuid"],
            seed=int(plain["seed"]),
            objectives=plain["objectives"],
            directions=plain["directions"],
            space=plain["space"],
            config=plain["config"],
            sampler=plain["sampler"],
            pruner=plain["pruner"],
            allow_targets=plain.get("allow_targets") or [],
            default=plain.get("default"),
            enqueue=plain.get("enqueue") or [],
            digests=plain.get("sha") or {},
            fixed=plain.get("fixed") or {},
            sessions=plain.get("sessions") or [],
            racing_rule=plain.get("racing_rule"),
        )

    @classmethod
    def from_text(cls, text: str) -> StudyDocument:
        """The document that a row of the database holds.

        Raises:
            ConfigError: It is none.
        """
        return cls.from_json(study_document(text))

    @property
    def study_settings(self) -> ConfigTree:
        """The section ``study`` of the config."""
        settings: ConfigTree = self.config["study"]
        return settings

    @property
    def max_epochs(self) -> int:
        """Length of a whole training."""
        length = training_length(self.config["trainer"])
        return length.amount

    @property
    def lease_s(self) -> float:
        """How long an attempt may be silent, as the study was configured, seconds."""
        return float(self.config["worker"]["lease_s"])

    @property
    def defaults(self) -> Params:
        """The composed config's value of every searched key that has one."""
        found: Params = {}
        for dimension in self.space:
            default = dimension.get("default")
            if default is not None:
                found[dimension["name"]] = default
        return found


def study_document(text: str) -> JsonObject:
    """The document that a row of the database holds, as plain JSON.

    Raises:
        ConfigError: It is none.
    """
    found = parse_json(text, IN_DATABASE)
    check_document(found, IN_DATABASE)
    return dict(found)


def check_document(
    found: Any,
    where: str,
) -> None:
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


def _check_types(
    found: JsonObject,
    where: str,
) -> None:
    """Check that what is needed is there, and that each key has a value of its type."""
    for key in _NEEDED:
        if key not in found:
            raise ConfigError(where, f"the document of the study has no {key!r}", _HINT)
    for key, kinds in _KINDS.items():
        if key not in found:
            continue
        if not isinstance(found[key], kinds):
            name = kinds[0].__name__
            raise ConfigError(where, f"the study's {key} is no {name}", _HINT)
    for key in _SECTIONS:
        section = found["config"].get(key, {})
        if not isinstance(section, dict):
            raise ConfigError(where, f"the study's config.{key} is no dict", _HINT)


def _check_contents(
    found: JsonObject,
    where: str,
) -> None:
    """Check what lists and groups hold."""
    for key in _LISTS_OF_TEXT:
        texts = found.get(key) or []
        if not all(isinstance(each, str) for each in texts):
            raise ConfigError(where, f"the study's {key} are no texts", _HINT)
    for entry in found["space"]:
        if not _is_dimension(entry):
            raise ConfigError(where, "the study's space is no list of dimensions", _HINT)
    options = found.get("options") or {}
    for nodes in options.values():
        if not isinstance(nodes, dict):
            raise ConfigError(where, "the study's options are no dicts", _HINT)


def _is_dimension(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    return isinstance(entry.get("name"), str) and isinstance(entry.get("kind"), str)
