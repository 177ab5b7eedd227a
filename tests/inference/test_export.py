"""A model from its checkpoint to its exports and back, the outputs followed all the way."""

from __future__ import annotations

import importlib.util
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from torch import nn

from dlsearch.config.compose import compose_config
from dlsearch.core.errors import ConfigError
from dlsearch.inference.archive import check, load_program, make_program, save_program
from dlsearch.inference.export import check_formats, check_out, export
from dlsearch.inference.files import Reader
from dlsearch.inference.model import load, load_export, looking, onnx_runner
from dlsearch.inference.predict import Failures, predict
from dlsearch.study.kept_model import Kept

INPUT = {
    "kind": "image",
    "shape": [1, 28, 28],
    "mean": [0.13],
    "std": [0.31],
    "classes": list("0123456789"),
}


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """LeNet with random weights, as a trial leaves it behind."""
    return leave(tmp_path / "t00003", ["model=lenet", "data=mnist"], INPUT)


def leave(folder: Path, overrides: list[str], spec: dict[str, Any] | None) -> Kept:
    from dlsearch.config.build import build

    cfg = compose_config(overrides)
    (folder / "ckpt").mkdir(parents=True)
    OmegaConf.save(cfg, folder / "config.yaml")
    torch.manual_seed(0)
    net = build(cfg.model, "model")
    saved = {"epoch": 1, "state_dict": {f"net.{k}": v for k, v in net.state_dict().items()}}
    torch.save(
        saved if spec is None else saved | {"MNIST": {"input": spec}}, folder / "ckpt" / "best.ckpt"
    )
    objective = {"name": "val/accuracy", "direction": "maximize", "value": 0.5}
    about = {
        "study": {"name": "alpha", "uuid": "0"},
        "trial": 3,
        "kind": "trial",
        "params": {},
        "objective": objective,
    }
    about |= {"test": None, "sha": {}}
    return Kept("alpha", "trial", 3, folder / "config.yaml", folder / "ckpt" / "best.ckpt", about)


def rows(model: Any, path: Path, top: int = 3) -> list[dict[str, Any]]:
    reader, failures = Reader(model.input), Failures()
    found = list(predict(model, [path], reader=reader, failures=failures, batch_size=2, top=top))
    assert not failures.rows
    return found


def test_predictions_are_the_softmax_of_the_network(kept: Kept, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    np.save(tmp_path / "x.npy", images)
    model = load(kept)
    x = torch.from_numpy(((images / 255 - 0.13) / 0.31).astype(np.float32))[:, None]
    assert model.net is not None
    with torch.no_grad():
        expected = model.net(x).softmax(1)
    found = rows(model, tmp_path / "x.npy", top=10)
    assert [r["index"] for r in found] == expected.argmax(1).tolist()
    for row, want in zip(found, expected.tolist(), strict=True):
        assert {t["index"]: t["probability"] for t in row["top"]} == pytest.approx(
            dict(enumerate(want)), abs=1e-5
        )
        assert sum(t["probability"] for t in row["top"]) == pytest.approx(1.0)


def test_an_export_predicts_the_same_and_has_the_same_bytes_each_time(
    kept: Kept, tmp_path: Path
) -> None:
    np.save(
        tmp_path / "x.npy", np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    )
    model = load(kept)
    spec = export(model, kept, tmp_path / "out", formats=["torch"])
    assert (
        spec["agreement"]["torch"]["largest_difference"] <= spec["agreement"]["torch"]["tolerance"]
    )
    assert json.loads((tmp_path / "out/model.json").read_text()) == spec
    again = load_export(tmp_path / "out")
    for one, two in zip(
        rows(model, tmp_path / "x.npy"), rows(again, tmp_path / "x.npy"), strict=True
    ):
        assert one["class"] == two["class"]
        assert one["probability"] == pytest.approx(two["probability"], abs=1e-6)
    export(model, kept, tmp_path / "twice", formats=["torch"])
    assert (tmp_path / "twice/model.pt2").read_bytes() == (tmp_path / "out/model.pt2").read_bytes()
    with zipfile.ZipFile(tmp_path / "out/model.pt2") as archive:
        texts = [archive.read(name) for name in archive.namelist()]
    assert not any(str(Path.cwd()).encode() in text or b"site-packages" in text for text in texts)


@pytest.mark.parametrize(
    "overrides", [["model=lenet", "data=mnist"], ["model=convnet", "data=mnist"]]
)
def test_the_onnx_graph_computes_what_the_network_does(
    tmp_path: Path, overrides: list[str]
) -> None:
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    kept = leave(tmp_path / "t00003", overrides, INPUT)
    model = load(kept)
    spec = export(model, kept, tmp_path / "out", formats=["onnx"])
    run = onnx_runner(tmp_path / "out/model.onnx")
    generator = torch.Generator().manual_seed(1)
    assert model.net is not None
    for size in (1, 3, 64):  # one, and numbers that the export has not looked at
        x = torch.randn(size, 1, 28, 28, generator=generator)
        with torch.inference_mode():
            expected = model.net(x)
        assert expected.std() > 1e-3
        torch.testing.assert_close(run(x), expected, rtol=0, atol=1e-5)
    assert set(spec["made_with"]) == {"dlsearch", "torch", "onnx", "onnxscript", "onnxruntime"}
    np.save(
        tmp_path / "x.npy", np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    )
    for one, two in zip(
        rows(model, tmp_path / "x.npy"),
        rows(load_export(tmp_path / "out"), tmp_path / "x.npy"),
        strict=True,
    ):
        assert one["class"] == two["class"]
        assert one["probability"] == pytest.approx(two["probability"], abs=1e-5)
    assert str(Path.cwd()).encode() not in (tmp_path / "out/model.onnx").read_bytes()


def test_onnx_without_its_packages_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"onnx needs onnx and onnxscript and onnxruntime \(hint: pip install"
    ):
        check_formats(["torch", "onnx"])
    check_formats(["torch"])


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").touch()
    with pytest.raises(ConfigError, match=r"model\.pt2 is there already.*--force"):
        check_out(tmp_path, ["torch"], force=False)
    check_out(tmp_path, ["torch"], force=True)
    check_out(tmp_path, ["onnx"], force=False)
    with pytest.raises(ConfigError, match="is no folder"):
        check_out(tmp_path / "model.pt2", ["torch"], force=True)


def test_an_export_that_computes_something_else_is_not_written(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dlsearch.inference import export as exports

    def disturbed(path: Path) -> Any:
        run = load_program(path)
        return lambda x: run(x) + 1e-3

    monkeypatch.setattr(exports, "load_program", disturbed)
    with pytest.raises(ConfigError, match=r"torch differs from the network by 0\.001"):
        export(load(kept), kept, tmp_path / "out", formats=["torch"])
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_a_file_that_was_changed_is_not_used(kept: Kept, tmp_path: Path) -> None:
    export(load(kept), kept, tmp_path / "out", formats=["torch"])
    with (tmp_path / "out/model.pt2").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ConfigError, match=r"is not the file that model\.json describes"):
        load_export(tmp_path / "out")
    (tmp_path / "out/model.json").write_text("{}")
    with pytest.raises(ConfigError, match="is no model that dlsearch exported"):
        load_export(tmp_path / "out")


class Evil:
    """Pickled, it leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize(
    "where", ["data/constants/custom_obj_0", "data/weights/model.pt", "data/weights/weight_0"]
)
def test_an_archive_that_would_be_unpickled_is_refused(tmp_path: Path, where: str) -> None:
    good, bad, trace = tmp_path / "good.pt2", tmp_path / "bad.pt2", tmp_path / "unpickled"
    save_program(make_program(nn.Linear(3, 2), torch.zeros(2, 3)), good)
    payload = pickle.dumps({"x": Evil(trace)})
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(bad, "w") as new:
        names = old.namelist()
        root = names[0].split("/")[0]
        for name in names:
            content = old.read(name)
            if name.endswith("model_weights_config.json") and where.endswith("weight_0"):
                config = json.loads(content)
                for entry in config["config"].values():
                    entry["use_pickle"] = True
                content = json.dumps(config).encode()
            new.writestr(name, payload if name == f"{root}/{where}" else content)
        if f"{root}/{where}" not in names:
            new.writestr(f"{root}/{where}", payload)
    check(good)
    with pytest.raises(ConfigError):
        load_program(bad)
    assert not trace.exists()


def test_a_network_that_knows_one_batch_size_is_refused() -> None:
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(2, 3)

    with pytest.raises(ConfigError, match="cannot trace this network for any batch size"):
        make_program(Fixed(), torch.zeros(2, 3))


def test_a_checkpoint_that_does_not_fit_is_one_line(tmp_path: Path) -> None:
    kept = leave(tmp_path / "a", ["model=lenet", "data=mnist"], INPUT)
    other = leave(tmp_path / "b", ["model=linear", "data=mnist"], INPUT)
    with pytest.raises(ConfigError, match="the checkpoint does not fit the network"):
        load(Kept("x", "trial", 3, kept.config, other.checkpoint, {}))
    other.checkpoint.write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="cannot be read as a checkpoint"):
        load(other)


def test_a_checkpoint_without_an_input_takes_what_its_config_says(tmp_path: Path) -> None:
    model = load(leave(tmp_path / "a", ["model=linear", "data=mnist"], None))
    assert model.input == {
        "kind": "image",
        "shape": [1, 28, 28],
        "mean": [0.1307],
        "std": [0.3081],
        "classes": [],
    }
    assert model.output["names"] == list("0123456789")
    unknown = load(leave(tmp_path / "b", ["model=linear", "data=digits"], None))
    assert unknown.input["kind"] == "tensor"


class Sorting(pl.LightningModule):
    """A task that is no class of ours, and says what kind it is when it is made."""

    def __init__(self, net: nn.Module, kind: str | None = None) -> None:
        super().__init__()
        self.net = net
        if kind is not None:
            self.kind = kind


@pytest.mark.parametrize(
    ("kind", "output"),
    [("classification", "classes"), ("regression", "numbers"), (None, "numbers")],
)
def test_a_foreign_task_has_classes_where_its_kind_is_classification(
    tmp_path: Path, kind: str | None, output: str
) -> None:
    kept = leave(tmp_path / "a", ["model=linear", "data=mnist"], None)
    cfg = OmegaConf.load(kept.config)
    cfg.task = {"_target_": f"{__name__}.Sorting", "net": cfg.model, "kind": kind}
    OmegaConf.save(cfg, kept.config)
    model = load(kept)
    assert model.output["kind"] == output
    if output == "classes":
        np.save(tmp_path / "x.npy", np.zeros((28, 28), dtype=np.uint8))
        (row,) = rows(model, tmp_path / "x.npy", top=10)
        assert {each["class"] for each in row["top"]} == set("0123456789")


def test_scores_of_a_hinge_loss_are_not_called_probabilities(tmp_path: Path) -> None:
    model = load(leave(tmp_path / "a", ["model=linear", "data=mnist", "task.loss=hinge"], INPUT))
    np.save(tmp_path / "x.npy", np.zeros((28, 28), dtype=np.uint8))
    (row,) = rows(model, tmp_path / "x.npy")
    assert "score" in row
    assert "probability" not in row


def test_a_regression_is_in_units_of_its_target(tmp_path: Path) -> None:
    spec: dict[str, Any] = {
        "kind": "table",
        "shape": [10],
        "columns": [f"c{i}" for i in range(10)],
        "classes": [],
    }
    spec |= {
        "mean": [0.0] * 10,
        "std": [1.0] * 10,
        "targets": [{"name": "y", "mean": 150.0, "std": 70.0}],
    }
    words = ["model=linear", "data=diabetes", "task=regression", "space=none"]
    model = load(leave(tmp_path / "a", words, spec))
    np.save(tmp_path / "x.npy", np.ones((2, 10), dtype=np.float32))
    assert model.net is not None
    with torch.no_grad():
        raw = float(model.net(torch.ones(1, 10)))
    assert [r["values"]["y"] for r in rows(model, tmp_path / "x.npy")] == pytest.approx(
        [150 + 70 * raw] * 2, abs=1e-3
    )


def test_predictions_average_over_the_views_that_the_model_was_validated_with(
    tmp_path: Path,
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    np.save(tmp_path / "some.npy", images)
    overrides = ["model=lenet", "data=mnist", "task.test_time.flip=true"]
    kept = leave(tmp_path / "t00001", overrides, INPUT)
    model = load(kept)
    assert model.net is not None
    x = torch.from_numpy((images[:, None] / np.float32(255) - np.float32(0.13)) / np.float32(0.31))
    with torch.no_grad():
        one, mirrored = (model.net(view).double().softmax(1) for view in (x, x.flip(-1)))
    found = rows(model, tmp_path / "some.npy", top=10)
    for row, expected in zip(found, ((one + mirrored) / 2).tolist(), strict=True):
        assert {each["index"]: each["probability"] for each in row["top"]} == pytest.approx(
            dict(enumerate(expected)), abs=1e-6
        )
    export(model, kept, tmp_path / "out", formats=["torch"])
    again = load_export(tmp_path / "out")
    assert [row["class"] for row in rows(again, tmp_path / "some.npy")] == [
        row["class"] for row in found
    ]
    assert again.views["flip"] is True
    alone = looking(again, {**again.views, "flip": False})
    assert rows(alone, tmp_path / "some.npy")[0]["probability"] == pytest.approx(
        float(one[0].max()), abs=1e-5
    )
    with pytest.raises(ConfigError, match=r"task\.test_time: crops: expected one of"):
        looking(model, {"crops": 7})
