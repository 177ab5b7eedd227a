"""What the record keeps of a net: maps, features projected back, warped inputs, gradients, curves, learning rates."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from dlsearch.config.compose import compose_config
from dlsearch.inspection import inside
from dlsearch.inspection.curves import curves, logged
from dlsearch.inspection.gradients import GradientNorms, gradient_norms
from dlsearch.inspection.lr_range import range_test, suggest
from dlsearch.inspection.tiles import restore_pixels, scale_signed, stretch_tiles
from dlsearch.systems.basic.models.mlp import MLP
from dlsearch.systems.vision.models.kernels import KERNELS, KernelNet, filtered, kernel
from dlsearch.systems.vision.models.lenet import LeNet5
from dlsearch.systems.vision.models.resnet import CifarResNet
from dlsearch.systems.vision.models.stn import STN
from dlsearch.tracking.journal import Journal, rows
from dlsearch.training.building import build_data, build_task, seed_everything

SPEC = {"mean": [0.3], "std": [0.4]}


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    """96 real images of 8×8 pixels, standardised by :data:`SPEC`, and their classes."""
    pixels, labels = load_digits(return_X_y=True)
    return (
        torch.from_numpy(pixels[:96]).float().view(-1, 1, 8, 8) / 16 - 0.3
    ) / 0.4, torch.from_numpy(labels[:96])


def tiles(found: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(found["data"]), dtype=np.uint8).reshape(found["shape"])


def test_pictures_are_what_they_were(digits: tuple[Tensor, Tensor]) -> None:
    pixels = restore_pixels(digits[0], SPEC)
    torch.testing.assert_close(
        pixels, torch.from_numpy(load_digits().data[:96]).float().view(-1, 1, 8, 8) * 255 / 16
    )
    both = torch.tensor([[[[-1.0, 0.0, 0.5]]]])
    torch.testing.assert_close(scale_signed(both), torch.tensor([[[[1.0, 128.0, 191.5]]]]))
    torch.testing.assert_close(stretch_tiles(both), torch.tensor([[[[0.0, 170.0, 255.0]]]]))
    assert torch.isfinite(scale_signed(torch.zeros(1, 1, 2, 2))).all()


def test_maps_are_the_activations_of_the_net(digits: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(0)
    net = LeNet5([1, 8, 8], 10).eval()
    found = json.loads(json.dumps(inside.look(net, *digits, spec=SPEC)))
    assert [row["layer"] for row in found["maps"]] == ["features.1", "features.4"]
    assert [row["sides"] for row in found["maps"]] == [[8, 8], [4, 4]]
    with torch.no_grad():
        out = net.features[:2](digits[0][:1])
    np.testing.assert_allclose(
        tiles(found["maps"][0]["tiles"]), stretch_tiles(out[0][:, None]).round().numpy(), atol=1
    )
    assert (
        tiles(found["image"]).tolist() == restore_pixels(digits[0][:1], SPEC).round().int().tolist()
    )
    assert found["n"] == 96
    assert found["warped"] is None
    assert not net.training


def test_features_come_with_the_images_that_excite_them_most(digits: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(0)
    net = LeNet5([1, 8, 8], 10).eval()
    x = digits[0]
    rows_ = inside.look(net, x, spec=SPEC)["deconvolution"]
    assert [(row["layer"], row["field"]) for row in rows_] == [
        ("features.1", [5, 5]),
        ("features.4", [14, 14]),
    ]
    row = rows_[0]
    with torch.no_grad():
        out = net.features[:2](x)
    for k, channel in enumerate(row["channels"]):
        peaks = out[:, channel].amax((1, 2))
        best = int(peaks.argmax())
        place = divmod(int(out[best, channel].flatten().argmax()), 8)
        # a 5×5 window around the unit, inside the image
        top, left = (min(max(p - 2, 0), 3) for p in place)
        patch = restore_pixels(x[best : best + 1], SPEC)[0, 0, top : top + 5, left : left + 5]
        np.testing.assert_allclose(
            tiles(row["patches"])[k * row["images"]][0], patch.round().numpy(), atol=1
        )
    assert tiles(row["projections"]).shape == (len(row["channels"]) * row["images"], 1, 5, 5)
    assert tiles(rows_[1]["patches"]).shape[2:] == (8, 8)  # no larger than the image


def test_a_net_with_branches_is_looked_into_as_well(digits: tuple[Tensor, Tensor]) -> None:
    found = inside.look(CifarResNet([1, 8, 8], 10, depth=8), *digits, spec=SPEC)
    assert len(found["maps"]) == inside.LAYERS
    assert found["deconvolution"]
    assert all(v > 0 for v in found["gradients"]["kept"])
    assert len(json.dumps(found)) < 400_000


def test_fixed_kernels_are_shown_by_name(digits: tuple[Tensor, Tensor]) -> None:
    net = KernelNet([1, 8, 8], 10, kernels=list(KERNELS), angles=2, size=3, cells=2)
    found = inside.look(net, *digits, spec=SPEC)
    (row,) = found["maps"]
    assert row["names"][:3] == ["identity", "box_blur", "gaussian_blur"]
    assert row["names"][-2:] == ["gabor 4 px 90° even", "gabor 4 px 90° odd"]
    assert tiles(row["kernels"]).shape == (14, 1, 3, 3)
    at = row["names"].index("sobel_x")
    expected = stretch_tiles(filtered(digits[0][:1], kernel("sobel_x")[None]))
    np.testing.assert_allclose(tiles(row["tiles"])[at][0], expected[0, 0].round().numpy(), atol=1)


def test_warped_inputs_stand_beside_the_originals(digits: tuple[Tensor, Tensor]) -> None:
    net = STN([1, 8, 8], 10, width=4)
    assert net.transformer is not None
    nn.init.zeros_(net.transformer.theta.weight)
    net.transformer.theta.bias.data = torch.tensor([-2.0, 0, 0, 0, 0, 0])  # x to −x: mirrored
    found = inside.look(net, *digits, spec=SPEC)["warped"]
    assert found["layer"] == "transformer"
    assert found["maps"][0] == [[-1, 0, 0], [0, 1, 0]]
    before, after = tiles(found["images"]), tiles(found["warped"])
    assert len(before) == inside.PAIRS
    np.testing.assert_allclose(after, before[..., ::-1], atol=1)
    assert found["labels"] == digits[1][: inside.PAIRS].tolist()


def test_tables_have_gradients_alone() -> None:
    found = inside.look(
        nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)),
        torch.randn(20, 4),
        torch.randn(20),
    )
    assert (
        found["maps"] is found["deconvolution"] is found["warped"] is found["first_layer"] is None
    )
    assert found["gradients"]["layers"] == ["0", "2"]


def test_examples_take_turns_by_class() -> None:
    labels = torch.tensor([3, 3, 3, 1, 1, 0])
    got = inside.gather_examples(
        [(torch.arange(4.0)[:, None], labels[:4]), (torch.arange(4.0, 6.0)[:, None], labels[4:])], 6
    )
    assert got is not None
    x, y = got.inputs, got.targets
    assert y is not None
    assert y.tolist() == [0, 1, 3, 1, 3, 3]
    assert x[:, 0].tolist() == [5, 3, 0, 4, 1, 2]
    assert inside.gather_examples([{"x": 1}], 4) is None
    assert inside.gather_examples([], 4) is None


# -- gradients -------------------------------------------------------------------------------------------------------
def test_gradients_are_those_of_the_loss_and_leave_the_net_alone(
    digits: tuple[Tensor, Tensor],
) -> None:
    torch.manual_seed(0)
    net = MLP([1, 8, 8], 10, depth=2, width=16, dropout=0.5).eval()
    found = gradient_norms(net, *digits)
    assert found is not None
    assert all(p.grad is None for p in net.parameters())
    # evaluation drops nothing either
    nn.functional.cross_entropy(net(digits[0]), digits[1]).backward()
    expected = [m.weight.grad.norm().item() for m in net.modules() if isinstance(m, nn.Linear)]
    assert [norm for _, norm in found] == pytest.approx(expected, rel=1e-5)


def test_a_deep_tanh_net_decays_by_depth_and_relu_does_not(digits: tuple[Tensor, Tensor]) -> None:
    slopes = {}
    for activation, init in (("tanh", "default"), ("relu", "kaiming")):
        torch.manual_seed(0)
        net = MLP([1, 8, 8], 10, depth=20, width=64, activation=activation, init=init)
        found = gradient_norms(net, *digits)
        assert found is not None
        norms = np.array([norm for _, norm in found[1:-1]])  # the layers of equal width
        slopes[activation] = np.polyfit(np.arange(len(norms)), np.log(norms), 1)[0]
    assert slopes["tanh"] > 0.3  # each layer leaves less than three quarters of it
    assert abs(slopes["relu"]) < 0.1


def _words(tmp_path: Path, *more: str) -> list[str]:
    return [
        "data=digits", "data.train_size=128", "data.val_size=64", "trainer.accelerator=cpu", "data.batch_size=32",
        f"paths.cache={tmp_path / 'cache'}", f"paths.store={tmp_path}", *more,
    ]  # fmt: skip


def _trainer(
    tmp_path: Path, journal: Journal, *callbacks: pl.Callback, epochs: int = 2
) -> pl.Trainer:
    from dlsearch.tracking.logger import JournalLogger

    return pl.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, logger=JournalLogger(journal), callbacks=list(callbacks),
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    )  # fmt: skip


@pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*smaller than the logging interval"
)
def test_the_callback_logs_norms_before_clipping(tmp_path: Path) -> None:
    cfg = compose_config(_words(tmp_path, "model=mlp", "model.width=16", "callbacks=gradients"))
    assert cfg.callbacks.gradients._target_ == "dlsearch.inspection.gradients.GradientNorms"
    seed_everything(0)
    data, task = build_data(cfg), build_task(cfg)
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.open("train", "x", "y")
        trainer = _trainer(tmp_path, journal, GradientNorms(every_n_steps=4))
        trainer.gradient_clip_val = 1e-6
        trainer.fit(task, datamodule=data)
    found = logged(tmp_path, "gradient/")
    assert list(found) == [name for name, m in task.net.named_modules() if isinstance(m, nn.Linear)]
    assert all([step for step, _ in points] == [0, 4] for points in found.values())
    assert all(value > 1e-3 for points in found.values() for _, value in points)
    with pytest.raises(ValueError, match="every_n_steps: expected a positive integer, got 0"):
        GradientNorms(0)


# -- curves ----------------------------------------------------------------------------------------------------------
def test_curves_are_read_back_from_all_attempts(tmp_path: Path) -> None:
    def write(attempt: int, epochs: range, best: int | None = None) -> None:
        with Journal(tmp_path / f"journal.a{attempt}.jsonl") as journal:
            journal.open("trial", "x", "y")
            for epoch in epochs:
                journal.metrics(
                    {"val/loss": 1 / (epoch + 1), "val/accuracy": 0.5, "epoch": epoch}, epoch
                )
                journal.metrics({"train/loss": attempt + epoch / 10, "epoch": epoch}, epoch)
                journal.metrics({"train/loss_step": 7.0}, epoch)
            if best is not None:
                journal.metrics({"best/epoch": best}, 9)

    write(1, range(3))
    write(2, range(2, 5), best=3)
    write(10, range(5, 6))
    found = curves(tmp_path)
    assert found is not None
    assert found["train"] == [[0, 1.0], [1, 1.1], [2, 2.2], [3, 2.3], [4, 2.4], [5, 10.5]]
    assert [epoch for epoch, _ in found["val"]] == [0, 1, 2, 3, 4, 5]
    assert found["best"] == 3
    assert curves(tmp_path / "none") is None


# -- learning rates --------------------------------------------------------------------------------------------------
def test_the_suggestion_is_where_the_loss_falls_most_steeply() -> None:
    logs = np.linspace(-6, 0, 121)
    # falls around 1e-3, rises after 0.1
    losses = 2.3 - 2 / (1 + np.exp(-6 * (logs + 3))) + np.exp(8 * (logs + 0.8))
    found = suggest((10**logs).tolist(), losses.tolist())
    assert found["suggestion"] == pytest.approx(1e-3, rel=0.15)
    assert 2e-4 < found["begins"] < 8e-4
    assert 0.01 < found["least"] < 0.1
    flat = suggest((10**logs).tolist(), (2.3 + 0.001 * np.arange(121)).tolist())
    assert flat == {"begins": None, "least": None, "suggestion": None}


@pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*smaller than the logging interval"
)
def test_a_range_test_raises_the_rate_until_the_loss_diverges(tmp_path: Path) -> None:
    words = _words(tmp_path, "model=mlp", "model.width=32", "optimizer=sgd", "scheduler=cosine")
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.open("train", "x", "y")
        found = range_test(compose_config(words), tmp_path, journal, low=1e-4, high=1e3, steps=140)
    assert found["diverged"]
    rates = found["rates"]
    assert rates[0] == pytest.approx(1e-4)
    assert np.diff(np.log(rates)) == pytest.approx(math.log(1e7) / 139, rel=1e-3)
    assert len(rates) == len(found["losses"]) < 140
    assert 1e-3 < found["begins"] <= found["suggestion"] <= found["least"] < 100
    written = [row["values"] for row in rows(tmp_path / "journal.jsonl") if row["row"] == "metrics"]
    assert sum("lr_range/smooth" in values for values in written) == len(rates)
    assert not any("val/loss" in values for values in written)  # no validation data
    assert not list(tmp_path.rglob("*.ckpt"))


# -- within a study --------------------------------------------------------------------------------------------------
def test_what_cannot_be_looked_into_costs_no_score(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    class Strange(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 1)

    cfg = compose_config(_words(tmp_path))
    assert inside.of_training(cfg, Strange(), tmp_path) is None  # its net does not take the data
    assert "RuntimeError" in capfd.readouterr().err


def test_a_training_is_looked_into_beside_its_beginning(tmp_path: Path) -> None:
    cfg = compose_config(_words(tmp_path, "model=lenet", "seed=3"))
    seed_everything(3)
    build_data(cfg)
    task = build_task(cfg)
    found = inside.of_training(cfg, task, tmp_path)
    assert found is not None
    assert found["source"] == "the validation data"
    assert found["n"] == 64
    # the same weights, from the same seed
    assert found["gradients"]["initial"] == found["gradients"]["kept"]
    assert found["curves"] is None
