"""Every config that Hydra composes is checked before any of it takes effect.

:mod:`dlsearch.config.build` guards what we build. What Hydra builds, sets and writes itself is
checked by :mod:`dlsearch.config.hydra_node`; what comes out of a file that is not ours, by
:mod:`dlsearch.config.foreign`. Here is where both are called, how large a YAML may become, and
where configs are read from.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf, open_dict

from dlsearch.config.declared import Declared, adapt_overrides, note_declared
from dlsearch.config.foreign import Foreign
from dlsearch.config.hydra_node import check_hydra
from dlsearch.core import environment, permission
from dlsearch.core.bounded import check_yaml, read_text
from dlsearch.core.errors import ConfigError
from dlsearch.core.versions import is_compared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: Values that a YAML of a config group may stand for.
MAX_NODES = 100_000


def check_words(words: Sequence[str]) -> None:
    """Check the command line for what takes effect while Hydra composes.

    Raises:
        ConfigError: The search path names a package, which would be imported; or a YAML below
            ``--config-dir`` is larger than a config can be.
    """
    for place, word in enumerate(words):
        name, _, value = word.partition("=")
        if name.lstrip("+") == "hydra.searchpath":
            _check_place(name.lstrip("+"), value)
        if name in ("--config-dir", "-cd"):
            folder = value or (words[place + 1] if place + 1 < len(words) else "")
            if folder:
                check_folder(Path(folder))


def _check_place(key: str, value: str) -> None:
    if re.search(r"\b(?!file:)[A-Za-z][\w+.-]*:(?=//)", value):
        raise ConfigError(
            key,
            f"expected folders, got {value!r}",
            "file:///folder; or --config-dir",
        )


def check_folder(folder: Path) -> None:
    """Check the YAMLs below `folder` by :func:`check_size`."""
    for path in sorted(folder.rglob("*.y*ml")) if folder.is_dir() else []:
        if path.is_file():
            check_size(path)


def check_size(path: Path) -> None:
    """Refuse a YAML that stands for more than a config can be.

    Raises:
        ConfigError: See :func:`dlsearch.core.bounded.check_yaml`.
    """
    try:
        text = read_text(path)
    except OSError:
        return  # Hydra says what is wrong with it, should it be read at all
    check_yaml(text, str(path), MAX_NODES)


@contextmanager
def guarded_composition() -> Iterator[None]:
    """Within it, every config that Hydra composes is checked before Hydra acts on it.

    Hydra has no hook between composing and acting. Both of its ways, a run and a sweep, pass
    through these methods.

    Raises:
        ConfigError: Nobody has compared this version of Hydra: nothing would be checked.
    """
    if not is_compared("hydra"):
        raise ConfigError(
            "hydra",
            "this version of hydra-core is not known to be guarded",
            "hydra-core>=1.3.2,<1.4",
        )

    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.config_repository import ConfigRepository
    from hydra._internal.core_plugins.file_config_source import FileConfigSource

    foreign = Foreign()
    declared: Declared = {}
    environment.watch()
    with (
        _replaced(
            ConfigLoaderImpl,
            "load_configuration",
            partial(_load_configuration, foreign, declared),
        ),
        _replaced(
            ConfigLoaderImpl,
            "_load_single_config",
            partial(_load_single_config, foreign, declared),
        ),
        _replaced(ConfigRepository, "initialize_sources", _initialize_sources),
        _replaced(FileConfigSource, "load_config", _load_file),
    ):
        yield


@contextmanager
def _replaced(owner: type, name: str, by: Callable[..., Any]) -> Iterator[None]:
    """Within the body the method `name` is `by`, which takes the method itself first."""
    plain = getattr(owner, name)

    def method(*args: Any, **kwargs: Any) -> Any:
        return by(plain, *args, **kwargs)

    setattr(owner, name, method)
    try:
        yield
    finally:
        setattr(owner, name, plain)


def _load_configuration(
    foreign: Foreign,
    declared: Declared,
    plain: Callable[..., Any],
    loader: Any,
    *args: Any,
    **kwargs: Any,
) -> Any:
    overrides = kwargs["overrides"] if "overrides" in kwargs else args[1]
    foreign.clear()
    declared.clear()
    try:
        cfg = plain(loader, *args, **kwargs)
    except KeyError as error:  # Hydra copies the variable before anything can be checked
        if re.fullmatch(r"[A-Z][A-Z0-9_]*", str(error.args[0])):
            raise ConfigError(
                "hydra.job.env_copy",
                f"{error.args[0]} is not set",
                "leave it out",
            ) from error
        raise
    adapt_overrides(cfg, overrides, declared)
    foreign.check_expansion(cfg)
    check_hydra(cfg)
    environment.check_environment(cfg, overrides)  # before a line shows a value that it reads
    foreign.check(cfg, overrides)
    _complete(cfg)
    return cfg


def _load_single_config(
    foreign: Foreign,
    declared: Declared,
    plain: Callable[..., Any],
    loader: Any,
    default: Any,
    repo: Any,
) -> Any:
    """Note what a file sets, at the place where it is put, and whether it is ours."""
    found = plain(loader, default, repo)
    content = OmegaConf.to_container(found.config, resolve=False)
    note_declared(declared, content)
    if _is_foreign(found.provider, found.path):
        foreign.add(content, f"{default.config_path}.yaml")
    return found


def _initialize_sources(
    plain: Callable[..., Any],
    repository: Any,
    search_path: Any,
) -> None:
    """Refuse a search path of a config file or an override that would import a package."""
    for each in search_path.get_path():
        if str(each.provider).startswith("hydra.searchpath"):
            _check_place("hydra.searchpath", str(each.path))
    plain(repository, search_path)


def _load_file(plain: Callable[..., Any], source: Any, config_path: str) -> Any:
    """Refuse a file that is too large, or that a defaults list names outside its folder."""
    folder = Path(source.path).resolve()
    name = config_path if config_path.endswith((".yaml", ".yml")) else f"{config_path}.yaml"
    path = (folder / name).resolve()
    if (
        not any(path.is_relative_to(place) for place in (folder, Path.cwd()))
        or ".." in Path(name).parts
    ):
        raise ConfigError(
            config_path,
            f"lies outside {source.path}",
            "--config-dir FOLDER adds a folder",
        )
    if _is_foreign(source.provider, source.path) and path.is_file():
        check_size(path)
    return plain(source, config_path)


def _is_foreign(provider: str, place: str) -> bool:
    """Whether a source of configs is neither ours nor an installed package's."""
    from dlsearch.config.compose import config_dir  # it composes, and so imports this module

    if provider != "main" and not provider.startswith(("command-line", "hydra.searchpath")):
        return False
    scheme, _, path = place.rpartition("://")
    return scheme not in ("", "file") or Path(path).resolve() != config_dir().resolve()


def _complete(cfg: Any) -> None:
    """Add what a project or the user's settings admit to ``allow_targets``, for the record."""
    if "allow_targets" not in cfg:
        return
    named = OmegaConf.to_container(cfg.allow_targets, resolve=True)
    named = [named] if isinstance(named, str) else list(named or [])
    permission.check_packages(named)
    more = [package for package in permission.granted() if package not in named]
    if more:
        with open_dict(cfg):
            cfg.allow_targets = [*named, *more]
