"""Experiment YAMLs, config groups and enqueue files."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from tests.security.foreign.audit import RAN, TOKEN
from tests.security.foreign.box import Box
from tests.security.foreign.inputs.base import (
    CONF,
    MKDIR,
    SHELL,
    SMALL,
    SYMPIFY,
    Input,
    plan,
    product,
    run,
    search,
)

ESCAPED = r"\${oc.create:{_target_: os.mkdir, path: ../outside/ran}}"
ESCAPED_TEXT = r'\${oc.create:{_target_: sympy.sympify, a: "' + RAN + '"}}'
LAMBDA = "pytorch_lightning.callbacks.LambdaCallback"


def experiment(node: str | dict[str, Any]) -> Callable[[Box], None]:
    """Makes ``experiment=evil``."""

    def make(box: Box) -> None:
        box.write_module()
        box.config("experiment", node)

    return make


def group(name: str, node: str | dict[str, Any]) -> Callable[[Box], None]:
    """Makes ``NAME=evil``."""

    def make(box: Box) -> None:
        box.write_module()
        box.config(name, node)

    return make


def _mlp(**more: Any) -> dict[str, Any]:
    return {
        "_target_": "dlsearch.systems.basic.models.mlp.MLP",
        "in_shape": "${data.shape}",
        "num_classes": "${data.num_classes}",
        "width": 8,
        "depth": 1,
        **more,
    }


# -- 1: resolved once ------------------------------------------------------------------------------------------------
_TWICE: dict[str, dict[str, Any]] = {
    "in a callback": {"callbacks": {"x": {"_target_": LAMBDA, "on_fit_start": ESCAPED_TEXT}}},
    "in a callback's other hook": {"callbacks": {"x": {"_target_": LAMBDA, "setup": ESCAPED}}},
    "in a list": {"model": {"_target_": "torch.nn.Sequential", "_args_": [ESCAPED]}},
    "in a dictionary": {
        "callbacks": {"x": {"_target_": LAMBDA, "on_fit_start": {"a": [{"b": ESCAPED}]}}}
    },
    "in the middle of a text": {
        "callbacks": {"x": {"_target_": LAMBDA, "on_fit_start": f"a {ESCAPED} b"}}
    },
    "as a target": {"callbacks": {"x": {"_target_": r"\${oc.decode:os.getcwd}"}}},
    "in the optimizer": {
        "optimizer": {"_target_": "torch.optim.SGD", "_partial_": True, "lr": ESCAPED}
    },
    "in the scheduler": {
        "scheduler": {"_target_": "dlsearch.systems.shared.schedules.Cosine", "final": ESCAPED}
    },
    "in the data": {"data": {"train_size": ESCAPED}},
    "in the augmentation": {
        "data": {
            "augment": {"_target_": "dlsearch.systems.vision.data.augment.Augment", "crop": ESCAPED}
        }
    },
    "in the task": {"task": {"label_smoothing": ESCAPED_TEXT}},
    "through another key": {
        "name": ESCAPED,
        "callbacks": {"x": {"_target_": LAMBDA, "on_fit_start": "${name}"}},
    },
    "decoded": {
        "callbacks": {
            "x": {
                "_target_": LAMBDA,
                "setup": '${oc.decode:"' + ESCAPED.replace("\\", "\\\\") + '"}',
            }
        }
    },
    "created at once": {
        "callbacks": {"x": {"_target_": LAMBDA, "setup": ESCAPED.removeprefix("\\")}}
    },
    "a target created at once": {"model": ESCAPED_TEXT.removeprefix("\\")},
}
_TWICE_IN_GROUPS = {
    "model": {**_mlp(), "activation": ESCAPED},
    "optimizer": {
        "_target_": "torch.optim.SGD",
        "_partial_": True,
        "lr": 0.1,
        "momentum": ESCAPED_TEXT,
    },
    "callbacks": {"x": {"_target_": LAMBDA, "on_fit_start": ESCAPED_TEXT}},
    "sampler": {"_target_": "optuna.samplers.TPESampler", "gamma": ESCAPED_TEXT},
    "pruner": {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": ESCAPED},
}

once = product(
    (
        Input(
            f"escaped once {where}", 1, "experiment YAML", run("experiment=evil"), experiment(node)
        )
        for where, node in _TWICE.items()
    ),
    (
        Input(
            f"escaped once in a search {where}",
            1,
            "experiment YAML",
            search("experiment=evil"),
            experiment(node),
        )
        for where, node in list(_TWICE.items())[:5]
    ),
    (
        Input(
            f"escaped once in {name}", 1, "config group", search(f"{name}=evil"), group(name, node)
        )
        for name, node in _TWICE_IN_GROUPS.items()
    ),
    (
        Input(
            f"escaped once in the model of {verb}",
            1,
            "config group",
            (verb, *CONF, "model=evil"),
            group("model", _TWICE_IN_GROUPS["model"]),
        )
        for verb in ("describe", "lr-range")
    ),
)

# -- 2: targets are admitted by the person ---------------------------------------------------------------------------
_NET = {"_target_": "foreign_module.Net", "in_features": 64, "out_features": 10}
_ADMITTED: dict[str, dict[str, Any]] = {
    "a module beside it": {"allow_targets": ["foreign_module"], "model": _NET},
    "a package beside it": {
        "allow_targets": ["foreign_package"],
        "model": {**_NET, "_target_": "foreign_package.Net"},
    },
    "as one word": {"allow_targets": "foreign_module", "model": _NET},
    "through an interpolation": {
        "name": "foreign_module",
        "allow_targets": ["${name}"],
        "model": _NET,
    },
    "sympy": {"allow_targets": ["sympy"], "callbacks": {"x": SYMPIFY}},
    "pathlib": {
        "allow_targets": ["pathlib"],
        "callbacks": {"x": {"_target_": "pathlib.Path.touch", "_args_": ["../outside/ran"]}},
    },
    "pty": {
        "allow_targets": ["pty"],
        "callbacks": {"x": {"_target_": "pty.spawn", "_args_": [["touch", "../outside/ran"]]}},
    },
    "joblib": {
        "allow_targets": ["joblib"],
        "callbacks": {"x": {"_target_": "joblib.load", "filename": "foreign/evil.pkl"}},
    },
    "pandas": {
        "allow_targets": ["pandas"],
        "callbacks": {"x": {"_target_": "pandas.read_pickle", "_args_": ["foreign/evil.pkl"]}},
    },
    "a test tool": {
        "allow_targets": ["_pytest", "pytest"],
        "callbacks": {"x": {"_target_": "pytest.main", "_args_": [["--version"]]}},
    },
    "an installer": {
        "allow_targets": ["pip"],
        "callbacks": {"x": {"_target_": "pip.main", "_args_": [["list"]]}},
    },
    "the standard library": {"allow_targets": ["os"], "callbacks": {"x": MKDIR}},
    "a module of dlsearch": {
        "allow_targets": ["dlsearch.cli.main"],
        "callbacks": {"x": {"_target_": "dlsearch.cli.main", "_args_": [[]]}},
    },
}
_SPACES = {
    "a function beside it": {
        "space": {"_function_": "foreign_module.space"},
        "allow_targets": ["foreign_module"],
    },
    "a function beside it, not admitted": {"space": {"_function_": "foreign_module.space"}},
    "a function in a package beside it": {
        "space": {"_function_": "foreign_package.space"},
        "allow_targets": ["foreign_package"],
    },
    "a function of the system": {"space": {"_function_": "os.getcwd"}},
}


def _space(node: dict[str, Any]) -> str:
    """Defaults that take the lines of the usual space away."""
    import yaml

    return "# @package _global_\ndefaults: [{override /space: none}]\n" + yaml.safe_dump(node)


admitted = product(
    (
        Input(
            f"a YAML admits {what}", 2, "experiment YAML", run("experiment=evil"), experiment(node)
        )
        for what, node in _ADMITTED.items()
    ),
    (
        Input(
            f"a YAML admits, in a search, {what}",
            2,
            "experiment YAML",
            search("experiment=evil"),
            experiment(node),
        )
        for what, node in list(_ADMITTED.items())[:3]
    ),
    (
        Input(
            f"a space that is {what}",
            2,
            "experiment YAML",
            plan("experiment=evil"),
            experiment(_space(node)),
        )
        for what, node in _SPACES.items()
    ),
    (
        Input(
            f"a space, in a search, that is {what}",
            2,
            "experiment YAML",
            search("experiment=evil"),
            experiment(_space(node)),
        )
        for what, node in list(_SPACES.items())[:2]
    ),
    [
        Input(
            "a model of a module beside it, for plan",
            2,
            "experiment YAML",
            plan("experiment=evil"),
            experiment(_ADMITTED["a module beside it"]),
        ),
        Input(
            "a model of a module beside it, for describe",
            2,
            "config group",
            ("describe", *CONF, "model=evil"),
            group(
                "model",
                "# @package _global_\nallow_targets: [foreign_module]\nmodel: {_target_: foreign_module.Net, "
                "in_features: 64, out_features: 10}\n",
            ),
        ),
        Input(
            "a model of a module beside it, for lr-range",
            2,
            "config group",
            ("lr-range", *CONF, "model=evil"),
            group(
                "model",
                "# @package _global_\nallow_targets: [foreign_module]\nmodel: {_target_: foreign_module.Net, "
                "in_features: 64, out_features: 10}\n",
            ),
        ),
        Input(
            "a model of a module beside it, admitted by nobody, for a search",
            2,
            "experiment YAML",
            search("experiment=evil"),
            experiment({"model": _NET}),
        ),
        Input(
            "a sampler of a module beside it, admitted by nobody, for a search",
            2,
            "experiment YAML",
            search("experiment=evil"),
            experiment({"sampler": {"_target_": "foreign_module.Net"}}),
        ),
        Input(
            "the person admits one module, the YAML another",
            2,
            "experiment YAML",
            run("experiment=evil", "allow_targets=[mine]"),
            experiment({"model": _NET}),
        ),
        Input(
            "what an admitted module has imported",
            2,
            "experiment YAML",
            run("experiment=evil", "allow_targets=[mine]"),
            lambda box: (
                box.write("mine.py", "import os\n"),
                box.config(
                    "experiment", {"callbacks": {"x": {**MKDIR, "_target_": "mine.os.mkdir"}}}
                ),
            ),
            own=("mine",),
        ),
        Input(
            "what an admitted module has renamed",
            2,
            "experiment YAML",
            run("experiment=evil", "allow_targets=[mine]"),
            lambda box: (
                box.write("mine.py", "from os import mkdir as Net\n"),
                box.config("experiment", {"callbacks": {"x": {**MKDIR, "_target_": "mine.Net"}}}),
            ),
            own=("mine",),
        ),
        Input(
            "a callback of Hydra's beside it",
            2,
            "experiment YAML",
            run("experiment=evil"),
            experiment(
                {
                    "allow_targets": ["foreign_module"],
                    "hydra": {"callbacks": {"x": {"_target_": "foreign_module.Net"}}},
                }
            ),
        ),
        Input(
            "a search path that is a package beside it",
            2,
            "experiment YAML",
            run("experiment=evil"),
            experiment({"hydra": {"searchpath": ["pkg://foreign_package"]}}),
        ),
        Input(
            "its own pyproject in the folder that was received",
            2,
            "experiment YAML",
            run("experiment=evil"),
            lambda box: (
                box.write_module(),
                box.config("experiment", {"model": _NET}),
                box.write(
                    "conf/pyproject.toml", "[tool.dlsearch]\nallow_targets = ['foreign_module']\n"
                ),
                box.write(
                    "foreign/pyproject.toml",
                    "[tool.dlsearch]\nallow_targets = ['foreign_module']\n",
                ),
            ),
        ),
    ],
)

# -- 3: a target is public and of a known base -----------------------------------------------------------------------
_GADGETS: list[tuple[str, Any]] = [
    ("torchvision.models._api.WeightsEnum.get_state_dict", {"_args_": ["file:foreign/evil.pkl"]}),
    ("torch.nn.attention._fa4.register_flash_attention_fa4", {"module_path": "foreign_module"}),
    ("torch.nn.modules.module.Module.load_state_dict", {"_args_": [{}]}),
    ("torchvision.models.get_model", {"name": "resnet18", "weights": "DEFAULT"}),
    ("torchvision.models.resnet18", {"weights": "DEFAULT"}),
    ("torchvision.models.detection.ssdlite320_mobilenet_v3_large", {}),
    ("torchvision.models.get_weight", {"name": "ResNet18_Weights.DEFAULT"}),
    ("torchvision.models.list_models", {}),
    ("torchvision.models.feature_extraction.create_feature_extractor", {"_args_": ["x"]}),
    ("torch.nn.utils.parametrize.register_parametrization", {"_args_": ["x"]}),
    ("torch.optim.swa_utils.update_bn", {"_args_": [[], "x"]}),
    ("torch.nn.parallel.data_parallel.data_parallel", {"_args_": ["x"]}),
    ("torch.nn.init.trunc_normal_", {"_args_": ["x"]}),
    ("torchmetrics.functional.text.bert_score", {"preds": ["a"], "target": ["b"]}),
    ("torchmetrics.utilities.checks.check_forward_full_state_property", {"metric_class": "x"}),
    ("pytorch_lightning.callbacks.Callback.__init_subclass__", {}),
    ("optuna.samplers._base._process_constraints_after_trial", {}),
    ("optuna.samplers.BaseSampler.__subclasses__", {}),
    ("dlsearch.systems.shared.loader.torch.load", {"_args_": ["foreign/evil.pkl"]}),
    ("dlsearch.training.callbacks.importlib.import_module", {"_args_": ["foreign_module"]}),
    (
        "dlsearch.systems.shared.kfac.torch.hub.load",
        {"_args_": ["foreign", "x"], "source": "local"},
    ),
]


def _pickled(node: dict[str, Any], name: str = "callbacks") -> Callable[[Box], None]:
    def make(box: Box) -> None:
        from tests.security.foreign.inputs.payloads import pickled

        box.write("foreign/evil.pkl", pickled())
        box.write("foreign/hubconf.py", f"{RAN}\ndef x():\n    pass\n")
        experiment({name: {"x": node}} if name == "callbacks" else {name: node})(box)

    return make


gadgets = product(
    (
        Input(
            f"{target}",
            3,
            "experiment YAML",
            run("experiment=evil"),
            _pickled({"_target_": target, **arguments}),
        )
        for target, arguments in _GADGETS
    ),
    (
        Input(
            f"{target} as a model",
            3,
            "experiment YAML",
            search("experiment=evil"),
            _pickled({"_target_": target, **arguments}, "model"),
        )
        for target, arguments in _GADGETS[:4]
    ),
    [
        Input(
            "a gadget inside an argument of describe",
            3,
            "config group",
            ("describe", *CONF, "model=evil"),
            group(
                "model",
                {
                    "_target_": "torch.nn.Sequential",
                    "_args_": [
                        {
                            "_target_": "torchvision.models._api.WeightsEnum.get_state_dict",
                            "_args_": ["file:foreign/evil.pkl"],
                        }
                    ],
                },
            ),
        ),
        Input(
            "a sampler that is a function",
            3,
            "config group",
            search("sampler=evil"),
            group("sampler", {"_target_": "optuna.samplers.nsgaii.vars", "x": 1}),
        ),
        Input(
            "a pruner that is a net",
            3,
            "config group",
            search("pruner=evil"),
            group("pruner", {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1}),
        ),
        Input(
            "a callback that writes a checkpoint outside",
            8,
            "experiment YAML",
            run("experiment=evil", *SMALL[:2]),
            experiment(
                {
                    "callbacks": {
                        "x": {
                            "_target_": "pytorch_lightning.callbacks.ModelCheckpoint",
                            "dirpath": "../outside/folder",
                            "save_last": True,
                        }
                    }
                }
            ),
        ),
        Input(
            "a callback that writes a checkpoint outside, absolutely",
            8,
            "experiment YAML",
            run("experiment=evil", *SMALL[:2]),
            lambda box: experiment(
                {
                    "callbacks": {
                        "x": {
                            "_target_": "pytorch_lightning.callbacks.ModelCheckpoint",
                            "dirpath": str(box.home),
                        }
                    }
                }
            )(box),
        ),
    ],
)

# -- 7: the environment ----------------------------------------------------------------------------------------------
_VARIABLES = {
    "CXX": f"sh -c '{SHELL}'",
    "CC": f"sh -c '{SHELL}'",
    "HOME": f"/proc/{TOKEN}",
    "LD_PRELOAD": f"/proc/{TOKEN}.so",
    "PYTHONPATH": f"/proc/{TOKEN}",
    "XDG_CONFIG_HOME": f"/proc/{TOKEN}",
    "MPLCONFIGDIR": f"/proc/{TOKEN}",
    "TORCHINDUCTOR_CACHE_DIR": f"/proc/{TOKEN}",
    "TRITON_CACHE_DIR": f"/proc/{TOKEN}",
    "MLFLOW_TRACKING_URI": f"http://{TOKEN}",
    "HTTPS_PROXY": f"http://{TOKEN}",
    "OPENBLAS": TOKEN,
    "TMPDIR": f"/proc/{TOKEN}",
    "GIT_SSH_COMMAND": SHELL,
    "CUDA_HOME": f"/proc/{TOKEN}",
    "NIX_LD": TOKEN,
    "GCONV_PATH": f"/proc/{TOKEN}",
    "MALLOC_CONF": TOKEN,
}


def _env(name: str, value: str) -> dict[str, Any]:
    return {"hydra": {"job": {"env_set": {name: value}}}}


environment = product(
    (
        Input(
            f"a YAML sets {name}",
            7,
            "experiment YAML",
            run("experiment=evil", *SMALL[:2]),
            experiment(_env(name, value)),
        )
        for name, value in _VARIABLES.items()
    ),
    (
        Input(
            f"a YAML sets {name} for a search",
            7,
            "experiment YAML",
            search("experiment=evil"),
            experiment(_env(name, value)),
        )
        for name, value in list(_VARIABLES.items())[:3]
    ),
    (
        Input(
            f"a YAML copies the environment into {name}",
            7,
            "config group",
            run("debug=evil", *SMALL[:2]),
            group("debug", {"hydra": {"job": {"env_set": {name: "${oc.env:HOME}"}}}}),
        )
        for name in ("CXX", "BROWSER")
    ),
)

# -- 9: log handlers and Hydra's folders -----------------------------------------------------------------------------
_FILE = {"class": "logging.FileHandler", "filename": "../outside/ran", "mode": "w"}
_HANDLERS: dict[str, dict[str, Any]] = {
    "a file": _FILE,
    "a file in the home": {**_FILE, "filename": "../home/.bashrc"},
    "a file in the store": {**_FILE, "filename": "mlruns/x.py"},
    "a rotating file": {
        "class": "logging.handlers.RotatingFileHandler",
        "filename": "../outside/ran",
        "maxBytes": 1,
    },
    "a timed file": {
        "class": "logging.handlers.TimedRotatingFileHandler",
        "filename": "../outside/ran",
    },
    "a watched file": {
        "class": "logging.handlers.WatchedFileHandler",
        "filename": "../outside/victim.txt",
    },
    "mail": {
        "class": "logging.handlers.SMTPHandler",
        "mailhost": "127.0.0.1",
        "fromaddr": "a",
        "toaddrs": ["b"],
        "subject": "c",
    },
    "a socket": {"class": "logging.handlers.SocketHandler", "host": "127.0.0.1", "port": 9},
    "a web server": {"class": "logging.handlers.HTTPHandler", "host": "127.0.0.1:9", "url": "/"},
    "the system's log": {"class": "logging.handlers.SysLogHandler", "address": "/dev/log"},
    "a factory": {"()": "os.mkdir", "path": "../outside/ran"},
    "a class beside it": {"class": "foreign_module.Net"},
    "a stream from a module": {
        "class": "logging.StreamHandler",
        "stream": "ext://foreign_module.Net",
    },
    "a stream from the standard library": {
        "class": "logging.StreamHandler",
        "stream": "ext://os.sys.stdout",
    },
}


def _logging(node: dict[str, Any], name: str = "job_logging") -> dict[str, Any]:
    return {
        "hydra": {
            name: {
                "version": 1,
                "disable_existing_loggers": False,
                "root": {"level": "INFO", "handlers": ["x"]},
                **node,
            }
        }
    }


_FORMATTERS = {
    "a formatter's class": {"formatters": {"f": {"class": "foreign_module.Net", "format": RAN}}},
    "a formatter's factory": {"formatters": {"f": {"()": "foreign_module.space"}}},
    "a filter's factory": {"filters": {"f": {"()": "os.mkdir", "path": "../outside/ran"}}},
}
_STREAM = {"x": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr"}}
_FOLDERS: dict[str, dict[str, Any]] = {
    "run.dir with output_subdir": {"run": {"dir": "../outside"}, "output_subdir": "ran"},
    "run.dir in the home": {"run": {"dir": "../home"}, "output_subdir": ".ssh"},
    "output_subdir upwards": {"output_subdir": "../outside/ran"},
    "output_subdir absolutely": {"output_subdir": "/proc/ran"},
    "job.chdir": {"run": {"dir": "../outside"}, "job": {"chdir": True}, "output_subdir": None},
    "run.dir through an interpolation": {"run": {"dir": "${oc.env:HOME}"}, "output_subdir": "ran"},
}
_SWEEPS: dict[str, dict[str, Any]] = {
    "sweep.dir": {"sweep": {"dir": "../outside", "subdir": "ran"}, "output_subdir": "ran"},
    "sweep.subdir": {"sweep": {"subdir": "../../outside/ran"}, "output_subdir": "x"},
}

logs = product(
    (
        Input(
            f"a log handler that is {what}",
            9,
            "experiment YAML",
            run("experiment=evil", *SMALL[:2]),
            experiment(_logging({"handlers": {"x": node}})),
        )
        for what, node in _HANDLERS.items()
    ),
    (
        Input(
            f"a log handler of Hydra's that is {what}",
            9,
            "experiment YAML",
            search("experiment=evil"),
            experiment(_logging({"handlers": {"x": node}}, "hydra_logging")),
        )
        for what, node in list(_HANDLERS.items())[:3]
    ),
    (
        Input(
            f"{what}",
            9,
            "experiment YAML",
            run("experiment=evil", *SMALL[:2]),
            experiment(_logging({"handlers": _STREAM, **node})),
        )
        for what, node in _FORMATTERS.items()
    ),
    (
        Input(
            f"hydra.{what}",
            9,
            "experiment YAML",
            run("experiment=evil", *SMALL[:2]),
            experiment({"hydra": node}),
        )
        for what, node in _FOLDERS.items()
    ),
    (
        Input(
            f"hydra.{what} of a search",
            9,
            "experiment YAML",
            search("experiment=evil"),
            experiment({"hydra": node}),
        )
        for what, node in _SWEEPS.items()
    ),
)

# -- 11: masking -----------------------------------------------------------------------------------------------------
#: Names that no list of patterns knows, each with a value that must not be seen.
_SECRETS = (
    "OPENAI_KEY",
    "GITHUB_PAT",
    "AWS_ACCESS_KEY_ID",
    "DATABASE_DSN",
    "MY_PWD",
    "SLACK_WEBHOOK_URL",
    "SESSION_COOKIE",
    "BEARER",
)
VALUE = "zq7-Xw81+kk/PPq2"


def _unseen(box: Box, outcome: Any) -> None:
    """The value stands nowhere, as it is or encoded, neither in what was said nor in what was written."""
    import base64
    import urllib.parse

    forms = [
        VALUE,
        base64.b64encode(VALUE.encode()).decode().rstrip("="),
        urllib.parse.quote(VALUE, safe=""),
    ]
    told = outcome.out + outcome.err
    for path in box.store.rglob("*"):
        if path.is_file() and path.suffix != ".ckpt":  # which holds what a callback calls itself
            told += path.read_bytes().decode("latin-1")
    assert not [form for form in forms if form in told]


def _secret(name: str, key: str) -> dict[str, Any]:
    node: Any = f"${{oc.env:{name}}}"
    for part in reversed(key.split(".")):
        node = {part: node}
    return node


_PLACES = (
    "seed",
    "study.name",
    "model._target_",
    "study.objective",
    "data.batch_size",
    "pruner._target_",
    "task.loss",
    "callbacks.x._target_",
)
masking = product(
    (
        Input(
            f"{name} of the environment as {key}",
            11,
            "experiment YAML",
            search("experiment=evil") if index % 2 else run("experiment=evil"),
            experiment(_secret(name, key)),
            check=_unseen,
            environment=((name, VALUE),),
        )
        for index, (name, key) in enumerate(zip(_SECRETS, _PLACES, strict=True))
    ),
    (
        Input(
            f"{name} of the environment in a run that succeeds",
            11,
            "experiment YAML",
            run("experiment=evil", *SMALL[:2]),
            experiment(
                {
                    "callbacks": {
                        "x": {
                            "_target_": "pytorch_lightning.callbacks.EarlyStopping",
                            "monitor": f"${{oc.env:{name}}}",
                            "strict": False,
                        }
                    }
                }
            ),
            harmless=True,
            check=_unseen,
            environment=((name, VALUE),),
        )
        for name in ("OPENAI_KEY", "DATABASE_DSN")
    ),
)

# -- 12: bombs and terminals -----------------------------------------------------------------------------------------
ALIASES = "a: &a [1,2,3,4,5,6,7,8,9]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in pairwise("abcdefghi")
)
DEEP = "x: " + "[" * 3000 + "]" * 3000 + "\n"
ESCAPE = "\x1b]0;owned\x07\x1b[2J"
_ENQUEUED = {
    "aliases": ALIASES + "z: [*i]\n",
    "aliases in a list": "- &a {optimizer.lr: 0.1}\n- &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
    + "".join(f"- &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in pairwise("bcdefghijk")),
    "depth": "- " + "[" * 5000 + "]" * 5000,
    "a Python object": f"- !!python/object/apply:os.system ['{SHELL}']",
    "a Python name": "- {optimizer.lr: !!python/name:os.system }",
    "a list that contains itself": "- &a [*a]\n",
    "merged keys": "- &a {optimizer.lr: 0.1}\n- {<<: [" + ",".join(["*a"] * 20_000) + "]}\n- 1\n",
    "an interpolation": r"- {optimizer.lr: '\${oc.create:{_target_: os.mkdir, path: ../outside/ran}}'}",
    "millions of sets": "[" + "{optimizer.lr: 0.1}," * 400_000 + "]",
    "an unknown name": "- {os.system: 1}",
}
_YAMLS = {
    "aliases": ALIASES,
    "depth": DEEP,
    "itself": "x: &x [*x]\n",
    "five megabytes": "x: [" + "1," * 2_500_000 + "1]\n",
    "a key of a megabyte": f"? {'k' * 1_100_000}\n: 1\n",
    "interpolations of interpolations": "x0: "
    + "y" * 100
    + "\n"
    + "".join(f"x{i + 1}: " + f"${{x{i}}}" * 10 + "\n" for i in range(9))
    + "name: ${x9}\n",
}


def _enqueue(text: str, suffix: str = "yaml") -> Callable[[Box], None]:
    return lambda box: box.write(f"foreign/sets.{suffix}", text)


bombs = product(
    (
        Input(
            f"enqueue: {what}",
            12,
            "enqueue file",
            plan("study.enqueue=foreign/sets.yaml"),
            lambda box, text=text: (box.config("experiment", "{}"), _enqueue(text)(box)),
        )
        for what, text in _ENQUEUED.items()
    ),
    (
        Input(
            f"enqueue, in a search: {what}",
            12,
            "enqueue file",
            search("study.enqueue=foreign/sets.yaml"),
            lambda box, text=text: (box.config("experiment", "{}"), _enqueue(text)(box)),
        )
        for what, text in list(_ENQUEUED.items())[:4]
    ),
    [
        Input(
            "enqueue: depth in JSON",
            12,
            "enqueue file",
            plan("study.enqueue=foreign/sets.json"),
            lambda box: (
                box.config("experiment", "{}"),
                _enqueue("[" * 100_000 + "]" * 100_000, "json")(box),
            ),
        ),
        Input(
            "enqueue: escape codes in a name",
            12,
            "enqueue file",
            plan("study.enqueue=foreign/sets.yaml"),
            lambda box: (
                box.config("experiment", "{}"),
                _enqueue('- {"\\e]0;owned\\a\\e[2J": 1}\n')(box),
            ),
        ),
    ],
    (
        Input(
            f"a YAML: {what}",
            12,
            "experiment YAML",
            plan("experiment=evil"),
            lambda box, text=text: box.config("experiment", "# @package _global_\n" + text),
        )
        for what, text in _YAMLS.items()
    ),
    (
        Input(
            f"a group's YAML: {what}",
            12,
            "config group",
            ("describe", *CONF, "model=evil"),
            lambda box, text=text: box.config("model", text),
        )
        for what, text in list(_YAMLS.items())[:4]
    ),
    [
        Input(
            "escape codes in a target",
            12,
            "experiment YAML",
            run("experiment=evil"),
            experiment({"model": {"_target_": f"torch.nn.{ESCAPE}Linear"}}),
        ),
        Input(
            "escape codes in a key",
            12,
            "experiment YAML",
            plan("experiment=evil"),
            experiment({f"a{ESCAPE}b": 1}),
        ),
        Input(
            "escape codes in a study's name",
            12,
            "experiment YAML",
            plan("experiment=evil"),
            experiment({"study": {"name": f"x{ESCAPE}"}}),
        ),
        Input(
            "a rerun of Hydra's",
            12,
            "experiment YAML",
            ("--experimental-rerun", "foreign/config.pickle"),
            lambda box: box.write(
                "foreign/config.pickle",
                __import__(
                    "tests.security.foreign.inputs.payloads", fromlist=["pickled"]
                ).pickled(),
            ),
        ),
        Input(
            "a rerun of Hydra's with an equals sign",
            12,
            "experiment YAML",
            ("--experimental-rerun=foreign/config.pickle", "trainer.max_epochs=1"),
            lambda box: box.write(
                "foreign/config.pickle",
                __import__(
                    "tests.security.foreign.inputs.payloads", fromlist=["pickled"]
                ).pickled(),
            ),
        ),
        Input(
            "a rerun of Hydra's, shortened",
            12,
            "experiment YAML",
            ("--experimental-re", "foreign/config.pickle"),
            lambda box: box.write(
                "foreign/config.pickle",
                __import__(
                    "tests.security.foreign.inputs.payloads", fromlist=["pickled"]
                ).pickled(),
            ),
        ),
        Input(
            "a rerun of Hydra's in a search",
            12,
            "experiment YAML",
            ("-m", "--experimental-rerun", "foreign/config.pickle", "optimizer.lr=0.1,0.2"),
            lambda box: box.write(
                "foreign/config.pickle",
                __import__(
                    "tests.security.foreign.inputs.payloads", fromlist=["pickled"]
                ).pickled(),
            ),
        ),
    ],
)

INPUTS = product(once, admitted, gadgets, environment, logs, masking, bombs)
