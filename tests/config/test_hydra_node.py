"""One decision for each key of Hydra's node: what a config may ask of Hydra, whoever wrote it."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from dlsearch.config.compose import compose_config
from dlsearch.config.hydra_node import ENVIRONMENT, KEYS, check_hydra
from dlsearch.core.errors import ConfigError

#: Variables that name a file, a program, a library, a module or an address, or that make another
#: program do something.
DANGEROUS = [
    "CXX", "CC", "HOME", "PATH", "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "DYLD_INSERT_LIBRARIES", "IFS", "ENV",
    "BASH_ENV", "SHELL", "PAGER", "EDITOR", "VISUAL", "BROWSER", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME",
    "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONBREAKPOINT", "PYTHONWARNINGS", "PYTHONINSPECT",
    "GIT_DIR", "GIT_SSH_COMMAND", "GIT_CONFIG_COUNT", "GIT_EXTERNAL_DIFF", "GIT_PAGER", "SSH_ASKPASS", "SSL_CERT_FILE",
    "HTTP_PROXY", "https_proxy", "ALL_PROXY", "no_proxy", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    "TORCH_HOME", "TORCH_EXTENSIONS_DIR", "TORCHINDUCTOR_CACHE_DIR",
    "TORCH_LOGS_OUT", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE",
    "TRITON_CACHE_DIR", "TRITON_PTXAS_PATH", "CUDA_HOME", "CUDA_PATH", "CUDA_INJECTION64_PATH",
    "NVIDIA_VISIBLE_DEVICES",
    "MPLCONFIGDIR", "MPLBACKEND", "NUMBA_CACHE_DIR", "OMP_TOOL_LIBRARIES", "OMP_TARGET_OFFLOAD", "KMP_CPUINFO_FILE",
    "NCCL_DEBUG_FILE", "NCCL_NET", "NCCL_NET_PLUGIN", "NCCL_TUNER_PLUGIN", "NCCL_PROFILER_PLUGIN", "NCCL_TOPO_FILE",
    "NCCL_TOPO_DUMP_FILE", "NCCL_GRAPH_FILE", "NCCL_GRAPH_DUMP_FILE", "NCCL_CONF_FILE", "NCCL_COMM_ID",
    "MASTER_ADDR", "MASTER_PORT", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN", "RAY_ADDRESS", "HF_ENDPOINT",
    "HF_HOME", "TRUST_REMOTE_CODE", "OPTUNA_STORAGE", "DLSEARCH_STORE", "DLSEARCH_DEBUG", "HYDRA_MAIN_MODULE",
    "HYDRA_INSTANTIATE_ALLOWLIST_OVERRIDE", "HYDRA_FULL_ERROR", "SLURM_CONF", "LOCPATH", "TZDIR", "TERMINFO",
    "omp_num_threads", "OMP_NUM_THREADS ", "", "A=B",
]  # fmt: skip
HARMLESS = {
    "OMP_NUM_THREADS": ["1", "4,2", "16"],
    "MKL_NUM_THREADS": ["1"],
    "CUDA_VISIBLE_DEVICES": [
        "",
        "0",
        "0,1,3",
        "-1",
        "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6",
        "MIG-1-0",
    ],
    "CUDA_DEVICE_ORDER": ["PCI_BUS_ID"],
    "CUDA_LAUNCH_BLOCKING": ["1"],
    "CUBLAS_WORKSPACE_CONFIG": [":4096:8", ":16:8", ":4096:2:16:8"],
    "PYTORCH_CUDA_ALLOC_CONF": [
        "expandable_segments:True",
        "max_split_size_mb:128,garbage_collection_threshold:0.8",
    ],
    "NCCL_DEBUG": ["INFO", "WARN"],
    "NCCL_SOCKET_IFNAME": ["eth0", "^lo,docker0", "=eth1"],
    "NCCL_P2P_DISABLE": ["1"],
    "NCCL_P2P_LEVEL": ["NVL", "3"],
    "TOKENIZERS_PARALLELISM": ["false"],
    "TZ": ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+3", "CET-1CEST"],
    "LC_ALL": ["C.UTF-8", "de_DE.UTF-8"],
    "OMP_PROC_BIND": ["close", "spread,close"],
    "OMP_PLACES": ["cores", "{0:4}:4:4"],
    "GOMP_CPU_AFFINITY": ["0-3 7"],
    "KMP_AFFINITY": ["granularity=fine,compact,1,0"],
    "PYTHONHASHSEED": ["0", "random"],
}
#: Of variables that may be set: what they may not be.
VALUES = [
    ("OMP_NUM_THREADS", "many"),
    ("OMP_NUM_THREADS", "1\nLD_PRELOAD=x"),
    ("OMP_NUM_THREADS", "1 "),
    ("MKL_NUM_THREADS", "1e999999"),
    ("CUDA_VISIBLE_DEVICES", "/dev/null"),
    ("CUDA_VISIBLE_DEVICES", "$(touch canary)"),
    ("CUBLAS_WORKSPACE_CONFIG", ":4096:8;x"),
    ("PYTORCH_CUDA_ALLOC_CONF", "backend:/evil.so"),
    ("NCCL_DEBUG", "../x"),
    ("NCCL_SOCKET_IFNAME", "a/b"),
    ("TZ", ":/etc/passwd"),
    ("TZ", "/etc/passwd"),
    ("TZ", "../../etc/passwd"),
    ("LC_ALL", "../../evil"),
    ("LANG", "a b"),
    ("TOKENIZERS_PARALLELISM", "maybe"),
    ("OMP_NUM_THREADS", "${oc.env:PATH}"),
]


def check(**hydra: Any) -> None:
    check_hydra(OmegaConf.create({"hydra": hydra, "paths": {"store": "./mlruns"}}))


@pytest.mark.parametrize("name", DANGEROUS)
def test_a_variable_may_not_be_set(name: str) -> None:
    for job in ({"env_set": {name: "x"}}, {"env_set": {name: ""}}, {"env_copy": [name]}):
        with pytest.raises(ConfigError, match=r"^hydra\.job\.env_") as refused:
            check(job=job)
        assert "export" in refused.value.hint


def test_a_variable_may_be_set() -> None:
    for name, values in HARMLESS.items():
        check(job={"env_copy": [name]})
        for value in values:
            check(job={"env_set": {name: value}})


@pytest.mark.parametrize(("name", "value"), VALUES)
def test_but_not_to_everything(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"^hydra\.job\.env_set\.{name}"):
        check(job={"env_set": {name: value}})


def test_no_value_that_is_admitted_is_a_path_or_a_command() -> None:
    import re

    for name, pattern in ENVIRONMENT.items():
        for value in (
            "/etc/passwd",
            "../x",
            "./x",
            "~/x",
            "x.so/",
            "a;b",
            "$(x)",
            "`x`",
            "a\nb",
            "http://evil",
            "a" * 300,
        ):
            assert not re.fullmatch(pattern, value, re.ASCII), (name, value)


def test_what_is_typed_counts_as_well() -> None:
    with pytest.raises(ConfigError, match=r"^hydra\.job\.env_set\.CXX"):
        compose_config(["+hydra.job.env_set.CXX=./evil"])
    with pytest.raises(ConfigError, match=r"^hydra\.job\.env_copy"):
        compose_config(["hydra.job.env_copy=[HOME]"])
    with pytest.raises(ConfigError, match=r"^hydra\.job\.env_copy.*is not set"):
        compose_config(["hydra.job.env_copy=[NOBODY_SETS_THIS]"])
    compose_config(["+hydra.job.env_set.OMP_NUM_THREADS=2"])


def test_every_key_of_hydras_has_a_decision() -> None:
    from hydra.conf import HydraConf

    assert set(HydraConf.__dataclass_fields__) | {"env"} == set(KEYS)
    with pytest.raises(ConfigError, match=r"^hydra\.on_start: Hydra has no such key"):
        check(on_start="touch canary")


@pytest.mark.parametrize(
    "name", ["a/b", "../x", ".bashrc", "", "x\ny", "a" * 300, "${hydra.help.header}"]
)
def test_a_jobs_name_is_a_name(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^hydra\.job\.name"):
        check(job={"name": name}, help={"header": "/x"})


# -- logging -----------------------------------------------------------------------------------------------------------
STREAM = {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}
LOGGING: list[dict[str, Any]] = [
    {"handlers": {"x": {"class": name, "filename": "/elsewhere/x.py", "mode": "w", "formatter": "f"}}}
    for name in (
        "logging.FileHandler", "logging.handlers.RotatingFileHandler", "logging.handlers.TimedRotatingFileHandler",
        "logging.handlers.WatchedFileHandler", "logging.handlers.SMTPHandler", "logging.handlers.SocketHandler",
        "logging.handlers.DatagramHandler", "logging.handlers.HTTPHandler", "logging.handlers.SysLogHandler",
        "logging.handlers.NTEventLogHandler", "logging.handlers.QueueHandler", "logging.handlers.MemoryHandler",
        "logging.Handler", "logging._StderrHandler", "logging.config.os.system", "rich.logging.RichHandler",
    )
]  # fmt: skip
LOGGING += [
    {"handlers": {"x": {**STREAM, "stream": "ext://os.environ"}}},
    {"handlers": {"x": {**STREAM, "stream": "ext://sys.stdin"}}},
    {"handlers": {"x": {**STREAM, "stream": "cfg://formatters.x"}}},
    {"handlers": {"x": {**STREAM, "stream": "/elsewhere"}}},
    {"handlers": {"x": {**STREAM, "filters": ["f"]}}},
    {"handlers": {"x": {**STREAM, "level": "ext://evil.level"}}},
    {"handlers": {"x": {**STREAM, ".": {"terminator": "x"}}}},
    {"handlers": {"x": {"()": "logging.FileHandler", "filename": "x"}}},
    {"handlers": {"x": {"()": "ext://os.system"}}},
    {"handlers": {"x": {"class": "logging.FileHandler", "filename": "${hydra.runtime.output_dir}/x.log"}}},
    {"handlers": {"x": {"class": "logging.FileHandler", "mode": "w",
                        "filename": "${hydra.runtime.output_dir}/${hydra.job.name}.log"}}},
    {"handlers": {"x": "logging.FileHandler"}},
    {"handlers": {"x": {"class": "${oc.decode:logging.FileHandler}"}}},
    {"handlers": {"x": "${oc.create:{class: logging.FileHandler, filename: x}}"}},
    {"handlers": "${oc.create:{x: {class: logging.FileHandler, filename: x}}}"},
    {"handlers": {"x": {**STREAM, "level": r"\${oc.env:HOME}"}}},
    {"formatters": {"f": {"class": "evil.Formatter"}}},
    {"formatters": {"f": {"()": "evil.formatter"}}},
    {"formatters": {"f": {"()": "colorlog.ColoredFormatter"}}},
    {"formatters": {"f": {"factory": "evil.formatter"}}},
    {"formatters": {"f": {"format": "ext://evil.x"}}},
    {"formatters": {"f": {"format": "{message.__class__}", "style": "{"}}},
    {"formatters": {"f": {"format": "%(message)999999999s"}}},
    {"formatters": {"f": {"defaults": {"x": "ext://os.system"}}}},
    {"filters": {"f": {"()": "evil.filter"}}},
    {"filters": {"f": {"name": "x"}}},
    {"loggers": {"x": {"class": "evil.Logger"}}},
    {"loggers": {"x": {"level": "INFO", "filters": ["f"]}}},
    {"loggers": {"x": {"handlers": ["cfg://handlers.x"]}}},
    {"root": {"level": "INFO", "class": "evil.Logger"}},
    {"queues": {"q": {"()": "evil.queue"}}},
    {"evil": "x"},
]  # fmt: skip


@pytest.mark.parametrize("node", LOGGING, ids=lambda node: str(node)[:70])
def test_a_log_goes_to_a_stream_alone(node: dict[str, Any]) -> None:
    for name in ("job_logging", "hydra_logging"):
        with pytest.raises(ConfigError, match=rf"^hydra\.{name}"):
            check(**{name: {"version": 1, "root": {"level": "INFO"}, **node}})


def test_levels_and_formats_are_free() -> None:
    for name in ("job_logging", "hydra_logging"):
        check(**{
            name: {
                "version": 1,
                "formatters": {"f": {"format": "[%(asctime)s][%(name)-20s] %(message)s", "datefmt": "%H:%M"}},
                "handlers": {
                    "a": {**STREAM, "formatter": "f", "level": "DEBUG"},
                    "b": {"class": "logging.NullHandler"},
                },
                "root": {"level": "INFO", "handlers": ["a", "b"]},
                "loggers": {"theirs": {"level": 10, "propagate": False, "handlers": ["a"]}},
                "disable_existing_loggers": False,
            }
        })  # fmt: skip


@pytest.mark.parametrize("option", ["default", "stdout", "disabled", "none"])
def test_hydras_own_job_logging_may_be_chosen(option: str) -> None:
    compose_config([f"hydra/job_logging={option}"])


def test_hydras_debug_log_may_not() -> None:
    with pytest.raises(ConfigError, match=r"hydra/job_logging=stdout"):
        compose_config(["hydra/hydra_logging=hydra_debug"])


# -- what Hydra builds -------------------------------------------------------------------------------------------------
BASIC = {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}
SWEEPER = {"_target_": "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"}
CALL = "{_target_: os.mkdir, path: canary}"
BUILT: list[tuple[str, Any]] = [
    ("launcher", {"_target_": "os.system"}),
    ("launcher", {"_target_": "${oc.decode:'os.system'}"}),
    ("launcher", {**BASIC, "x": {"_target_": "torch.nn.Linear"}}),
    ("launcher", {**BASIC, "x": f"${{oc.create:{CALL}}}"}),
    ("launcher", {**BASIC, "x": [f"${{oc.create:{CALL}}}"]}),
    ("launcher", {**BASIC, "x": rf"\${{oc.create:{CALL}}}"}),
    ("launcher", f"${{oc.create:{CALL}}}"),
    ("launcher", [CALL]),
    ("sweeper", {"_target_": "optuna.samplers.TPESampler"}),
    ("sweeper", {**SWEEPER, "sampler": {"_target_": "torch.nn.Linear"}}),
    ("sweeper", {**SWEEPER, "sampler": {"_target_": "optuna.samplers._tpe.sampler.TPESampler"}}),
    ("sweeper", {**SWEEPER, "sampler": {"_target_": "optuna.storages.RDBStorage", "url": "x"}}),
    ("sweeper", {**SWEEPER, "sampler": f"${{oc.create:{CALL}}}"}),
    ("sweeper", {**SWEEPER, "sampler": rf"\${{oc.create:{CALL}}}"}),
    ("sweeper", {**SWEEPER, "params": {"hydra.job.env_set": "{CXX: x}"}}),
    ("sweeper", {**SWEEPER, "params": {"++study.storage": "x"}}),
    ("sweeper", {**SWEEPER, "search_space": {"paths.data": "x"}}),
    ("callbacks", {"x": {"_target_": "os.system"}}),
    ("callbacks", {"x": f"${{oc.create:{CALL}}}"}),
    ("callbacks", {"x": {"y": [rf"\${{oc.create:{CALL}}}"]}}),
    ("callbacks", f"${{oc.create:{{x: {CALL}}}}}"),
]


@pytest.mark.parametrize(("section", "node"), BUILT, ids=lambda v: str(v)[:60])
def test_hydra_builds_nothing_else(section: str, node: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^hydra\.{section}"):
        check(**{section: node})


def test_the_launchers_and_sweepers_that_are_installed_may_be_chosen() -> None:
    for launcher in (
        "local",
        "basic",
        "joblib",
        "ray",
        "slurm",
        "submitit_local",
        "submitit_slurm",
    ):
        compose_config([f"hydra/launcher={launcher}"])
    for sweeper in ("dlsearch", "basic"):
        compose_config([f"hydra/sweeper={sweeper}"])
