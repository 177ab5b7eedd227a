"""Transfer: what is loaded, what begins anew, what trains when; and that a training resumes in the midst of it."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from dlsearch.config.compose import compose_config
from dlsearch.core.errors import ConfigError
from dlsearch.tracking.journal import Journal, rows
from dlsearch.training import transfer
from dlsearch.training.building import build_task
from dlsearch.training.fit import fit
from dlsearch.training.run import Interrupted, Run
from dlsearch.training.state import weights

NET = ["model=convnet", "model.width=4", "model.stages=2", "model.dropout=0.2"]
HEAD = {"output.weight", "output.bias"}


@functools.cache
def composed(store, *overrides):
    return compose_config([
        f"paths.store={store}", f"paths.data={store}", "data.train_size=200", "data.val_size=100", "data.batch_size=32",
        "trainer.accelerator=cpu", "trainer.max_epochs=3", "optimizer.lr=0.01", *NET, *overrides,
    ])  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("transfer")


def run_in(folder: Path, **changes) -> Run:
    fields = {"objectives": ["val/accuracy"], "directions": ["maximize"], **changes}
    return Run(folder=folder, journal=Journal(folder / "journal.jsonl"), **fields)


@pytest.fixture(scope="module")
def source(store):
    """A trained net of ten classes, and its checkpoint."""
    result = fit(composed(str(store), "seed=7").copy(), run_in(store / "source"))
    assert result.state == "complete"
    return store / "source/ckpt/best.ckpt", result


@pytest.fixture
def moved(store, source):
    """A config that begins with the source's weights, which are kept where trials look for them."""
    path, result = source

    def make(*overrides, **changes):
        cfg = composed(str(store), f"transfer.weights=file:{path}", *overrides).copy()
        cfg.transfer.sha256 = {f"file:{path}": result.state_sha256}
        for key, value in changes.items():
            OmegaConf.update(cfg, key.replace("__", "."), value)
        (store / "weights").mkdir(exist_ok=True)
        kept = store / "weights" / f"{result.state_sha256}.ckpt"
        if not kept.exists():
            kept.write_bytes(path.read_bytes())
        return cfg

    return make


def state(folder: Path, name: str = "last"):
    saved = torch.load(folder / f"ckpt/{name}.ckpt", weights_only=True)["state_dict"]
    return {
        key.removeprefix("net."): value for key, value in saved.items() if key.startswith("net.")
    }


def changed(before, after):
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def test_the_digest_is_the_one_in_the_source_s_record(source, moved):
    path, result = source
    facts = transfer.check(moved(), build_task(moved()), path)
    assert facts["sha256"] == result.state_sha256
    assert set(facts["new"]) == HEAD
    assert facts["left_out"] == sorted(HEAD, reverse=True)
    assert set(facts["loaded"]) == set(state(path.parent.parent)) - HEAD
    assert facts["frozen"] == []


def test_feature_extraction_changes_the_head_alone_and_no_statistic(moved, source, tmp_path):
    path, _ = source
    result = fit(moved("transfer=features"), run_in(tmp_path))
    before, after = state(path.parent.parent, "best"), state(tmp_path)
    assert changed(before, after) == HEAD
    assert result.n_params == sum(before[name].numel() for name in HEAD)


def test_fine_tuning_changes_everything_slower(moved, source, tmp_path):
    path, _ = source
    cfg = moved("transfer=finetune")
    fit(cfg, run_in(tmp_path))
    before, after = state(path.parent.parent, "best"), state(tmp_path)
    assert changed(before, after) == set(before)
    rates = {}
    for row in rows(tmp_path / "journal.jsonl"):
        if row["row"] == "metrics":
            rates |= {k: v for k, v in row["values"].items() if k.startswith("lr/")}
    assert rates == {"lr/loaded": pytest.approx(0.001), "lr/new": pytest.approx(0.01)}


def test_statistics_of_a_frozen_normalisation_follow_the_data_where_that_is_asked_for(
    moved, source, tmp_path
):
    path, _ = source
    fit(moved("transfer=features", "transfer.batch_norm=adapt"), run_in(tmp_path))
    moving = changed(state(path.parent.parent, "best"), state(tmp_path)) - HEAD
    assert moving
    assert all(
        name.endswith(("running_mean", "running_var", "num_batches_tracked")) for name in moving
    )


def test_groups_train_from_their_epoch_on(moved, source, tmp_path):
    path, _ = source
    cfg = moved(
        "transfer.freeze=loaded", "transfer.unfreeze=2",
        "+transfer.groups={second: {match: 'features.4.* features.5.*', unfreeze: 1, lr: 0.5}}",
    )  # fmt: skip
    seen = {}

    def report(epoch, *_):
        seen[epoch] = state(tmp_path)
        return False

    fit(cfg, run_in(tmp_path, report=report))
    before = state(path.parent.parent, "best")
    second = {name for name in before if name.startswith(("features.4.", "features.5."))}
    first = {name for name in before if name.startswith(("features.0.", "features.1."))}
    assert changed(before, seen[0]) == HEAD
    assert changed(before, seen[1]) == HEAD | second
    assert changed(before, seen[2]) == HEAD | second | first


@pytest.mark.parametrize("stops", [1, 2])
def test_a_resumed_training_unfreezes_as_an_uninterrupted_one(moved, tmp_path, stops):
    cfg = moved("transfer=gradual", "transfer.unfreeze=1", "seed=3")
    whole = fit(cfg, run_in(tmp_path / "whole"))
    told = []
    with pytest.raises(Interrupted):
        fit(
            cfg,
            run_in(
                tmp_path / "parts",
                report=lambda *_: bool(told.append(0)),
                stop=lambda: len(told) >= stops,
            ),
        )
    parts = fit(cfg, run_in(tmp_path / "parts"))
    assert parts.resumed_epoch == stops
    assert (parts.state_sha256, parts.metrics_sha256) == (whole.state_sha256, whole.metrics_sha256)


def test_a_head_of_another_size_is_replaced_and_nothing_else(moved, source):
    path, _ = source
    task = build_task(moved("data.num_classes=10"))
    wanted = transfer.read_settings(moved())
    other = torch.nn.Linear(8, 3)
    task.net.output = other
    decided = transfer.plan(wanted, task.net, weights.of_net(weights.read(path)))
    assert set(decided.new) == HEAD


REFUSED = [
    (["transfer.head=null", "model.width=6"], "transfer.weights", "has features.0.weight as"),
    (["model.stages=3"], "transfer.weights", "has no features.8.weight"),
    (["transfer.head=[fc.*]"], "transfer.head", "'fc.*' matches no tensor"),
    (["transfer.freeze='features.* conv*'"], "transfer.freeze", "'conv*' matches no tensor"),
    (["transfer.freeze='*'"], "transfer.freeze", "freezes output.weight"),
    (["transfer.freeze=loaded", "transfer.head=null"], "transfer.freeze", "nothing that trains"),
    (
        ["+transfer.groups={a: {match: 'nothing.*'}}"],
        "transfer.groups.a.match",
        "matches no tensor",
    ),
    (["transfer.head='*'"], "transfer.weights", "has no tensor for this net"),
    (["transfer.prefix=module."], "transfer.prefix", "begins with 'module.'"),
    (["transfer.unfreeze=3"], "transfer.unfreeze", "from 0 to 2"),
    (["transfer.lr=0"], "transfer.lr", "above 0"),
    (["transfer.batch_norm=train"], "transfer.batch_norm", "frozen or adapt"),
]


@pytest.mark.parametrize(("overrides", "key", "why"), REFUSED, ids=[o[0][0] for o in REFUSED])
def test_what_does_not_fit_is_refused_on_the_meta_device(moved, source, overrides, key, why):
    cfg = moved(*overrides)
    with torch.device("meta"):
        task = build_task(cfg)
    with pytest.raises(ConfigError) as refused:
        transfer.check(cfg, task, source[0])
    assert refused.value.key == key
    assert why in str(refused.value)


def test_other_weights_than_those_recorded_are_refused(moved, store):
    cfg = moved()
    (name,) = cfg.transfer.sha256
    other = "0" * 64
    (store / "weights" / f"{other}.ckpt").write_bytes(
        (store / "weights" / f"{cfg.transfer.sha256[name]}.ckpt").read_bytes()
    )
    cfg.transfer.sha256[name] = other
    with pytest.raises(ConfigError, match="does not hold the weights that were recorded"):
        transfer.begin(cfg, build_task(cfg))


def test_a_task_of_one_s_own_is_told_when_it_cannot_follow(moved, source):
    class Own(torch.nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

    own = Own(build_task(moved()).net)
    assert transfer.check(moved("transfer=features"), own, source[0])["frozen"]
    assert [name for name, p in own.net.named_parameters() if p.requires_grad] == [
        "output.weight",
        "output.bias",
    ]
    with pytest.raises(
        ConfigError, match=r"^transfer\.lr: this task takes no learning rates by groups"
    ):
        transfer.check(moved("transfer=finetune"), own, source[0])


def test_a_file_is_a_checkpoint_or_a_state_dict_and_never_unpickled(tmp_path, source):
    path, result = source
    plain = {f"body.{k}": v for k, v in state(path.parent.parent, "best").items()}
    torch.save(plain, tmp_path / "plain.pt")
    assert set(weights.of_net(weights.read(tmp_path / "plain.pt"), "body.")) == set(
        state(path.parent.parent)
    )
    assert weights.digest(weights.read(path)) == result.state_sha256
    torch.save({"state_dict": Path}, tmp_path / "pickled.pt")
    (tmp_path / "text").write_text("no weights")
    torch.save({"epoch": 1}, tmp_path / "empty.pt")
    for name, why in (
        ("pickled.pt", "cannot be read"),
        ("text", "cannot be read"),
        ("empty.pt", "holds no state dict"),
    ):
        with pytest.raises(ConfigError, match=why):
            weights.read(tmp_path / name)


def test_torchvision_s_weights_are_here_or_one_line(tmp_path, monkeypatch):
    from torchvision import models
    from torchvision.models import _api

    def unreachable(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(_api, "load_state_dict_from_url", unreachable)
    with pytest.raises(ConfigError, match=r"neither in .*weights nor could it be downloaded"):
        weights.published("squeezenet1_1", tmp_path / "weights")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="publishes no weights 'lenet'"):
        weights.published("lenet", tmp_path)
    name = str(models.SqueezeNet1_1_Weights.IMAGENET1K_V1.url).rsplit("/", 1)[-1]
    torch.save(models.squeezenet1_1().state_dict(), tmp_path / name)
    path = weights.published("SqueezeNet1_1_Weights.IMAGENET1K_V1", tmp_path)
    assert path == tmp_path / name
    found = weights.of_net(weights.read(path))
    assert found["features.0.weight"].shape == (64, 3, 3, 3)
