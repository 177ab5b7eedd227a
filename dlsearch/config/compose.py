"""Composing configs outside of the Hydra application, and turning every complaint into one line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from dlsearch.config.guard import check_folder, guarded_composition
from dlsearch.config.official_sweeper import answer_to
from dlsearch.config.register import register
from dlsearch.config.trainer_arguments import refusal_of
from dlsearch.core.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CONFIG_NAME = "config"
#: How Hydra and OmegaConf name a key, the surest way first.
_NAMED_KEYS = (
    r"full_key: (\S+)",
    r"override '?\+*~?([\w./@-]+)",
    r"[Kk]ey '([^']+)'",
    r"'([\w/.]+)'",
    r"key:? (\S+)",
)
#: Config groups lie no deeper: a link may lead back to where it lies.
_DEEPEST_GROUP = 4
#: How lines of theirs begin that do not say what is wrong.
_SAYS_NOTHING = ("full_key", "object_type", "reference_type", "Error merging")


def config_dir() -> Path:
    """The folder of YAMLs: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def explain(error: Exception) -> ConfigError:
    """One line, with the key, for what Hydra and OmegaConf say in several."""
    if isinstance(error, ConfigError):
        return error
    if isinstance(error, MarkedYAMLError):
        return _explain_yaml(error)
    cause = _find_cause(error)
    text = f"{error}\n{cause}" if cause is not error else str(error)
    if isinstance(error, HydraException) and "Could not find" in text:
        missing = _explain_missing_option(text)
        if missing is not None:
            return missing
    key = _find_key(text)
    refusal = refusal_of(key) or answer_to(key)
    if refusal is not None:
        return refusal
    if "not in struct" in text or re.search(r"Key '.*' not in '", text):
        return _explain_unknown_key(key, cause, error)
    hint = "see dlsearch --cfg job" if "not in 'Frame'" in text else ""
    message = _choose_line(text, last=cause is not error)
    return ConfigError(key or "config", message.rstrip("."), hint)


def _explain_yaml(error: MarkedYAMLError) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    where = f"{mark.name}:{mark.line + 1}" if mark is not None else "config"
    return ConfigError(where, error.problem or error.context or "is no YAML")


def _find_cause(error: BaseException) -> BaseException:
    """The error of OmegaConf's that led to `error`, or else the first of all that did."""
    cause = error
    while cause.__cause__ is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__
    return cause


def _find_key(text: str) -> str:
    """The key that a text of Hydra's or OmegaConf's names; empty where it names none."""
    key = ""
    for pattern in _NAMED_KEYS:
        found = re.search(pattern, text)
        if found and found.group(1):
            key = found.group(1).split("=")[0]
            break
    override = re.search(r"override '?([^\s'=]+)", text)
    if override is None:
        return key
    typed = override.group(1).lstrip("+~")
    return typed if "full_key" not in text or typed.startswith(f"{key}.") else key


def _explain_missing_option(text: str) -> ConfigError | None:
    """The error of an option that a config group does not have.

    None where the text names no group.
    """
    missing = re.search(r"Could not find '([^']+)'", text)
    if missing is None:
        return None
    group, _, option = missing.group(1).rpartition("/")
    if not group:
        return None
    files = (config_dir() / group).glob("*.yaml")
    options = sorted(path.stem for path in files)
    if group == "hydra/sweeper":
        hint = "leave it out: dlsearch's own reads hydra.sweeper.params; basic is Hydra's grid"
        return ConfigError(group, f"there is no {group} named {option!r}", hint)
    otherwise = "see dlsearch --help"
    if options:
        otherwise = f"one of {', '.join(options)}"
    hint = did_you_mean(option, options, otherwise)
    return ConfigError(group, f"there is no {group} named {option!r}", hint)


def _is_described(key: str, cause: BaseException) -> bool:
    """Whether a key stands in a section that describes an object of a class."""
    parent: Any = getattr(cause, "parent_node", None)
    return "." in key and OmegaConf.is_dict(parent) and "_target_" in parent


def _explain_unknown_key(key: str, cause: BaseException, error: Exception) -> ConfigError:
    known = _keys_around(cause)
    of_config = [name for name in known if not name.startswith("space.")]
    longer = sorted(name for name in of_config if name.endswith(f".{key}"))
    hint = did_you_mean(key, known, "see dlsearch --cfg job")
    addition = re.search(r"To append to your config use (\+\S+)", str(error))
    if addition and _is_described(key, cause):
        near = did_you_mean(key, known)
        hint = f"{near} or, " if near else ""
        hint += f"where its class takes it: {addition.group(1)}"
    if key.startswith("hydra.sweeper.params"):
        hint = "+hydra.sweeper.params=…, or the keys themselves: optimizer.lr='interval(0.01, 0.1)'"
    if longer:  # lr for optimizer.lr
        hint = f"did you mean {' or '.join(longer[:3])}?"
    return ConfigError(
        key or "config",
        "there is no such key in the config",
        hint,
    )


def _choose_line(text: str, *, last: bool) -> str:
    """The first or the last line of a text that says what is wrong."""
    stripped = (line.strip() for line in text.splitlines())
    lines = [line for line in stripped if line]
    telling = [line for line in lines if not line.startswith(_SAYS_NOTHING)]
    telling = telling or lines
    return telling[-1] if last else telling[0]


def key_paths(node: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Every key of a config, ``optimizer`` and ``optimizer.lr`` alike."""
    found: list[str] = []
    for key, value in node.items():
        path = f"{prefix}{key}"
        found.append(path)
        if isinstance(value, Mapping):
            found += key_paths(value, f"{path}.")
    return found


def _keys_around(error: BaseException) -> list[str]:
    """The keys of the config in which one was not found; Hydra's own are no part of a study."""
    parent = getattr(error, "parent_node", None)
    if parent is None:
        return []
    # OmegaConf has no public name for it; without it there is no hint
    root = getattr(parent, "_get_root", None)
    if root is None:
        return []
    known: Any = OmegaConf.to_container(root(), resolve=False)
    return [key for key in key_paths(known) if key.partition(".")[0] != "hydra"]


@contextmanager
def _initialized_hydra() -> Iterator[None]:
    register()
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(
            version_base="1.3",
            config_dir=str(config_dir()),
            job_name="dlsearch",
        ):
            yield
    finally:
        GlobalHydra.instance().clear()
        if before is not None:
            GlobalHydra.instance().initialize(before)


def _list_search_path(config_dirs: Sequence[str]) -> list[str]:
    """The override that has Hydra search the user's folders."""
    places = ",".join(f"'file://{Path(d).resolve()}'" for d in config_dirs)
    return [f"hydra.searchpath=[{places}]"] if config_dirs else []


def hydra_groups(config_dirs: Sequence[str] = ()) -> set[str]:
    """The config groups that there are."""
    with _initialized_hydra():
        groups = groups_of(GlobalHydra.instance().config_loader())
    for folder in map(Path, config_dirs):
        groups |= _groups_below(folder)
    return groups


def groups_of(loader: Any) -> set[str]:
    """The config groups that a loader of Hydra's finds, those within others included."""
    found = set(loader.list_groups(""))
    for source in loader.get_sources():
        if source.scheme() == "file":
            found |= _groups_below(Path(source.path))
    return found


def _groups_below(folder: Path, parent: str = "") -> set[str]:
    """The config groups of a folder: each folder in it, and those in these."""
    found: set[str] = set()
    if not folder.is_dir() or parent.count("/") >= _DEEPEST_GROUP:
        return found
    for path in folder.iterdir():
        if not path.is_dir() or path.name.startswith("."):
            continue
        group = f"{parent}/{path.name}" if parent else path.name
        found.add(group)
        found |= _groups_below(path, group)
    return found


def compose_config(
    overrides: Sequence[str] = (),
    *,
    config_dirs: Sequence[str] = (),
    with_hydra: bool = False,
) -> DictConfig:
    """Compose the config as ``dlsearch <overrides>`` would.

    Args:
        overrides: Hydra overrides without sweeps.
        config_dirs: The user's own config folders, searched after ours.
        with_hydra: Keep Hydra's own node.

    Raises:
        ConfigError: Anything is wrong with an override.
    """
    for folder in config_dirs:
        if not Path(folder).is_dir():
            raise ConfigError("--config-dir", f"{folder} is not a folder")
        check_folder(Path(folder))
    try:
        with _initialized_hydra(), guarded_composition():
            return compose(
                config_name=CONFIG_NAME,
                overrides=[*_list_search_path(config_dirs), *overrides],
                return_hydra_config=with_hydra,
            )
    except (HydraException, OmegaConfBaseException, MarkedYAMLError, ValueError) as error:
        raise explain(error) from error


def resolve(cfg: Any, key: str) -> Any:
    """The value of `key` with its interpolations resolved, as plain Python.

    Raises:
        ConfigError: It is missing or its interpolation leads nowhere.
    """
    try:
        value = OmegaConf.select(cfg, key, throw_on_missing=True)
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    except OmegaConfBaseException as error:
        where = getattr(error, "full_key", None) or key
        raise ConfigError(str(where), str(error).splitlines()[0]) from error


_UNITS = {
    "": 1.0,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}


def seconds(text: str | None, key: str) -> float | None:
    """A duration such as ``90s``, ``1h30m`` or ``2.5h`` in seconds.

    Raises:
        ConfigError: It is no duration, or not positive.
    """
    if text is None:
        return None
    stripped = text.strip()
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd]?)", stripped)
    recognised = "".join(number + unit for number, unit in parts)
    if not parts or recognised != stripped:
        raise ConfigError(
            key,
            f"expected a duration, got {text!r}",
            "90s, 30m, 2h",
        )
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if total <= 0:
        raise ConfigError(key, f"expected more than 0 seconds, got {text!r}")
    return total
