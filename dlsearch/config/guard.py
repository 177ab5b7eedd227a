"""What a config may ask of Hydra itself, and how large a YAML may become: checked before any of it takes effect.

:mod:`dlsearch.config.build` guards what we build. Hydra builds its callbacks, its launcher and its sweeper itself,
hands two nodes to :mod:`logging.config`, sets environment variables, and imports the packages of its search path: all
of it can come out of a YAML that somebody else wrote. What is not needed here is refused.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from omegaconf import OmegaConf

from dlsearch.config.build import ALLOWED
from dlsearch.config.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: A YAML of a user's may stand for so many nodes, have so many bytes, and be so deep.
MAX_NODES, MAX_BYTES, MAX_DEPTH = 100_000, 4_000_000, 100
#: Where Hydra's own plugins, and those that are installed for it, are defined.
_PLUGINS = ("hydra_plugins.", "hydra._internal.core_plugins.")
#: Environment variables that make a program, or one that it starts, run other code.
_ENVIRONMENT = re.compile(
    r"(LD_|DYLD_|PYTHON|HYDRA_|DLSEARCH_|BASH_ENV$|ENV$|PATH$|IFS$|SHELL$|GIT_|TORCH_|PAGER$|EDITOR$)"
)


def check_words(words: Sequence[str]) -> None:
    """Check the command line for what takes effect while Hydra composes.

    Raises:
        ConfigError: The search path names a package, which would be imported; or a YAML below ``--config-dir`` is
            larger than a config can be.
    """
    for place, word in enumerate(words):
        name, _, value = word.partition("=")
        if name.lstrip("+") == "hydra.searchpath" and re.search(r"\b(?!file:)[A-Za-z][\w+.-]*:(?=//)", value):
            raise ConfigError("hydra.searchpath", f"expected folders, got {value!r}", "file:///folder; or --config-dir")
        if name in ("--config-dir", "-cd"):
            folder = value or (words[place + 1] if place + 1 < len(words) else "")
            if folder:
                check_folder(Path(folder))


def check_folder(folder: Path) -> None:
    """Check the YAMLs below `folder` by :func:`check_size`."""
    for path in sorted(folder.rglob("*.y*ml")) if folder.is_dir() else []:
        if path.is_file():
            check_size(path)


def check_size(path: Path) -> None:
    """Refuse a YAML whose aliases would expand to more than `MAX_NODES` nodes; reads it without expanding any.

    Raises:
        ConfigError: It is too large.
    """
    too_large = ConfigError(str(path), f"stands for more than {MAX_NODES:,} values", "a config has no such size")
    if path.stat().st_size > MAX_BYTES:
        raise too_large
    anchors: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []  # anchor and count of what is inside
    try:
        for event in yaml.parse(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader):
            if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
                open_nodes.append((event.anchor, 1))
                if len(open_nodes) > MAX_DEPTH:
                    raise ConfigError(str(path), f"is deeper than {MAX_DEPTH} levels", "a config has no such depth")
                continue
            if isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
                anchor, size = open_nodes.pop()
            elif isinstance(event, yaml.AliasEvent):
                if any(anchor == event.anchor for anchor, _ in open_nodes):
                    raise ConfigError(str(path), f"*{event.anchor} contains itself")
                anchor, size = None, anchors.get(event.anchor or "", 1)
            elif isinstance(event, yaml.ScalarEvent):
                anchor, size = event.anchor, 1
            else:
                continue
            if anchor is not None:
                anchors[anchor] = size
            if size > MAX_NODES:
                raise too_large
            if open_nodes:
                outer, inside = open_nodes[-1]
                open_nodes[-1] = (outer, inside + size)
    except (yaml.YAMLError, UnicodeDecodeError):
        return  # Hydra says what is wrong with it, should it be read at all


def check_hydra(node: Any, allow_targets: Sequence[str] = ()) -> None:
    """Check Hydra's own node of a composed config.

    Args:
        node: ``cfg.hydra``.
        allow_targets: The user's packages.

    Raises:
        ConfigError: It would run something that no config may.
    """
    plain: Mapping[str, Any] = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node  # type: ignore[assignment]
    for name in ("launcher", "sweeper"):
        target = (plain.get(name) or {}).get("_target_")
        if target is not None and not str(target).startswith(_PLUGINS):
            raise ConfigError(f"hydra.{name}._target_", f"{target!r} is no plugin", f"hydra/{name}=…, see --help")
        for key, inner in _below({k: v for k, v in (plain.get(name) or {}).items() if k != "_target_"}):
            if key.endswith("_target_") and not str(inner).startswith(tuple(f"{p}." for p in ALLOWED)):
                raise ConfigError(f"hydra.{name}.{key}", f"{inner!r} is outside the allow-list")
    for name, callback in (plain.get("callbacks") or {}).items():
        for key, target in _below(callback or {}):
            if key.endswith("_target_") and not str(target).startswith(tuple(f"{p}." for p in allow_targets)):
                hint = "allow_targets=[yourpackage] admits a package of yours"
                raise ConfigError(f"hydra.callbacks.{name}.{key}", f"{target!r} is outside the allow-list", hint)
    for name in ("hydra_logging", "job_logging"):
        for key, value in _below(plain.get(name) or {}):
            last = key.rsplit(".", 1)[-1]
            made = last == "()" or (last in ("class", "factory") and not str(value).startswith("logging."))
            if made or (isinstance(value, str) and value.startswith(("ext://", "cfg://")) and "sys.std" not in value):
                raise ConfigError(f"hydra.{name}.{key}", f"{value!r} may not be built", "classes of logging alone")
    for name in (plain.get("job") or {}).get("env_set") or {}:
        if _ENVIRONMENT.match(str(name).upper()):
            raise ConfigError(f"hydra.job.env_set.{name}", "a config may not set it", "set it in the shell")


def _below(node: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    for key, value in items:
        here = f"{at}.{key}" if at else str(key)
        yield here, value
        yield from _below(value, here)


@contextmanager
def guarded_composition() -> Iterator[None]:
    """Within it, every config that Hydra composes passes :func:`check_hydra` before Hydra acts on it.

    Hydra has no hook between composing and acting. Both of its ways, a run and a sweep, pass through this method.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    plain = ConfigLoaderImpl.load_configuration

    def load(self: ConfigLoaderImpl, *args: Any, **kwargs: Any) -> Any:
        cfg = plain(self, *args, **kwargs)
        check_hydra(cfg.hydra, _packages(cfg))
        return cfg

    ConfigLoaderImpl.load_configuration = load  # type: ignore[method-assign]
    try:
        yield
    finally:
        ConfigLoaderImpl.load_configuration = plain  # type: ignore[method-assign]


def _packages(cfg: Any) -> list[str]:
    from dlsearch.config.build import check_allow_targets

    named = OmegaConf.to_container(cfg.allow_targets, resolve=True) if "allow_targets" in cfg else []
    packages = [named] if isinstance(named, str) else list(named or [])
    check_allow_targets(packages)
    return packages
