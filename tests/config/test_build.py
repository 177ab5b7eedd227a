"""The one instantiate: what it builds, and all that it refuses to."""

from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf

from dlsearch.config.build import ALLOWED, build, check_arguments, check_targets, locate
from dlsearch.core import permission
from dlsearch.core.errors import ConfigError

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
    "dlsearch.execution.processes.forkserver.main",
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
    "dlsearch.systems.shared.cache.os.system",
    "dlsearch.systems.vision.data.image.np.load",
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


@pytest.mark.parametrize(
    "entry", ["os", "torch", "builtins", "dlsearch", "os.path", "a b", "", "my-package", 3]
)
def test_allow_targets_opens_a_package_of_the_users_alone(entry):
    with pytest.raises(ConfigError, match="allow_targets"):
        permission.grant([entry])


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
    with pytest.raises(
        ConfigError, match=r"optimizer\.learning_rate: torch\.optim\.SGD takes no 'learning_rate'"
    ):
        check_arguments({"_target_": "torch.optim.SGD", "learning_rate": 1}, "optimizer")
    with pytest.raises(ConfigError, match="optimizer: "):
        build({"_target_": "torch.optim.SGD", "params": [], "lr": -1}, "optimizer")


def test_what_is_missing_is_named():
    cfg = OmegaConf.create(
        {
            "data": {
                "_target_": "torch.nn.Linear",
                "in_features": "???",
                "out_features": "${nowhere}",
            }
        }
    )
    with pytest.raises(ConfigError, match=r"data\.in_features"):
        build(cfg.data, "data")


def test_every_allowed_namespace_can_be_located_or_is_optional():
    for target in (
        "torch.nn.ReLU",
        "torch.optim.Adam",
        "dlsearch.systems.vision.models.lenet.LeNet5",
        "optuna.pruners.NopPruner",
    ):
        assert callable(locate(target, "x"))
    assert len(set(ALLOWED)) == len(ALLOWED)


#: Within an allowed namespace, defined there, and public: but no class that a config builds.
GADGETS = [
    "torchvision.models.WeightsEnum",
    "torchvision.models.ResNet18_Weights",
    "torchvision.models.get_weight",
    "torchvision.models.get_model",
    "torchvision.models.register_model",
    "torchvision.models.detection.backbone_utils.resnet_fpn_backbone.__wrapped__",
    "torchvision.models.ResNet18_Weights.DEFAULT.get_state_dict",
    "torchvision.models._api.WeightsEnum.get_state_dict",
    "torchvision.models.feature_extraction.create_feature_extractor",
    "torch.nn.attention._fa4.register_flash_attention_fa4",
    "torch.nn.attention.activate_flash_attention_impl",
    "torch.nn.attention.register_flash_attention_impl",
    "torch.nn.Module.register_forward_hook",
    "torch.nn.Embedding.from_pretrained",
    "torch.nn.utils.stateless.functional_call",
    "torch.nn.parallel.DistributedDataParallel",
    "torch.nn.cpp.ModuleWrapper",
    "torch.nn.functional.handle_torch_function",
    "torchmetrics.functional.text.bert.bert_score",
    "torchmetrics.text.bert.BERTScore",
    "torchmetrics.multimodal.clip_score.CLIPScore",
    "torchmetrics.utilities.imports.RequirementCache",
    "torchmetrics.utilities.data.apply_to_collection",
    "torchmetrics.image.fid.FrechetInceptionDistance",
    "pytorch_lightning.callbacks.callback.Callback.load_state_dict",
    "pytorch_lightning.callbacks.finetuning.multiplicative",
    "optuna.samplers.CmaEsSampler.reseed_rng",
    "dlsearch.sampling.factory.build_sampler",
    "dlsearch.sampling.pruners.cast",
    "dlsearch.systems.vision.data.image.idx",
    "dlsearch.systems.counts.count",
    "dlsearch.systems.shared.losses.Penalty",
]


@pytest.mark.parametrize("target", GADGETS)
def test_what_is_of_no_known_kind_is_never_built(target):
    with pytest.raises(ConfigError, match=r"^x\._target_: "):
        locate(target, "x")


@pytest.mark.parametrize(
    "target",
    [
        "torch.nn.ReLU", "torch.nn.modules.activation.ReLU", "torch.nn.init.xavier_uniform_",
        "torch.nn.functional.relu", "torch.optim.swa_utils.get_ema_multi_avg_fn", "torch.optim.lr_scheduler.StepLR",
        "torch.optim.Adam", "torchvision.models.resnet18", "torchvision.models.resnet.resnet18",
        "torchvision.models.detection.fasterrcnn_resnet50_fpn", "torchvision.models.ResNet",
        "torchvision.ops.sigmoid_focal_loss", "torchvision.ops.MLP", "torchvision.transforms.Compose",
        "torchvision.transforms.v2.RandomCrop", "torchvision.transforms.InterpolationMode",
        "torchvision.models.efficientnet.MBConvConfig", "torchmetrics.Accuracy", "torchmetrics.MetricCollection",
        "torchmetrics.classification.MulticlassF1Score", "pytorch_lightning.callbacks.EarlyStopping",
        "optuna.samplers.TPESampler", "optuna.samplers.nsgaii.SBXCrossover", "optuna.pruners.MedianPruner",
        "dlsearch.sampling.factory.grid", "dlsearch.sampling.pruners.Hyperband",
        "dlsearch.systems.shared.schedules.Cosine",
        "dlsearch.systems.shared.views.Views", "dlsearch.systems.vision.data.augment.Augment",
        "dlsearch.systems.vision.data.image.Digits",
        "dlsearch.systems.vision.models.lenet.LeNet5", "dlsearch.systems.shared.kfac.KFAC",
        "dlsearch.training.compile.Compile",
    ],
)  # fmt: skip
def test_what_a_config_of_this_field_names_is_found(target):
    assert callable(locate(target, "x"))


def test_of_an_admitted_package_counts_what_is_defined_in_it(tmp_path, monkeypatch):
    (tmp_path / "nets_of_hers.py").write_text(
        "import functools, os, pathlib\nfrom os import mkdir as folder\nfrom torch.nn import Linear\n"
        "from torchvision.models import WeightsEnum\nhere = pathlib.Path('x')\nmake = functools.partial(os.mkdir)\n"
        "class Net(Linear): pass\ndef net(width): return Linear(width, 1)\nclass _Own: pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ConfigError, match=r"outside the allow-list \(hint: allow_targets=\[nets_of_hers\]"
    ):
        locate("nets_of_hers.Net", "model")
    permission.grant(["nets_of_hers"])
    for name in ("Net", "net", "_Own", "Linear"):
        assert callable(locate(f"nets_of_hers.{name}", "model"))
    for name in (
        "os.system",
        "os.mkdir",
        "folder",
        "here.write_text",
        "make",
        "pathlib.Path",
        "WeightsEnum",
        "here",
    ):
        with pytest.raises(ConfigError, match=r"^model\._target_: "):
            locate(f"nets_of_hers.{name}", "model")


@pytest.mark.parametrize(
    "text",
    [
        r"\${oc.create:{_target_: torch.nn.ReLU}}", r"\\\${oc.env:HOME}", r"a\${b",
        r"\${oc.decode:'{_target_: os.mkdir}'}",
    ],
)  # fmt: skip
def test_nothing_is_resolved_twice(text):
    cfg = OmegaConf.create(
        {"x": {"_target_": "torch.nn.Sequential", "_args_": [], "deep": [{"a": text}]}}
    )
    with pytest.raises(ConfigError, match=r"x\.deep\[0\]\.a: .*interpolation"):
        build(cfg.x, "x")
    cfg = OmegaConf.create({"x": {"_target_": "torch.nn.Sequential", "_args_": [text]}})
    with pytest.raises(ConfigError, match="interpolation"):
        build(cfg.x, "x")


def test_what_a_resolver_makes_is_checked_as_what_is_written():
    made = "${oc.create:{_target_: os.mkdir, path: canary}}"
    cfg = OmegaConf.create({"x": {"_target_": "torch.nn.Sequential", "_args_": [made]}})
    with pytest.raises(ConfigError, match="outside the allow-list"):
        build(cfg.x, "x")
    cfg = OmegaConf.create(
        {
            "x": {
                "_target_": "torch.nn.Sequential",
                "_args_": ["${oc.create:{_target_: torch.nn.ReLU}}"],
            }
        }
    )
    assert isinstance(build(cfg.x, "x")[0], torch.nn.ReLU)


def test_a_config_says_how_its_arguments_are_meant():
    inner = {"_target_": "torch.nn.ReLU"}
    factory = build(
        {"_target_": "torch.nn.Sequential", "_partial_": True, "_args_": [inner]},
        "x",
    )
    assert isinstance(factory()[0], torch.nn.ReLU)
    raw = build(
        {"_target_": "torch.optim.SGD", "_partial_": True, "_recursive_": False, "lr": inner}, "x"
    )
    assert raw.keywords["lr"] == inner, "what is below is passed on as it stands"
    live = build({"_target_": "torch.nn.Linear", "in_features": 2, "out_features": {"_target_": "torch.nn.ReLU"}}, "x",
                 out_features=3)  # fmt: skip
    assert live.out_features == 3, "an argument that is given is not built"
    for bad in ({"_partial_": "yes"}, {"_args_": "abc"}, {"_recursive_": 1}):
        with pytest.raises(ConfigError, match=rf"^x\.{next(iter(bad))}: expected"):
            build({"_target_": "torch.nn.ReLU", **bad}, "x")
