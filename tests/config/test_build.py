"""The one instantiate: what it builds, and all that it refuses to."""

from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf

from dlsearch.config.build import ALLOWED, build, check_arguments, check_targets, locate
from dlsearch.config.errors import ConfigError

HOSTILE = [
    "os.system",
    "builtins.eval",
    "builtins.__import__",
    "subprocess.Popen",
    "shutil.rmtree",
    "pickle.loads",
    "importlib.import_module",
    "runpy.run_path",
    "hydra.utils.instantiate",
    "hydra.utils.get_method",
    "torch.load",
    "torch.hub.load",
    "torch.jit.load",
    "torch.utils.cpp_extension.load",
    "torch.serialization.load",
    "numpy.load",
    "mlflow.pytorch.load_model",
    "dlsearch.cli.main",
    "dlsearch.search.forkserver.main",
    "optuna.load_study",
    "torch.nn.Module.__init__.__globals__",
    "torch.optim.__builtins__",
    "",
    "torch",
    "torch.nnn.Linear",
    "torch.nn-evil.Linear",
]
#: Within an allowed namespace by name, but defined outside of it.
SMUGGLED = [
    "torch.optim.optimizer.warnings.warn",
    "torch.optim.optimizer.functools.partial",
    "torch.nn.modules.module.warnings.warn",
    "torch.nn.modules.module.torch.load",
    "torch.nn.init.math.exp",
    "optuna.samplers._base.abc.ABC",
    "dlsearch.data.cache.os.system",
    "dlsearch.data.image.np.load",
]


@pytest.mark.parametrize("target", HOSTILE)
def test_a_target_outside_the_allow_list_is_refused_by_name(target):
    with pytest.raises(ConfigError, match=r"^x\._target_: "):
        check_targets({"_target_": target}, "x")


@pytest.mark.parametrize("target", [*HOSTILE, *SMUGGLED])
def test_and_is_never_built(target):
    with pytest.raises(ConfigError):
        build({"_target_": target}, "x")


def test_wherever_it_hides():
    bad = {"_target_": "os.system"}
    for node in (
        {"_target_": "torch.nn.Sequential", "_args_": [bad]},
        {"a": {"b": [{"c": bad}]}},
        {"_target_": "torch.nn.Linear", "in_features": bad, "out_features": 1},
        {"_target_": "torch.nn.Linear", "_partial_": True, "deep": [[bad]]},
    ):
        with pytest.raises(ConfigError, match="_target_"):
            build(node, "x")


def test_an_interpolated_target_is_checked_when_it_is_known():
    cfg = OmegaConf.create({"name": "os.system", "x": {"_target_": "${name}"}})
    with pytest.raises(ConfigError):
        build(cfg.x, "x")


@pytest.mark.parametrize("entry", ["os", "torch", "builtins", "dlsearch", "os.path", "a b", "", "my-package", 3])
def test_allow_targets_opens_a_package_of_the_users_alone(entry):
    with pytest.raises(ConfigError, match="allow_targets"):
        check_targets({"_target_": "torch.nn.ReLU"}, "x", [entry])


def test_what_is_allowed_is_built_with_all_below_it():
    node = {
        "_target_": "torch.nn.Sequential",
        "_args_": [{"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3}],
    }
    net = build(node, "model")
    assert net(torch.zeros(1, 2)).shape == (1, 3)
    make = build({"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.5}, "optimizer")
    assert make(net.parameters()).defaults["lr"] == 0.5
    assert build(None, "scheduler") is None


def test_wrong_arguments_are_named_by_their_key():
    with pytest.raises(ConfigError, match=r"optimizer\.learning_rate: torch\.optim\.SGD takes no 'learning_rate'"):
        check_arguments({"_target_": "torch.optim.SGD", "learning_rate": 1}, "optimizer")
    with pytest.raises(ConfigError, match="optimizer: "):
        build({"_target_": "torch.optim.SGD", "params": [], "lr": -1}, "optimizer")


def test_what_is_missing_is_named():
    cfg = OmegaConf.create(
        {"data": {"_target_": "torch.nn.Linear", "in_features": "???", "out_features": "${nowhere}"}}
    )
    with pytest.raises(ConfigError, match=r"data\.in_features"):
        build(cfg.data, "data")


def test_every_allowed_namespace_can_be_located_or_is_optional():
    for target in ("torch.nn.ReLU", "torch.optim.Adam", "dlsearch.models.lenet.LeNet5", "optuna.pruners.NopPruner"):
        assert callable(locate(target, "x"))
    assert len(set(ALLOWED)) == len(ALLOWED)
