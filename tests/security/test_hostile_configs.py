"""Hostile targets, overrides and YAMLs: each would leave a file behind if any of it ran."""

from __future__ import annotations

import itertools
import os
import pickle
import re
import runpy
import sys

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from dlsearch.cli.main import main
from dlsearch.config.build import build
from dlsearch.config.guard import check_folder
from dlsearch.config.hydra_node import check_hydra
from dlsearch.core import permission
from dlsearch.core.errors import ConfigError
from dlsearch.core.permission import check_packages
from tests.kinds import first_of_each_kind, quick_if

TOUCH = "open('canary', 'w').close()"
SHELL = "touch canary"
#: What would leave the file `canary` in the folder, were it called: a target and its arguments.
CALLS = [
    ("os.system", [SHELL]),
    ("posix.system", [SHELL]),
    ("os.popen", [SHELL]),
    ("os.mkdir", ["canary"]),
    ("os.mknod", ["canary"]),
    ("os.makedirs", ["canary"]),
    ("os.symlink", ["x", "canary"]),
    ("os.execvp", ["touch", ["touch", "canary"]]),
    ("os.spawnlp", [0, "touch", "touch", "canary"]),
    ("os.posix_spawn", ["/usr/bin/touch", ["touch", "canary"], {}]),
    ("posix.mkdir", ["canary"]),
    ("pty.spawn", [["touch", "canary"]]),
    ("subprocess.run", [["touch", "canary"]]),
    ("subprocess.call", [["touch", "canary"]]),
    ("subprocess.Popen", [["touch", "canary"]]),
    ("subprocess.check_call", [["touch", "canary"]]),
    ("subprocess.check_output", [["touch", "canary"]]),
    ("subprocess.getoutput", [SHELL]),
    ("builtins.eval", [TOUCH]),
    ("builtins.exec", [TOUCH]),
    ("builtins.open", ["canary", "w"]),
    ("builtins.__import__", ["canary_module"]),
    ("builtins.compile", [TOUCH, "x", "exec"]),
    ("builtins.getattr", ["x", "y"]),
    ("io.open", ["canary", "w"]),
    ("io.FileIO", ["canary", "w"]),
    ("codecs.open", ["canary", "w"]),
    ("gzip.open", ["canary", "w"]),
    ("shelve.open", ["canary"]),
    ("sqlite3.connect", ["canary"]),
    ("tempfile.mkdtemp", ["canary"]),
    ("pathlib.Path.touch", ["canary"]),
    ("pathlib.Path.mkdir", ["canary"]),
    ("shutil.copy", ["canary_module.py", "canary"]),
    ("shutil.rmtree", ["canary_module.py"]),
    ("zipfile.ZipFile", ["canary", "w"]),
    ("tarfile.open", ["canary", "w"]),
    ("logging.FileHandler", ["canary"]),
    ("logging.config.dictConfig", [{"version": 1}]),
    ("logging.basicConfig", []),
    ("importlib.import_module", ["canary_module"]),
    ("importlib.__import__", ["canary_module"]),
    ("runpy.run_path", ["canary_module.py"]),
    ("runpy.run_module", ["canary_module"]),
    ("timeit.timeit", [TOUCH]),
    ("cProfile.run", [TOUCH]),
    ("profile.run", [TOUCH]),
    ("pdb.run", [TOUCH]),
    ("code.InteractiveInterpreter.runcode", [TOUCH]),
    ("doctest.run_docstring_examples", [TOUCH, {}]),
    ("pydoc.locate", ["canary_module"]),
    ("ctypes.CDLL", ["canary.so"]),
    ("_ctypes.dlopen", ["canary.so", 0]),
    ("functools.partial", ["os.system", SHELL]),
    ("operator.methodcaller", ["touch"]),
    ("threading.Thread", []),
    ("multiprocessing.Process", []),
    ("concurrent.futures.ProcessPoolExecutor", []),
    ("asyncio.create_subprocess_shell", [SHELL]),
    ("atexit.register", ["x"]),
    ("signal.signal", [2, 1]),
    ("socket.socket", []),
    ("urllib.request.urlretrieve", ["file:///dev/null", "canary"]),
    ("webbrowser.open", ["canary"]),
    ("pickle.loads", ["x"]),
    ("pickle._loads", ["x"]),
    ("marshal.loads", ["x"]),
    ("dill.loads", ["x"]),
    ("cloudpickle.loads", ["x"]),
    ("joblib.load", ["canary.pkl"]),
    ("numpy.load", ["canary.pkl", None, True]),
    ("numpy.save", ["canary", [1]]),
    ("numpy.savetxt", ["canary", [1]]),
    ("numpy.f2py.compile", [""]),
    ("pandas.read_pickle", ["canary.pkl"]),
    ("pandas.eval", ["__import__('os')"]),
    ("yaml.unsafe_load", ["!!python/object/apply:os.system ['touch canary']"]),
    ("yaml.load", ["!!python/object/apply:os.system ['touch canary']"]),
    ("jinja2.Template", ["{{ 1 }}"]),
    ("torch.load", ["canary.pkl"]),
    ("torch.save", [1, "canary"]),
    ("torch.hub.load", [".", "x", "local"]),
    ("torch.jit.load", ["canary.pkl"]),
    ("torch.serialization.load", ["canary.pkl"]),
    ("torch.utils.cpp_extension.load", ["x", ["canary.cpp"]]),
    ("torch.utils.cpp_extension.load_inline", ["x", "int x;"]),
    ("torch.package.PackageImporter", ["canary.pkl"]),
    ("torch.distributed.init_process_group", ["gloo"]),
    ("torch.multiprocessing.spawn", ["x"]),
    ("torch.ops.load_library", ["canary.so"]),
    ("torch.classes.load_library", ["canary.so"]),
    ("torch.export.load", ["canary.pkl"]),
    ("torchvision.datasets.utils.download_url", ["file:///dev/null", "."]),
    ("torchvision.io.write_file", ["canary", None]),
    ("torchvision.models.feature_extraction.create_feature_extractor", ["x"]),
    ("pytorch_lightning.Trainer", []),
    ("pytorch_lightning.LightningModule.load_from_checkpoint", ["canary.pkl"]),
    ("pytorch_lightning.loggers.CSVLogger", ["canary"]),
    ("mlflow.pyfunc.load_model", ["canary.pkl"]),
    ("mlflow.set_tracking_uri", ["canary"]),
    ("optuna.create_study", []),
    ("optuna.load_study", []),
    ("optuna.storages.JournalStorage", ["x"]),
    ("sqlalchemy.create_engine", ["sqlite:///canary"]),
    ("hydra.utils.instantiate", [{"_target_": "os.system", "_args_": [SHELL]}]),
    ("hydra.utils.call", [{"_target_": "os.system", "_args_": [SHELL]}]),
    ("hydra.utils.get_method", ["os.system"]),
    ("hydra.utils.get_object", ["os.system"]),
    ("omegaconf.OmegaConf.save", [{}, "canary"]),
    ("omegaconf.OmegaConf.register_new_resolver", ["x", "y"]),
    ("dlsearch.cli.main", [["debug=fdr"]]),
    ("dlsearch.execution.processes.forkserver.main", [[]]),
    ("dlsearch.config.build.build", [{"_target_": "os.system", "_args_": [SHELL]}, "x"]),
    ("dlsearch.tracking.mlflow.ui.serve", ["canary"]),
    ("dlsearch.inference.archive.os.system", [SHELL]),
    # allowed by name, defined elsewhere
    ("torch.optim.optimizer.functools.partial", ["x"]),
    ("torch.optim.optimizer.warnings.warn", ["x"]),
    ("torch.nn.modules.module.torch.load", ["canary.pkl"]),
    ("torch.nn.modules.module.functools.partial", ["x"]),
    ("torch.nn.modules.module.warnings.warn", ["x"]),
    ("torch.nn.parallel.distributed.os.system", [SHELL]),
    ("torch.nn.parallel.distributed.dist.init_process_group", ["gloo"]),
    ("torchvision.models._api.importlib.import_module", ["canary_module"]),
    ("torchvision.transforms.transforms.numbers.Number", []),
    ("torchmetrics.metric.functools.partial", ["x"]),
    ("torchmetrics.utilities.imports.sys.exit", [3]),
    ("pytorch_lightning.callbacks.model_checkpoint.os.mkdir", ["canary"]),
    ("pytorch_lightning.callbacks.model_checkpoint.shutil.rmtree", ["canary_module.py"]),
    ("optuna.samplers._base.abc.ABC", []),
    ("dlsearch.systems.shared.cache.os.system", [SHELL]),
    ("dlsearch.systems.vision.data.image.np.load", ["canary.pkl", None, True]),
    ("dlsearch.systems.shared.loader.torch.load", ["canary.pkl"]),
    ("dlsearch.systems.shared.layers.nn.Module.__init__.__globals__", []),
    # private parts of an allowed library
    ("torchvision.models._api.WeightsEnum.get_state_dict", ["file:canary.pkl"]),
    ("torchvision.models._utils.IntermediateLayerGetter", ["x"]),
    ("torch.nn.attention._fa4.register_flash_attention_fa4", ["canary_module"]),
    ("torch.optim._functional.sgd", ["x"]),
    ("optuna.samplers._tpe.sampler.TPESampler", []),
    # no dotted path
    ("", [SHELL]),
    ("os", []),
    ("os.system\n", [SHELL]),
    (" os.system", [SHELL]),
    ("torch.nn.Linear;os.system", [SHELL]),
    ("torch.nn..os.system", [SHELL]),
    ("torch.nn.__import__", ["os"]),
    ("torch.nn.Module.__class__", ["x"]),
    ("torch.nn.Linear.__init__.__globals__", []),
    ("torch.nnx.Linear", []),
    ("ｏs.system", [SHELL]),
]
HIDDEN = {
    "plain": lambda call: call,
    "in an argument": lambda call: {"_target_": "torch.nn.Sequential", "_args_": [call]},
    "partial": lambda call: {**call, "_partial_": True},
    "deep": lambda call: {
        "_target_": "torch.nn.Linear",
        "in_features": 1,
        "out_features": {"a": [[{"b": call}]]},
    },
    "not recursive": lambda call: {
        "_target_": "torch.nn.Sequential",
        "_recursive_": False,
        "_args_": [call],
    },
}


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("DLSEARCH_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("DLSEARCH_DATA", str(tmp_path / "data"))
    (tmp_path / "canary_module.py").write_text(TOUCH)
    (tmp_path / "canary.pkl").write_bytes(pickle.dumps(_Touch()))
    yield
    left = {path.name for path in tmp_path.iterdir()}
    sys.modules.pop("canary_module", None)
    assert "canary" not in left
    assert {"canary_module.py", "canary.pkl"} <= left  # nor was anything removed
    assert not left & {"store", "data"}


class _Touch:
    def __reduce__(self):
        return (os.system, (SHELL,))


def test_the_corpus_is_large():
    assert len({target for target, _ in CALLS}) * len(HIDDEN) + len(OVERRIDES) + len(YAMLS) > 700


def test_the_canary_sings(tmp_path):
    """What the corpus names does leave the file, where nothing stops it."""
    for sing in (
        lambda: os.system(SHELL),
        lambda: runpy.run_path("canary_module.py"),
        lambda: pickle.loads(PICKLE),
    ):
        sing()
        assert (tmp_path / "canary").exists()
        (tmp_path / "canary").unlink()


PICKLE = pickle.dumps(_Touch())


@pytest.mark.parametrize(
    ("target", "arguments"), CALLS, ids=lambda v: repr(v)[:50] if isinstance(v, str) else ""
)
def test_nothing_is_called(target, arguments):
    for hide in HIDDEN.values():
        with pytest.raises(ConfigError):
            build(hide({"_target_": target, "_args_": arguments}), "x")


@pytest.mark.parametrize(
    ("target", "arguments"), CALLS[:40], ids=lambda v: repr(v)[:50] if isinstance(v, str) else ""
)
def test_nor_through_an_interpolation(target, arguments):
    cfg = OmegaConf.create(
        {"name": target, "with": arguments, "x": {"_target_": "${name}", "_args_": "${with}"}}
    )
    with pytest.raises(ConfigError):
        build(cfg.x, "x")


@pytest.mark.parametrize(
    "entry",
    [
        "os", "sys", "builtins", "subprocess", "torch", "torch.nn", "dlsearch", "hydra", "*", "", "a b", "os.path",
        "pathlib", "pty", "io", "functools", "logging", "joblib", "pandas", "sympy", "sklearn", "scipy", "yaml", "PIL",
        "sqlalchemy", "alembic", "matplotlib", "fsspec", "cloudpickle", "pytorch_lightning", "torchvision.datasets",
        "lightning_utilities", "psycopg", "ray", "hydra_plugins", "pip", "setuptools",
    ],
)  # fmt: skip
def test_the_allow_list_cannot_be_opened_to(entry):
    with pytest.raises(ConfigError):
        check_packages([entry])


def test_a_package_of_ones_own_is_admitted(tmp_path):
    (tmp_path / "of_my_own").mkdir()
    check_packages(["of_my_own", "of_my_own.nets", "not_there_yet", "tests"])


ESCAPED = r"\${oc.create:{_target_: os.mkdir, path: canary}}"
RESOLVED_AGAIN = {
    "in an argument": {
        "_target_": "pytorch_lightning.callbacks.LambdaCallback",
        "on_fit_start": ESCAPED,
    },
    "in a list": {"_target_": "torch.nn.Sequential", "_args_": [ESCAPED]},
    "as a target": {"_target_": r"\${oc.decode:os.getcwd}"},
    "deep": {
        "_target_": "torch.nn.Linear",
        "in_features": 1,
        "out_features": {"a": [{"b": ESCAPED}]},
    },
    "partial": {"_target_": "torch.optim.SGD", "_partial_": True, "lr": ESCAPED},
    "twice": {"_target_": "torch.nn.Sequential", "_args_": ["${other}"]},
    "in the middle of a text": {"_target_": "torch.nn.Sequential", "_args_": [f"a {ESCAPED} b"]},
}


@pytest.mark.parametrize("form", RESOLVED_AGAIN)
def test_nothing_is_resolved_after_the_check(form):
    cfg = OmegaConf.create({"other": ESCAPED, "x": RESOLVED_AGAIN[form]})
    with pytest.raises(ConfigError, match=r"^x"):
        build(cfg.x, "x")


OVERRIDES = [
    *(
        [f"{group}._target_={target}"]
        for group, target in zip(
            (
                "model",
                "data",
                "task",
                "optimizer",
                "scheduler",
                "sampler",
                "pruner",
                "callbacks.early_stopping",
            )
            * 2,
            itertools.cycle(
                (
                    "os.system",
                    "subprocess.Popen",
                    "builtins.exec",
                    "torch.hub.load",
                    "runpy.run_path",
                )
            ),
            strict=False,
        )
    ),
    ["+callbacks.evil={_target_: os.system, command: touch canary}"],
    [
        "+callbacks.evil={_target_: pytorch_lightning.callbacks.LambdaCallback, on_fit_start: {_target_: os.system}}"
    ],
    ["+data.augment.evil={_target_: builtins.eval, _args_: [1]}"],
    ["model.activation={_target_: os.system, command: touch canary}"],
    ["allow_targets=[os]", "model._target_=os.system"],
    ["allow_targets=[builtins]", "model._target_=builtins.exec"],
    ["+hydra.callbacks.evil={_target_: os.system, command: touch canary}"],
    ["+hydra.callbacks.evil={_target_: subprocess.Popen, args: [touch, canary]}"],
    ["+hydra.callbacks.evil={_target_: os.mkdir, path: canary}"],
    ["+hydra.callbacks.evil={_target_: canary_module.x}"],
    ["+hydra.callbacks.evil={_target_: hydra.utils.instantiate}"],
    ["+hydra.callbacks.evil={inner: {_target_: runpy.run_path, path_name: canary_module.py}}"],
    ["hydra.launcher._target_=subprocess.Popen"],
    ["hydra.sweeper._target_=os.system"],
    ["+hydra.launcher.evil={_target_: os.mkdir, path: canary}"],
    ["+hydra.sweeper.evil={_target_: os.mkdir, path: canary}"],
    ["hydra.searchpath=[pkg://canary_module]"],
    ["hydra.searchpath=['file:///tmp','pkg://canary_module']"],
    ["hydra.searchpath=[http://localhost/x]"],
    ["+hydra.job.env_set={LD_PRELOAD: canary.so}"],
    ["+hydra.job.env_set={PYTHONSTARTUP: canary_module.py}"],
    ["+hydra.job.env_set={PYTHONPATH: .}"],
    ["+hydra.job.env_set={PATH: .}"],
    ["+hydra.job.env_set={BASH_ENV: x}"],
    ["+hydra.job.env_set={DLSEARCH_STORE: canary}"],
    ["+hydra.job_logging.handlers={x: {class: canary_module.X}}"],
    ["+hydra.job_logging.handlers={x: {class: os.mkdir}}"],
    ["+hydra.hydra_logging.handlers={x: {class: pathlib.Path}}"],
    ["+hydra.job.env_set={CXX: ./canary_module.py}"],
    ["+hydra.job.env_set.HOME=."],
    ["+hydra.job.env_set={https_proxy: 'http://127.0.0.1:1'}"],
    ["+hydra.job.env_set={NCCL_NET_PLUGIN: canary}"],
    ["+hydra.job.env_set={MPLCONFIGDIR: .}"],
    ["+hydra.job.env_set={OMP_NUM_THREADS: '1;touch canary'}"],
    ["hydra.job.env_copy=[PATH]"],
    ["hydra.job.name=../canary"],
    ["+hydra.job_logging.handlers={x: {class: logging.FileHandler, filename: canary, mode: w}}"],
    [
        "+hydra.hydra_logging.handlers={x: {class: logging.handlers.RotatingFileHandler, filename: canary}}"
    ],
    ["+hydra.hydra_logging.handlers={x: {class: logging.handlers.SMTPHandler, mailhost: x}}"],
    ["+hydra.hydra_logging.formatters={x: {(): canary_module.x}}"],
    ["+hydra.on_start={_target_: os.mkdir, path: canary}"],
    ["+hydra.callbacks.evil=${oc.create:{_target_: os.mkdir, path: canary}}"],
    ["+hydra.launcher.evil=${oc.create:{_target_: os.mkdir, path: canary}}"],
    ["+hydra.sweeper.params={study.storage: 'sqlite:///canary'}"],
    ["+space._function_=os.system"],
    ["+space._function_=canary_module.space"],
    ["+space._function_=builtins.exec"],
    ["study.name=../canary"],
    ["study.name=canary/../../x"],
    ["study.name=/tmp/canary"],
    ["study.name='a\x00b'"],
    ["study.name='canary\nx'"],
    ["study.name=.."],
    ["study.name='$(touch canary)'"],
    ["study.name='`touch canary`'"],
    ["study.name='; touch canary'"],
    ["study.name='{{7*7}}'"],
    ["study.name='<script>'"],
    ["study.name=" + "a" * 10_000],
    ["study.name=..\\\\canary"],
    ["study.name='CON:'"],
    ["study.name='ca\u202enary'"],
    ["tracking.project='../../x\x00'"],
    ["study.storage=sqlite:////proc/self/mem"],
    ["study.storage=file:///etc/passwd"],
    ["study.storage=mysql://u:p@h/d"],
    ["study.storage='sqlite:///x?vfs=canary'", "study.n_trials=0"],
]


def _command(argv, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["dlsearch", *argv])
    GlobalHydra.instance().clear()
    with pytest.raises(SystemExit) as end:
        main()
    GlobalHydra.instance().clear()
    said = capsys.readouterr()
    assert end.value.code == 2, said.err
    assert said.err.count("\n") == 1, said.err
    assert said.err.startswith("dlsearch: ")
    assert all(character.isprintable() for character in said.err[:-1])
    assert len(said.err) < 600
    return said.err


def _part(words):
    """The part of a config that an override is about, as far as that is one of the tests' kinds."""
    return re.split(r"[.=/]", words[0].lstrip("+").removeprefix("hydra."))[0]


@pytest.mark.parametrize(
    "words",
    first_of_each_kind(OVERRIDES, _part),
    ids=lambda words: " ".join(words)[:70].encode("ascii", "replace").decode(),
)
def test_an_override_runs_nothing(words, capsys, monkeypatch):
    _command(["-m", *words], capsys, monkeypatch)


BOMB = "a: &a [1,2,3,4,5,6,7,8,9]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in itertools.pairwise("abcdefghi")
)
YAMLS = {
    "apply": "x: !!python/object/apply:os.system ['touch canary']",
    "new": "x: !!python/object/new:os.system ['touch canary']",
    "object": "x: !!python/object:canary_module.X {}",
    "name": "x: !!python/name:os.system",
    "module": "x: !!python/module:canary_module",
    "tuple": "x: !!python/tuple [1]",
    "unknown tag": "x: !evil 1",
    "bomb": BOMB,
    "recursion": "x: &x [*x]",
    "deep": "x: " + "[" * 3000 + "]" * 3000,
    "huge": "x: [" + "1," * 200_000 + "1]",
    "target": "_target_: os.system\ncommand: touch canary",
    "nested target": "_target_: dlsearch.systems.basic.models.mlp.MLP\n"
    "in_shape: {_target_: os.system, command: touch canary}",
    "target in a list": "_target_: torch.nn.Sequential\n_args_: [{_target_: os.mkdir, path: canary}]",
    "partial": "_target_: functools.partial\n_args_: [{_target_: os.mkdir, path: canary}]",
    "merge key": "_target_: torch.nn.ReLU\n<<: {_target_: os.system, command: touch canary}\n_target_: os.system",
    "interpolated": "evil: os.system\n_target_: ${.evil}\ncommand: touch canary",
    "from the environment": "_target_: ${oc.env:EVIL}\ncommand: touch canary",
    "decoded": "_target_: ${oc.decode:'os.system'}\ncommand: touch canary",
    "global callback": "# @package _global_\nhydra: {callbacks: {x: {_target_: os.mkdir, path: canary}}}",
    "global environment": "# @package _global_\nhydra: {job: {env_set: {LD_PRELOAD: canary.so}}}",
    "global formatter": "# @package _global_\nhydra: {job_logging: {root: {level: INFO}, formatters: "
    "{x: {(): os.mkdir, path: canary}}}}",
    "global handler": "# @package _global_\nhydra: {job_logging: {root: {level: INFO}, handlers: "
    "{x: {class: canary_module.X}}}}",
    "global stream": "# @package _global_\nhydra: {hydra_logging: {root: {level: INFO}, handlers: "
    "{x: {class: logging.StreamHandler, stream: ext://canary_module.x}}}}",
    "global allow-list": "# @package _global_\nallow_targets: [os]\nmodel: {_target_: os.mkdir, path: canary}",
    "global compiler": "# @package _global_\nhydra: {job: {env_set: {CXX: ./canary_module.py}}}",
    "global home": "# @package _global_\nhydra: {job: {env_set: {HOME: .}}}",
    "global proxy": "# @package _global_\nhydra: {job: {env_set: {HTTPS_PROXY: 'http://127.0.0.1:1'}}}",
    "global copy": "# @package _global_\nhydra: {job: {env_copy: [PATH]}}",
    "global file": "# @package _global_\nhydra: {hydra_logging: {root: {level: DEBUG, handlers: [x]}, formatters: "
    "{f: {format: 'import os'}}, handlers: "
    "{x: {class: logging.FileHandler, filename: canary, mode: w, formatter: f}}}}",
    "global rotating file": "# @package _global_\nhydra: {job_logging: {root: {level: DEBUG, handlers: [x]}, handlers: "
    "{x: {class: logging.handlers.RotatingFileHandler, filename: canary}}}}",
    "global interpolated file": "# @package _global_\nhydra: {job_logging: {root: {level: DEBUG, handlers: [x]}, "
    "handlers: {x: '${oc.create:{class: logging.FileHandler, filename: canary}}'}}}",
    "global folder": "# @package _global_\nhydra: {run: {dir: .}, sweep: {dir: .}, output_subdir: canary}",
    "global overrides": "# @package _global_\nhydra: {overrides: {task: ['hydra.output_subdir=canary']}}",
    "global created callback": "# @package _global_\n"
    "hydra: {callbacks: {x: '${oc.create:{_target_: os.mkdir, path: canary}}'}}",
    "global escaped callback": "# @package _global_\n"
    "hydra: {callbacks: {x: {y: '\\${oc.create:{_target_: os.mkdir, path: canary}}'}}}",
    "global created sampler": "# @package _global_\n"
    "hydra: {sweeper: {params: {x: '${oc.create:{_target_: os.mkdir, path: canary}}'}}}",
    "global store": "# @package _global_\npaths: {store: ../canary}",
    "global storage": "# @package _global_\nstudy: {storage: 'postgresql://me@127.0.0.1:1/canary'}",
    "global tracking": "# @package _global_\ntracking: {uri: 'http://127.0.0.1:1'}",
    "global space": "# @package _global_\nspace: {_function_: os.getcwd}",
}


#: What these YAMLs ask for is refused as that of other ones, further up, is.
ALIKE = {
    name
    for name in YAMLS
    if name.startswith(("global created", "global escaped", "global interpolated", "global rotating"))
} | {"new", "object", "module", "global proxy", "global home", "global compiler", "global copy",
     "global stream", "global formatter", "global overrides", "global storage", "partial"}  # fmt: skip


@pytest.mark.parametrize("name", quick_if(YAMLS, lambda name: name not in ALIKE))
def test_a_yaml_runs_nothing(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("EVIL", "os.system")
    text = YAMLS[name]
    group = "experiment" if text.startswith("# @package _global_") else "model"
    (tmp_path / "conf" / group).mkdir(parents=True)
    (tmp_path / "conf" / group / "evil.yaml").write_text(text)
    _command(["--config-dir", "conf", "-m", f"{group}=evil"], capsys, monkeypatch)


def test_a_large_yaml_with_aliases_is_no_bomb(tmp_path):
    (tmp_path / "fine.yaml").write_text(
        "a: &a {x: 1, y: [1, 2, 3]}\nb: [*a, *a, *a]\nc: [" + "1," * 50_000 + "1]\n"
    )
    check_folder(tmp_path)


def test_hydras_own_settings_may_be_set(tmp_path, monkeypatch):
    (tmp_path / "mypackage.py").write_text("class Callback: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    permission.grant(["mypackage"])
    check_hydra(
        {
            "hydra": {
                "launcher": {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"},
                "sweeper": {"_target_": "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper",
                            "sampler": {"_target_": "optuna.samplers.TPESampler", "seed": 1}},
                "callbacks": {"mine": {"_target_": "mypackage.Callback"}},
                "job_logging": {"handlers": {"console": {"class": "logging.StreamHandler",
                                                         "stream": "ext://sys.stdout"}}},
                "job": {"env_set": {"OMP_NUM_THREADS": "1"}},
            }
        }
    )  # fmt: skip
