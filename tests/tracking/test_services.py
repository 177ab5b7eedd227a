"""Over HTTP: a server that is down, and comes up while rows wait; and the UI that serves it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from dlsearch.tracking.journal import Journal
from dlsearch.tracking.mlflow import ui
from dlsearch.tracking.mlflow.pump import Pump
from dlsearch.tracking.mlflow.shipper import Sender, sync
from tests.tracking.test_shipper import check_complete


def get(url: str, body: bytes | None = None, **headers: str) -> int:
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, body, headers), timeout=60
        ) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


@pytest.mark.slow
@pytest.mark.storm
def test_rows_wait_for_a_server_that_is_down(
    store: Path, uri: str, write: Callable[..., Path]
) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = f"sqlite:///{store / 'dlsearch.db'}"
    optuna.create_study(study_name="s", storage=storage)
    write(trials=2)
    port, optuna_port = ui.free_port(0), ui.free_port(0)
    address = f"http://127.0.0.1:{port}"
    pump = Pump(store, Sender(store, address))
    started = time.monotonic()
    assert pump.round(full=True) == 0
    assert pump.failing
    assert time.monotonic() - started < 60  # mlflow's own retries take four minutes
    assert sync(store, address, timeout_s=2)["pending"] == 3

    code = (
        "import sys; from pathlib import Path; from dlsearch.tracking.mlflow.ui import serve; "
        "s, u, t, m, o = sys.argv[1:]; "
        "sys.exit(serve(Path(s), u, t, mlflow_port=int(m), optuna_port=int(o)))"
    )
    command = [sys.executable, "-c", code, str(store), storage, uri, str(port), str(optuna_port)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert [process.stdout.readline().split()[-1] for _ in range(2)] == [
                address,
                f"http://127.0.0.1:{optuna_port}",
            ]
            deadline = time.monotonic() + 60
            while not pump.idle and time.monotonic() < deadline:
                pump.round(full=True)
                time.sleep(0.1)
            import mlflow

            check_complete(mlflow.MlflowClient(uri), 2, 5)
            assert get(f"{address}/") == 200
            assert get(f"{address}/", Host="evil.example") == 403
            change = "/api/2.0/mlflow/experiments/create"
            assert get(f"{address}{change}", b"{}", Origin="http://evil.example") == 403
            assert get(f"{address}{change}", b"{}", Origin="null") == 403
            assert get(f"http://127.0.0.1:{optuna_port}/dashboard") == 200
            assert get(f"http://127.0.0.1:{optuna_port}/api/studies", Host="evil.example") == 403
            assert ui.free_port(port) != port  # another one finds the ports taken and takes others
        finally:
            os.kill(process.pid, signal.SIGINT)
            _, errors = process.communicate(timeout=90)
    assert process.returncode == 0
    assert errors == ""
    with pytest.raises(urllib.error.URLError):
        get(f"{address}/")


@pytest.mark.slow
def test_a_server_that_dies_is_reported_in_one_line(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from dlsearch.tracking.mlflow.ui import serve; "
        "sys.exit(serve(Path(sys.argv[1]), 'sqlite:////nowhere/at/all.db', 'http://127.0.0.1:9', "
        "mlflow_port=0, optuna_port=0))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "Optuna dashboard ended" in done.stderr
    assert done.stdout == ""


@pytest.mark.slow
def test_models_are_logged_as_graphs_and_nothing_is_built(
    store: Path, uri: str, tmp_path: Path
) -> None:
    import mlflow
    import pytorch_lightning as pl
    import torch
    from omegaconf import OmegaConf

    from dlsearch.training.state import portable

    class Plain(pl.LightningModule):
        """Itself the network; its input is not an image."""

        example_input_array = torch.zeros(1, 4)

        def __init__(self, width: int) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)

    class Wrapped(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Sequential(
                torch.nn.Flatten(), torch.nn.BatchNorm1d(12), torch.nn.Linear(12, 3)
            )

    class Odd(pl.LightningModule):
        example_input_array = torch.zeros(1, 4)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"a": x}

    class Data(pl.LightningDataModule):
        def state_dict(self) -> dict[str, object]:
            return {"input": {"kind": "image", "shape": [1, 3, 4]}}

    torch.manual_seed(0)
    cfg = OmegaConf.create({"data": {"shape": [1, 3, 4]}})
    modules = {
        "plain": Plain(5),
        "wrapped": Wrapped(),
        "odd": Odd(),
        "absent": None,
        "older": None,
        "linked": None,
    }
    trace = tmp_path / "built"
    for name, module in modules.items():
        folder = store / "runs" / name
        folder.mkdir(parents=True)
        if module is not None:
            portable.write(module, Data(), cfg, folder)
        evil = f"import pathlib; pathlib.Path({str(trace)!r}).touch()"
        (folder / "evil_of_a_stranger.py").write_text(evil)
        (folder / "config.yaml").write_text(
            "task: {_target_: evil_of_a_stranger.X}\nallow_targets: [evil_of_a_stranger]\n"
        )
        with Journal(folder / "journal.jsonl") as journal:
            journal.open("train", name, "dlsearch/test/digits")
            journal.metrics({"test/accuracy": 0.75}, 9)
            if name == "older":
                old = {
                    "row": "model",
                    "t": 0,
                    "checkpoint": "config.yaml",
                    "config": "config.yaml",
                    "name": "x",
                    "metrics": {},
                }
                journal.flush()
                with journal.path.open("a") as file:  # as an earlier version wrote it
                    file.write(f"{json.dumps(old)}\n")
            else:
                journal.model(name, {})
            if name == "plain":
                journal.model(name, {})  # as after a kill: not a second one
            journal.status("FINISHED")
    (store / "runs/linked/model").symlink_to(store / "runs/plain/model")
    assert sync(store, uri)["pending"] == 0
    assert not trace.exists()
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("dlsearch/test/digits")
    assert experiment is not None
    tags = {
        run.info.run_name: run.data.tags for run in client.search_runs([experiment.experiment_id])
    }
    assert "dlsearch.model.id" in tags["plain"]
    assert "one tensor as its output" in tags["odd"]["dlsearch.model.error"]
    assert "earlier version" in tags["older"]["dlsearch.model.error"]
    for name in ("absent", "linked"):
        assert (
            "no description of the model lies beside its journal"
            in tags[name]["dlsearch.model.error"]
        )
    models = client.search_logged_models([experiment.experiment_id])
    assert sorted(model.name for model in models if str(model.status).endswith("READY")) == [
        "plain",
        "wrapped",
    ]
    logged = {model.name: model for model in models}
    for name, inputs in {"plain": torch.randn(7, 4), "wrapped": torch.randn(7, 1, 3, 4)}.items():
        model = logged[name]
        assert [(metric.key, metric.value, metric.step) for metric in model.metrics] == [
            ("test/accuracy", 0.75, 9)
        ]
        files = Path(model.artifact_location.removeprefix("file://"))
        assert not list(files.rglob("*.pkl")) + list(files.rglob("*.pth"))
        assert not (files / "data/model.pt2").is_symlink()
        module = modules[name].eval()  # type: ignore[union-attr]
        with torch.no_grad():
            expected = module(inputs) if name == "plain" else module.net(inputs)
        graph = torch.export.load(files / "data/model.pt2").module()
        # a batch of 7: the batch dimension is free
        assert torch.allclose(graph(inputs), expected, atol=1e-6)
        described = mlflow.models.Model.load(str(files))
        assert described.metadata == {"input": {"kind": "image", "shape": [1, 3, 4]}}
        assert described.get_input_schema().inputs[0].shape[0] == -1
        assert described.load_input_example(str(files)).shape[0] == 2
        assert set(described.flavors) == {"python_function", "pytorch"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # mlflow's, of mlflow
            served = mlflow.pyfunc.load_model(str(files)).predict(inputs.numpy())
        assert torch.allclose(torch.as_tensor(served), expected, atol=1e-6)
