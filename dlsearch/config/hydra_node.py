"""What a config may ask of Hydra: one decision for each key of Hydra's node.

Hydra builds its callbacks, its launcher and its sweeper, hands two nodes to :mod:`logging.config`,
sets environment variables, and makes folders. What is listed here is all that may be asked of it;
what a *file* may ask beside that is decided in :mod:`dlsearch.config.foreign`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dlsearch.config import official_sweeper
from dlsearch.config.build import locate
from dlsearch.config.resolved import Resolved, interpolates
from dlsearch.core import permission
from dlsearch.core.errors import ConfigError, did_you_mean

#: Every key of Hydra's node. A plugin adds none: it has its group.
KEYS = (
    "callbacks",
    "defaults",
    "env",
    "help",
    "hydra_help",
    "hydra_logging",
    "job",
    "job_logging",
    "launcher",
    "mode",
    "output_subdir",
    "overrides",
    "run",
    "runtime",
    "searchpath",
    "sweep",
    "sweeper",
    "verbose",
)
#: Where Hydra's own plugins, and those that are installed for it, are defined.
PLUGINS = ("hydra_plugins.", "hydra._internal.core_plugins.")
_OUR_SWEEPER = "hydra_plugins.dlsearch_plugins.DlsearchSweeper"
#: What a sweeper is built from, beside itself.
_SWEEPER_PARTS = ("optuna.samplers.", "optuna.pruners.")
#: What ``hydra.sweeper.params`` may not set: it belongs to the study.
_NOT_PARAMS = ("allow_targets", "hydra", "name", "paths", "study", "test", "tracking", "worker")

# -- environment variables
_NUMBER = r"\d{1,9}"
_NUMBERS = rf"{_NUMBER}(,{_NUMBER})*"
_FLAG = r"(?i:0|1|true|false|yes|no|on|off)"
_WORD = r"[A-Za-z][\w-]{0,31}"
_WORDS = r"\^?[\w-]{1,32}(,\^?[\w-]{1,32})*"
_INTERFACES = r"[=^]{0,2}[\w.:-]{1,32}(,[\w.:-]{1,32})*"
_DEVICES = r"|-1|NoDevFiles|[\w-]{1,64}(,[\w-]{1,64})*"
_OPTIONS = r"[a-zA-Z_]+:[\w.\[\]:>-]+(,[a-zA-Z_]+:[\w.\[\]:>-]+)*"
#: The environment variables that a config may set, each with what it may be. None of them names a
#: file, a program, a library or an address. Whatever else a run needs is set in the shell, where
#: its owner sees it.
ENVIRONMENT: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "BLIS_NUM_THREADS",
            "CUDA_DEVICE_MAX_CONNECTIONS",
            "KMP_BLOCKTIME",
            "MKL_NUM_THREADS",
            "NCCL_BUFFSIZE",
            "NCCL_CROSS_NIC",
            "NCCL_IB_GID_INDEX",
            "NCCL_IB_RETRY_CNT",
            "NCCL_IB_TIMEOUT",
            "NCCL_MAX_NCHANNELS",
            "NCCL_MIN_NCHANNELS",
            "NCCL_NTHREADS",
            "NUMBA_NUM_THREADS",
            "NUMEXPR_MAX_THREADS",
            "NUMEXPR_NUM_THREADS",
            "OMP_MAX_ACTIVE_LEVELS",
            "OMP_THREAD_LIMIT",
            "OPENBLAS_NUM_THREADS",
            "VECLIB_MAXIMUM_THREADS",
        ),
        _NUMBER,
    ),
    **dict.fromkeys(
        (
            "CUDA_LAUNCH_BLOCKING",
            "MKL_DYNAMIC",
            "NCCL_CUMEM_ENABLE",
            "NCCL_IB_DISABLE",
            "NCCL_NVLS_ENABLE",
            "NCCL_P2P_DISABLE",
            "NCCL_SHM_DISABLE",
            "NVIDIA_TF32_OVERRIDE",
            "OMP_DYNAMIC",
            "TOKENIZERS_PARALLELISM",
            "TORCH_NCCL_ASYNC_ERROR_HANDLING",
            "TORCH_NCCL_BLOCKING_WAIT",
        ),
        _FLAG,
    ),
    **dict.fromkeys(
        ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"), _DEVICES
    ),
    **dict.fromkeys(("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"), _OPTIONS),
    **dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_IB_HCA", "NCCL_SOCKET_IFNAME"), _INTERFACES),
    **dict.fromkeys(("NCCL_ALGO", "NCCL_DEBUG_SUBSYS", "NCCL_PROTO"), _WORDS),
    **dict.fromkeys(("NCCL_NET_GDR_LEVEL", "NCCL_P2P_LEVEL"), rf"{_NUMBER}|{_WORD}"),
    "CUBLAS_WORKSPACE_CONFIG": r"(:\d{1,6}:\d{1,6})+",
    "CUDA_DEVICE_ORDER": r"FASTEST_FIRST|PCI_BUS_ID",
    "CUDA_MODULE_LOADING": r"LAZY|EAGER|DEFAULT",
    "GOMP_CPU_AFFINITY": r"[\d, :-]{1,64}",
    "KMP_AFFINITY": r"[\w=,]{1,64}",
    "LANG": r"\w[\w.@-]{0,31}",
    "LC_ALL": r"\w[\w.@-]{0,31}",
    "NCCL_DEBUG": _WORD,
    "OMP_NUM_THREADS": _NUMBERS,
    "OMP_PLACES": r"[\w{}:,()-]{1,64}",
    "OMP_PROC_BIND": _WORDS,
    "OMP_SCHEDULE": rf"{_WORD}(,{_NUMBER})?",
    "OMP_STACKSIZE": rf"{_NUMBER}[BKMGbkmg]?",
    "OMP_WAIT_POLICY": _WORD,
    "PYTHONHASHSEED": r"random|\d{1,10}",
    "TZ": r"[\w+-]{1,32}(/[\w+-]{1,32}){0,2}",
}

# -- logging
_HANDLERS = ("logging.StreamHandler", "logging.NullHandler")
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
#: Fields that may be one of these alone.
_CHOICES: Mapping[str, Sequence[str]] = {
    "class": _HANDLERS,
    "stream": _STREAMS,
    "style": ("%", "$"),
}
#: The one file of Hydra's own job_logging=default: in the run's folder, under the job's name.
_FILE = {
    "class": "logging.FileHandler",
    "filename": "${hydra.runtime.output_dir}/${hydra.job.name}.log",
}
_LOGGING_HINT = (
    "logging.StreamHandler to ext://sys.stdout or ext://sys.stderr alone, "
    "or hydra/job_logging=stdout"
)
_FIELDS = {
    "formatters": ("format", "datefmt", "style", "validate"),
    "handlers": ("class", "formatter", "level", "stream"),
    "loggers": ("level", "handlers", "propagate"),
    "root": ("level", "handlers"),
}


def check_hydra(cfg: Any) -> None:
    """Check Hydra's own node of a composed config.

    Args:
        cfg: The whole config; its interpolations may lead out of Hydra's node.

    Raises:
        ConfigError: It asks for something that no config may.
    """
    config = Resolved(cfg)
    node = config.raw.get("hydra") or {}
    if not isinstance(node, Mapping):
        raise ConfigError("hydra", f"expected a mapping, got {node!r}")
    for key in node:
        if key not in KEYS:
            raise ConfigError(
                f"hydra.{key}",
                "Hydra has no such key",
                did_you_mean(str(key), KEYS),
            )
    _check_job(config.section("job"))
    _check_launcher(_as_built(config, "launcher"))
    _check_sweeper(_as_built(config, "sweeper"))
    _check_callbacks(_as_built(config, "callbacks"))
    for name in ("hydra_logging", "job_logging"):
        _check_logging(config, name, node.get(name))


# -- the job
def _check_job(job: Mapping[str, Any]) -> None:
    name = job.get("name")
    if name not in (None, "???") and not re.fullmatch(r"\w[^/\\\x00-\x1f\x7f]{0,199}", str(name)):
        raise ConfigError(
            "hydra.job.name",
            f"expected a name, got {str(name)[:60]!r}",
            "hydra.job.name=dlsearch",
        )
    for variable in job.get("env_copy") or []:
        check_variable("hydra.job.env_copy", str(variable))
    for variable, value in (job.get("env_set") or {}).items():
        key = f"hydra.job.env_set.{variable}"
        check_variable(key, str(variable))
        if not re.fullmatch(ENVIRONMENT[variable], str(value), re.ASCII):
            raise ConfigError(
                key,
                f"may not be {str(value)[:60]!r}",
                f"export {variable}=… in the shell",
            )


def check_variable(key: str, name: str) -> None:
    """Check that a config may set the environment variable `name`.

    Args:
        key: Where the config does.
        name: The variable's.

    Raises:
        ConfigError: It may not: the variable may name a file, a program, a library or an address.
    """
    if name not in ENVIRONMENT:
        raise ConfigError(
            key,
            f"a config may not set {name[:60]!r}",
            f"export {name[:60]}=… in the shell",
        )


# -- what Hydra builds
def _check_launcher(node: Mapping[str, Any]) -> None:
    for key, target in _find_targets(node):
        if key != "_target_" or not target.startswith(PLUGINS):
            raise ConfigError(
                f"hydra.launcher.{key}",
                f"{target!r} is no plugin",
                "hydra/launcher=…, see --help",
            )


def _check_sweeper(node: Mapping[str, Any]) -> None:
    for key, target in _find_targets(node):
        if key == "_target_":
            is_plugin = target.startswith(PLUGINS)
        else:
            is_private = "._" in target or "__" in target
            is_plugin = target.startswith(_SWEEPER_PARTS) and not is_private
        if not is_plugin:
            raise ConfigError(
                f"hydra.sweeper.{key}",
                f"{target!r} is no plugin",
                "hydra/sweeper=…, see --help",
            )
        if key != "_target_":
            locate(target, f"hydra.sweeper.{key.rpartition('.')[0]}")
    if str(node.get("_target_")) == _OUR_SWEEPER:
        official_sweeper.check_keys(map(str, node))
    for part in ("params", "search_space"):
        for name in node.get(part) or {}:
            _check_searched(f"hydra.sweeper.{part}.{name}", str(name))


def _check_searched(key: str, name: str) -> None:
    """Refuse a search over what belongs to the study."""
    first = re.split(r"[./@]", name.lstrip("+~"))[0]
    if first in _NOT_PARAMS:
        hint = f"type {name}=… instead"
        raise ConfigError(
            key,
            "belongs to the study and cannot be searched",
            hint,
        )


def _check_callbacks(node: Mapping[str, Any]) -> None:
    admitted = tuple(f"{package}." for package in permission.granted())
    for key, target in _find_targets(node):
        if not target.startswith(admitted):
            hint = permission.hint(target.split(".")[0])
            raise ConfigError(
                f"hydra.callbacks.{key}",
                f"{target!r} is outside the allow-list",
                hint,
            )
        locate(target, f"hydra.callbacks.{key.rpartition('.')[0]}")


def _as_built(config: Resolved, name: str) -> Mapping[str, Any]:
    """A node that Hydra instantiates, as it will be.

    Hydra resolves it twice, and builds what that brings as well.

    Raises:
        ConfigError: An interpolation is left, which nobody can have checked.
    """
    plain = config.section(name)
    for key, value in below(plain):
        if interpolates(value):
            raise ConfigError(
                f"hydra.{name}.{key}",
                f"{value!r} still holds an interpolation once all are resolved",
            )
    return plain


def _find_targets(node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in below(node):
        if key.rpartition(".")[2] == "_target_":
            yield key, str(value)


# -- logging
def _check_logging(config: Resolved, name: str, node: Any) -> None:
    if node in (None, "???"):
        return
    plain = config.value(_without_hydras_file(node), ("hydra", name))
    if not isinstance(plain, Mapping):
        raise ConfigError(
            f"hydra.{name}",
            f"expected a mapping, got {plain!r}",
            _LOGGING_HINT,
        )
    for key, value in plain.items():
        where = f"hydra.{name}.{key}"
        if key == "root":
            _check_fields(where, value, _FIELDS["root"])
        elif key in _FIELDS and isinstance(value or {}, Mapping):
            for inner, fields in (value or {}).items():
                _check_fields(f"{where}.{inner}", fields, _FIELDS[key])
        elif key not in ("version", "disable_existing_loggers", "incremental"):
            raise ConfigError(where, "is not needed here", _LOGGING_HINT)


def _without_hydras_file(node: Any) -> Any:
    """A node of logging less the handlers that write to the one file of Hydra's own config."""
    handlers = node.get("handlers") if isinstance(node, Mapping) else None
    if not isinstance(handlers, Mapping):
        return node
    others = {name: each for name, each in handlers.items() if not _is_hydras_file(each)}
    return {**node, "handlers": others}


def _is_hydras_file(handler: Any) -> bool:
    if not isinstance(handler, Mapping):
        return False
    given = {name: each for name, each in handler.items() if name not in ("formatter", "level")}
    return given == _FILE


def _check_fields(where: str, node: Any, known: Sequence[str]) -> None:
    if node is None:
        return
    if not isinstance(node, Mapping):
        raise ConfigError(
            where,
            f"expected a mapping, got {node!r}",
            _LOGGING_HINT,
        )
    for key, value in node.items():
        if key not in known:
            raise _may_not_be_built(f"{where}.{key}", value)
        if interpolates(value):
            raise ConfigError(
                f"{where}.{key}", f"{value!r} still holds an interpolation once all are resolved"
            )
        _check_field(f"{where}.{key}", str(key), value)


def _check_field(where: str, key: str, value: Any) -> None:
    if isinstance(value, Mapping) or (isinstance(value, list) and key != "handlers"):
        raise _may_not_be_built(where, value)
    if key in _CHOICES:
        if value not in _CHOICES[key]:
            raise _may_not_be_built(where, value)
    else:
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and text.startswith(("ext://", "cfg://")):
                raise _may_not_be_built(where, text)
    if key in ("format", "datefmt") and re.search(r"\d{4}", str(value)):
        raise ConfigError(
            where,
            "fills a line with more than 999 characters",
            "a smaller width",
        )


def _may_not_be_built(where: str, value: Any) -> ConfigError:
    return ConfigError(where, f"{value!r} may not be built", _LOGGING_HINT)


def below(node: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Every key below a plain node with its value; those of lists by their number."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(node, Mapping):
        items = node.items()
    elif isinstance(node, (list, tuple)):
        items = enumerate(node)
    for key, value in items:
        here = f"{at}.{key}" if at else str(key)
        yield here, value
        yield from below(value, here)
