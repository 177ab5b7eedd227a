"""Where transferred weights come from: found before anything is written, then kept by digest.

A study keeps a copy of what it begins with, so that it can go on, and be verified, whatever becomes
of the source.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from dlsearch.config.compose import resolve
from dlsearch.config.transfer import settings, source
from dlsearch.core.errors import ConfigError
from dlsearch.core.processes import process_tag
from dlsearch.storage import location

if TYPE_CHECKING:
    from dlsearch.planning.draft import Draft

WEIGHTS = "transfer.weights"
#: Keys that mean nothing without weights, and their defaults.
_IDLE: dict[str, Any] = {
    "prefix": None,
    "head": "last",
    "freeze": None,
    "unfreeze": None,
    "lr": 1.0,
    "groups": {},
}


def check_section(draft: Draft) -> None:
    """Check ``transfer``, in the base config and in each option of the group where it is searched.

    Raises:
        ConfigError: A value is none that can be meant, or something is to be frozen and nothing
            loaded.
    """
    for node in (draft.config["transfer"], *draft.options.get("transfer", {}).values()):
        check_node({**draft.config, "transfer": node}, searched=_searched(draft))


def check_node(config: Mapping[str, Any], searched: Iterable[str] = ()) -> None:
    """Check ``transfer`` of a config, as :func:`check_section` does.

    Args:
        config: Plain.
        searched: Sources that a search chooses among.
    """
    found = resolve(OmegaConf.create(dict(config)), "transfer")
    sources = [each for each in (found["weights"], *searched) if each is not None]
    for each in sources:
        settings({**found, "weights": each}, config["trainer"]["max_epochs"])
    given = [key for key, idle in _IDLE.items() if found[key] != idle]
    if given and not sources:
        raise ConfigError(
            WEIGHTS, f"expected a source, as transfer.{given[0]} is given", f"{WEIGHTS}=study:NAME"
        )


def _searched(draft: Draft) -> list[str]:
    dims = [dim for dim in draft.space.dimensions if dim.name == WEIGHTS]
    return [choice for dim in dims for choice in dim.choices or () if choice is not None]


def representatives(draft: Draft) -> list[dict[str, Any]]:
    """Parameters that pair every source with every choice of what to do with it."""
    dims = [
        dim
        for dim in draft.space.dimensions
        if dim.name.startswith("transfer.") and dim.name != WEIGHTS
    ]
    base = draft.config["transfer"]["weights"]
    found: list[dict[str, Any]] = [{WEIGHTS: each} for each in _searched(draft)]
    for each in dict.fromkeys([*_searched(draft), *([base] if base is not None else [])]):
        found += [{WEIGHTS: each, dim.name: choice} for dim in dims for choice in dim.choices or ()]
    return found


def sources(draft: Draft) -> list[str]:
    """All that a study may transfer from, as typed."""
    nodes = (draft.config["transfer"], *draft.options.get("transfer", {}).values())
    return list(
        dict.fromkeys(
            [*(node["weights"] for node in nodes if node["weights"] is not None), *_searched(draft)]
        )
    )


def find(
    names: Iterable[str],
    *,
    store: Path,
    url: str,
    data: Path,
    kept: Mapping[str, Path] | None = None,
    own: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Say where the weights of each source lie, or under which name torchvision publishes them.

    Args:
        names: The sources.
        store: The store that studies write to.
        url: Of the storage of studies.
        data: The data root; torchvision's files go to its folder ``weights``.
        kept: Files that a study which is resumed has kept.
        own: Name of the study that begins with them.

    Returns:
        For each source ``path``, or ``torchvision`` and ``folder``; and ``from``, what is known of
        the origin.

    Raises:
        ConfigError: A study is not there or not finished, or a file does not exist.
    """
    found: dict[str, dict[str, Any]] = {}
    for each in names:
        kind, name = source(each)
        if kept is not None and each in kept and kept[each].is_file():
            found[each] = {"path": str(kept[each])}
        elif kind == "torchvision":
            found[each] = {"torchvision": name, "folder": str(data / "weights")}
        elif kind == "file":
            path = Path(name).expanduser().resolve()
            if not path.is_file():
                raise ConfigError(WEIGHTS, f"{name} does not exist or is no file")
            found[each] = {"path": str(path)}
        else:
            found[each] = _of_study(name, store, url, own)
    return found


def _of_study(
    word: str,
    store: Path,
    url: str,
    own: str | None,
) -> dict[str, Any]:
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
            WEIGHTS, f"there is no study {name!r}: {location.mask(url)} does not exist"
        )
    from dlsearch.records.record import read_record
    from dlsearch.storage.database import Storage
    from dlsearch.study.kept_model import kept_model
    from dlsearch.study.study import Study

    storage = Storage(url)
    try:
        record = read_record(Study(storage, name)).to_json()
        kept = kept_model(record, store, int(number) if slash else None)
    except ConfigError as error:
        raise ConfigError(WEIGHTS, error.expected, error.hint) from error
    finally:
        storage.close()
    about = kept.about
    return {
        "path": str(kept.checkpoint),
        "from": {"study": about["study"], "trial": about["trial"], "kind": kept.kind},
    }


def settle(
    nodes: Iterable[dict[str, Any]], found: Mapping[str, Any], checked: Mapping[str, Any]
) -> dict[str, Any]:
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
    digests = {each: about["sha256"] for each, about in checked.items()}
    for node in nodes:
        for each, sha in node["sha256"].items():
            if digests.get(each, sha) != sha:
                raise ConfigError(
                    "transfer.sha256",
                    f"{each} has {digests[each][:16]}…, and {sha[:16]}… was asked for",
                )
        node["sha256"] = {**node["sha256"], **digests}
    return {each: {**checked[each], "from": found[each].get("from")} for each in digests}


def lines(transferred: Mapping[str, Any]) -> list[str]:
    """A line for each source: how many tensors were loaded, and the names of the others."""
    found = []
    for each, about in transferred.items():
        origin = about.get("from") or {}
        trial = f", trial {origin['trial']}" if origin.get("trial") is not None else ""
        parts = [f"{len(about['loaded'])} tensors loaded"]
        for key, words in (("new", "begin anew"), ("left_out", "of the source left out")):
            parts.append(
                f"{len(about[key])} {words}" + (f" ({_some(about[key])})" if about[key] else "")
            )
        if about["frozen"]:
            parts.append(f"{len(about['frozen'])} frozen in the first epoch")
        found.append(f"{each}{trial} ({about['sha256'][:12]}): {', '.join(parts)}")
    return found


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")


def kept_files(transfer: Mapping[str, Any] | None, folder: Path) -> dict[str, Path]:
    """Where a config's sources are kept, whether or not they are."""
    known = ((transfer or {}).get("sha256") or {}).items()
    return {each: folder / f"{sha}.ckpt" for each, sha in known if str(sha).isalnum()}


def keep(folder: Path, transferred: Mapping[str, Any], files: Mapping[str, str]) -> None:
    """Copy the weights to where trials look for them.

    Args:
        folder: ``paths.weights``.
        transferred: As :func:`settle` gives it.
        files: Where the weights of each source lie.
    """
    for each, about in transferred.items():
        path = folder / f"{about['sha256']}.ckpt"
        if path.is_file():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".part{process_tag()}")
        shutil.copyfile(files[each], part)
        part.replace(path)
