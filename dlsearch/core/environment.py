"""What configs read from the environment: ``${oc.env:NAME}``.

Every value that a config reads there is a secret, unless its name or the value itself is harmless.
A listener (:func:`on_read`) is called with each, also where the name of the variable is itself
interpolated. A value that is no harmless one may stand where the net, the data and the rest of a
trial are described: there the code needs it, and it is masked wherever it is written. It may not
decide where something is written or sent, or what it is called: such a key can read it only where
the person who typed the command names the variable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from dlsearch.core.errors import ConfigError
from dlsearch.core.secret_names import names_secret

if TYPE_CHECKING:
    from omegaconf import DictConfig

#: A shorter value would be found in words that have nothing to do with it.
LEAST = 6
#: Variables that say where and on what a program runs. An address among them may hold a password:
#: that is masked as the user-info of a URL is.
_HARMLESS = (
    r"HOME|USER|LOGNAME|USERNAME|SHELL|PATH|PWD|OLDPWD|TMPDIR|TEMP|TMP|HOST|HOSTNAME|LANG|LANGUAGE"
    r"|LC_[A-Z]+|TZ|TERM"
    r"|COLUMNS|LINES|VIRTUAL_ENV|CONDA_PREFIX|CONDA_DEFAULT_ENV|SCRATCH|WORK|XDG_[A-Z_]+"
    r"|CUDA_[A-Z_]+|NVIDIA_VISIBLE_DEVICES|(?:ROCR|HIP|GPU)_[A-Z_]+|(?:OMP|MKL|OPENBLAS|KMP"
    r"|NUMEXPR|NCCL|GLOO)_[A-Z_]+"
    r"|(?:SLURM|SLURMD|PBS|LSB|SGE|OMPI|PMI|PMIX)_[A-Z_0-9]+|(?:LOCAL_|GROUP_|NODE_)?RANK"
    r"|(?:LOCAL_)?WORLD_SIZE"
    r"|MASTER_(?:ADDR|PORT)|DLSEARCH_[A-Z_]+|MLFLOW_TRACKING_URI|[A-Z0-9_]+_(?:DIR|ROOT|HOME|PATH"
    r"|FOLDER)"
)
_TRIVIAL = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_LONGEST_NUMBER = 9
_NAMED = re.compile(r"oc\.env:\s*[\"']?([A-Za-z_]\w*)")
#: Described here is what a trial is built from. All other sections are read as they are, and
#: written in clear.
_BUILT = ("callbacks", "data", "model", "optimizer", "scheduler", "task")
#: They are kept in the study's database as they are: every worker builds them from there.
_KEPT = ("sampler", "pruner", "space")

_listeners: list[Callable[[str], None]] = []
_reading: list[set[str]] = []


def on_read(listener: Callable[[str], None]) -> None:
    """Call `listener` from now on with every value that a config reads and that is not harmless."""
    _listeners.append(listener)


def is_harmless(name: str, value: str) -> bool:
    """Whether the value of a variable may be shown.

    Args:
        name: Of the variable.
        value: Its value: a short one, a number of up to nine characters, or a path whose first
            folder exists.
    """
    trivial = (
        len(value) <= _LONGEST_NUMBER and re.fullmatch(_TRIVIAL, value, re.IGNORECASE) is not None
    )
    if len(value) < LEAST:
        return True
    if names_secret(name, number=trivial):
        return False
    return trivial or re.fullmatch(_HARMLESS, name) is not None or _is_path(value)


def _is_path(value: str) -> bool:
    parts = PurePosixPath(value).parts
    if len(parts) < 2 or parts[0] != "/":
        return False
    return os.path.isdir(f"/{parts[1]}")  # noqa: PTH112  # it is asked often


def note_named(texts: Iterable[str]) -> list[str]:
    """Call the listeners for the variables that interpolations in `texts` name.

    Returns:
        The values of these variables that are not harmless.
    """
    found: list[str] = []
    for text in texts:
        for name in _NAMED.findall(text):
            value = os.environ.get(name)
            if value is not None and _note(name, value):
                found.append(value)
    return found


def _note(name: str, value: str) -> bool:
    """Call the listeners for the value of a variable, unless it is harmless.

    Whether they were called.
    """
    if is_harmless(name, value):
        return False
    for reading in _reading:
        reading.add(name)
    for listener in _listeners:
        listener(value)
    return True


def watch() -> None:
    """Let OmegaConf's resolver ``oc.env`` tell what it reads. A second time changes nothing."""
    from omegaconf import OmegaConf
    from omegaconf.resolvers import oc

    def env(key: str, default: Any = _NO_DEFAULT) -> Any:
        if key in os.environ:
            _note(key, os.environ[key])
        return oc.env(key) if default is _NO_DEFAULT else oc.env(key, default)

    OmegaConf.register_new_resolver("oc.env", env, replace=True)


_NO_DEFAULT: Any = object()


@contextmanager
def _names_read() -> Iterator[set[str]]:
    found: set[str] = set()
    _reading.append(found)
    try:
        yield found
    finally:
        _reading.remove(found)


def check_environment(cfg: DictConfig, typed: Iterable[str]) -> None:
    """Refuse a config that would send a value of the environment, or write it in clear.

    Args:
        cfg: As composed, interpolations unresolved.
        typed: The overrides of the command. A variable that they name may be read anywhere.

    Raises:
        ConfigError: A key outside of what a trial is built from reads a variable that is not
            harmless.
    """
    allowed = {name for word in typed for name in _NAMED.findall(word)}
    # Hydra's own keys come last: they repeat some of ours.
    for key, read in sorted(
        _interpolations(cfg, ""), key=lambda item: item[0].startswith("hydra.")
    ):
        section = key.partition(".")[0]
        with _names_read() as names:
            read()
        refused = names if section in _KEPT else names - allowed
        if refused and section not in _BUILT:
            name = sorted(refused)[0]
            hint = f"'{key}=${{oc.env:{name}}}' in the command allows it"
            if section in _KEPT:
                hint = "the study's database would keep it in clear: leave it out"
            raise ConfigError(
                key,
                f"reads the environment variable {name}, which may be a secret",
                hint,
            )


def _interpolations(node: Any, at: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """The keys below a config's node that hold interpolations, each with what resolves it."""
    from omegaconf import OmegaConf

    keys = range(len(node)) if OmegaConf.is_list(node) else list(node)
    for key in keys:
        here = f"{at}[{key}]" if OmegaConf.is_list(node) else f"{at}.{key}" if at else str(key)
        if OmegaConf.is_missing(node, key):
            continue
        if OmegaConf.is_interpolation(node, key):
            yield here, partial(_resolve, node, key)
        elif OmegaConf.is_config(node[key]):
            yield from _interpolations(node[key], here)


def _resolve(node: Any, key: Any) -> None:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    # The reader of a value that cannot be had reports it.
    with suppress(
        OmegaConfBaseException,
        ValueError,
        TypeError,
        RecursionError,
    ):
        value = node[key]
        if OmegaConf.is_config(value):
            OmegaConf.to_container(value, resolve=True)
