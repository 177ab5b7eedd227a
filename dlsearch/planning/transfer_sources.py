"""Where transferred weights come from: found before anything is written, then kept by digest.

A study keeps a copy of what it begins with, so that it can go on, and be verified, whatever becomes
of the source.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from omegaconf import OmegaConf

from dlsearch.config.compose import resolve
from dlsearch.config.progress import epochs_of
from dlsearch.config.transfer import settings, source
from dlsearch.core.errors import ConfigError
from dlsearch.core.machine.processes import process_tag
from dlsearch.core.types import ConfigTree, JsonObject, Params
from dlsearch.storage import location

if TYPE_CHECKING:
    from dlsearch.planning.draft import Draft
    from dlsearch.study.kept_model import Kept

WEIGHTS = "transfer.weights"
#: Keys that mean nothing without weights, and their defaults.
_IDLE: ConfigTree = {
    "prefix": None,
    "head": "last",
    "freeze": None,
    "unfreeze": None,
    "lr": 1.0,
    "groups": {},
}


#: Of each source, what belongs into the provenance: what the look at the weights has shown, with
#: their digest, and where they are from.
Transferred: TypeAlias = Mapping[str, JsonObject]


@dataclass(frozen=True)
class WeightSource:
    """Where the weights of one source lie.

    Args:
        path: Their file; None where torchvision publishes them.
        torchvision: The name under which it does.
        folder: Where torchvision's files go.
        origin: What is known of the study that they are from.
    """

    path: str | None = None
    torchvision: str | None = None
    folder: str | None = None
    origin: JsonObject | None = None

    def to_json(self) -> JsonObject:
        """As plain JSON, for the process that looks at the weights."""
        found = {
            "path": self.path,
            "torchvision": self.torchvision,
            "folder": self.folder,
            "from": self.origin,
        }
        return {key: value for key, value in found.items() if value is not None}


def to_json(sources: Mapping[str, WeightSource]) -> dict[str, JsonObject]:
    """Sources as plain JSON."""
    return {name: found.to_json() for name, found in sources.items()}


# -- checking --------------------------------------------------------------------------------------
def check_section(draft: Draft) -> None:
    """Check ``transfer``, in the base config and in each option of the group where it is searched.

    Raises:
        ConfigError: A value is none that can be meant, or something is to be frozen and nothing
            loaded.
    """
    for node in _sections(draft):
        config = {**draft.config, "transfer": node}
        check_node(config, searched=_searched(draft))


def check_node(
    config: Mapping[str, Any],
    searched: Iterable[str] = (),
) -> None:
    """Check ``transfer`` of a config, as :func:`check_section` does.

    Args:
        config: Plain.
        searched: Sources that a search chooses among.
    """
    found = resolve(OmegaConf.create(dict(config)), "transfer")
    names = list(searched)
    if found["weights"] is not None:
        names.insert(0, found["weights"])
    for name in names:
        settings({**found, "weights": name}, epochs_of(config["trainer"]))
    if names:
        return
    for key, idle in _IDLE.items():
        if found[key] != idle:
            raise ConfigError(
                WEIGHTS,
                f"expected a source, as transfer.{key} is given",
                f"{WEIGHTS}=study:NAME",
            )


def _sections(draft: Draft) -> list[ConfigTree]:
    """The base config's section ``transfer``, and each option of it that is searched."""
    options = draft.options.get("transfer", {})
    return [draft.config["transfer"], *options.values()]


def _searched(draft: Draft) -> list[str]:
    """The sources that the search chooses among."""
    found = []
    for dim in draft.space.dimensions:
        if dim.name != WEIGHTS:
            continue
        choices = dim.choices or ()
        found += [choice for choice in choices if choice is not None]
    return found


def representatives(draft: Draft) -> list[Params]:
    """Parameters that pair every source with every choice of what to do with it."""
    searched = _searched(draft)
    every = list(searched)
    base = draft.config["transfer"]["weights"]
    if base is not None:
        every.append(base)

    found: list[Params] = [{WEIGHTS: name} for name in searched]
    for name in dict.fromkeys(every):
        for dim in draft.space.dimensions:
            if not dim.name.startswith("transfer.") or dim.name == WEIGHTS:
                continue
            found += [{WEIGHTS: name, dim.name: choice} for choice in dim.choices or ()]
    return found


def sources(draft: Draft) -> list[str]:
    """All that a study may transfer from, as typed."""
    given = [node["weights"] for node in _sections(draft) if node["weights"] is not None]
    distinct = dict.fromkeys([*given, *_searched(draft)])
    return list(distinct)


# -- finding ---------------------------------------------------------------------------------------
def find(
    names: Iterable[str],
    *,
    store: Path,
    url: str,
    data: Path,
    kept: Mapping[str, Path] | None = None,
    own: str | None = None,
) -> dict[str, WeightSource]:
    """Say where the weights of each source lie, or under which name torchvision publishes them.

    Args:
        names: The sources.
        store: The store that studies write to.
        url: Of the storage of studies.
        data: The data root; torchvision's files go to its folder ``weights``.
        kept: Files that a study which is resumed has kept.
        own: Name of the study that begins with them.

    Raises:
        ConfigError: A study is not there or not finished, or a file does not exist.
    """
    found: dict[str, WeightSource] = {}
    for each in names:
        kind, name = source(each)
        kept_file = (kept or {}).get(each)
        if kept_file is not None and kept_file.is_file():
            found[each] = WeightSource(path=str(kept_file))
        elif kind == "torchvision":
            folder = data / "weights"
            found[each] = WeightSource(torchvision=name, folder=str(folder))
        elif kind == "file":
            found[each] = _find_file(name)
        else:
            found[each] = _find_study(name, store, url, own)
    return found


def _find_file(name: str) -> WeightSource:
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        raise ConfigError(WEIGHTS, f"{name} does not exist or is no file")
    return WeightSource(path=str(path))


def _find_study(
    word: str,
    store: Path,
    url: str,
    own: str | None,
) -> WeightSource:
    """The model that a study kept, or that of one of its trials.

    Args:
        word: ``NAME`` or ``NAME/TRIAL``.
        store: The store that studies write to.
        url: Of the storage of studies.
        own: Name of the study that begins with it.
    """
    name, slash, number = word.partition("/")
    if slash and not number.isdigit():
        raise ConfigError(WEIGHTS, f"expected study:NAME or study:NAME/TRIAL, got 'study:{word}'")
    if name == own:
        raise ConfigError(
            WEIGHTS,
            f"the study {name!r} cannot begin with its own result",
            "study.name=… names another",
        )
    if not location.exists(url):
        raise ConfigError(
            WEIGHTS,
            f"there is no study {name!r}: {location.mask(url)} does not exist",
        )
    kept = _read_kept(name, int(number) if slash else None, store, url)
    origin = {
        "study": kept.about["study"],
        "trial": kept.about["trial"],
        "kind": kept.kind,
    }
    return WeightSource(path=str(kept.checkpoint), origin=origin)


def _read_kept(
    name: str,
    number: int | None,
    store: Path,
    url: str,
) -> Kept:
    """The model of a study, as its database has it."""
    from dlsearch.records.record import read_record
    from dlsearch.storage.database import Storage
    from dlsearch.study.kept_model import kept_model
    from dlsearch.study.study import Study

    storage = Storage(url)
    try:
        record = read_record(Study(storage, name)).to_json()
        return kept_model(record, store, number)
    except ConfigError as error:
        raise ConfigError(WEIGHTS, error.expected, error.hint) from error
    finally:
        storage.close()


# -- keeping ---------------------------------------------------------------------------------------
def settle(
    nodes: Iterable[ConfigTree],
    found: Mapping[str, WeightSource],
    checked: Mapping[str, JsonObject],
) -> dict[str, JsonObject]:
    """Write the digests into the config, now that the weights have been looked at.

    Args:
        nodes: The ``transfer`` sections; changed in place.
        found: As :func:`find` gives it.
        checked: For each source what :func:`dlsearch.training.transfer.check` says of it.

    Returns:
        For each source what belongs into the provenance.

    Raises:
        ConfigError: The config asks for other weights.
    """
    digests = {name: about["sha256"] for name, about in checked.items()}
    for node in nodes:
        for name, sha in node["sha256"].items():
            digest = digests.get(name, sha)
            if digest != sha:
                raise ConfigError(
                    "transfer.sha256",
                    f"{name} has {digest[:16]}…, and {sha[:16]}… was asked for",
                )
        node["sha256"] = {**node["sha256"], **digests}
    transferred: dict[str, JsonObject] = {}
    for name, about in checked.items():
        transferred[name] = {**about, "from": found[name].origin}
    return transferred


def lines(transferred: Transferred) -> list[str]:
    """A line for each source: how many tensors were loaded, and the names of the others."""
    found = []
    for name, about in transferred.items():
        trial = (about.get("from") or {}).get("trial")
        which = name if trial is None else f"{name}, trial {trial}"
        n_loaded = len(about["loaded"])
        n_frozen = len(about["frozen"])
        parts = [
            f"{n_loaded} tensors loaded",
            _count_tensors(about["new"], "begin anew"),
            _count_tensors(about["left_out"], "of the source left out"),
        ]
        if n_frozen:
            parts.append(f"{n_frozen} frozen in the first epoch")
        listed = ", ".join(parts)
        digest = about["sha256"][:12]
        found.append(f"{which} ({digest}): {listed}")
    return found


def _count_tensors(
    names: list[str],
    words: str,
) -> str:
    """How many tensors there are, and the first of their names."""
    counted = f"{len(names)} {words}"
    if not names:
        return counted
    shown = ", ".join(names[:4])
    if len(names) > 4:
        shown += ", …"
    return f"{counted} ({shown})"


def kept_files(
    transfer: Mapping[str, Any] | None,
    folder: Path,
) -> dict[str, Path]:
    """Where a config's sources are kept, whether or not they are."""
    digests = (transfer or {}).get("sha256") or {}
    found = {}
    for name, sha in digests.items():
        if str(sha).isalnum():
            found[name] = folder / f"{sha}.ckpt"
    return found


def keep(
    folder: Path,
    transferred: Transferred,
    files: Mapping[str, str],
) -> None:
    """Copy the weights to where trials look for them.

    Args:
        folder: ``paths.weights``.
        transferred: As :func:`settle` gives it.
        files: Where the weights of each source lie.
    """
    for name, about in transferred.items():
        path = folder / f"{about['sha256']}.ckpt"
        if path.is_file():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".part{process_tag()}")
        shutil.copyfile(files[name], part)
        part.replace(path)
