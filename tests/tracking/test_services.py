"""Over HTTP: a server that is down, and comes up while rows wait; and the UI that serves it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from dlsearch.tracking import ui
from dlsearch.tracking.journal import Journal
from dlsearch.tracking.pump import Pump
from dlsearch.tracking.shipper import Sender, sync
from tests.tracking.test_shipper import check_complete


def get(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


@pytest.mark.slow
def test_rows_wait_for_a_server_that_is_down(store: Path, uri: str, write: Callable[..., Path]) -> None:
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
    assert time.monotonic() - started < 5  # mlflow's own retries take four minutes
    assert sync(store, address, timeout_s=2)["pending"] == 3

    code = (
        "import sys; from pathlib import Path; from dlsearch.tracking.ui import serve; s, u, t, m, o = sys.argv[1:]; "
        "sys.exit(serve(Path(s), u, t, mlflow_port=int(m), optuna_port=int(o)))"
    )
    command = [sys.executable, "-c", code, str(store), storage, uri, str(port), str(optuna_port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
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
            assert get(f"http://127.0.0.1:{optuna_port}/dashboard") == 200
            assert ui.free_port(port) != port  # another one finds the ports taken and takes others
        finally:
            os.kill(process.pid, signal.SIGINT)
            _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert errors == ""
    with pytest.raises(urllib.error.URLError):
        get(f"{address}/")


@pytest.mark.slow
def test_a_server_that_dies_is_reported_in_one_line(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from dlsearch.tracking.ui import serve; "
        "sys.exit(serve(Path(sys.argv[1]), 'sqlite:////nowhere/at/all.db', 'http://127.0.0.1:9', "
        "mlflow_port=0, optuna_port=0))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "Optuna dashboard ended" in done.stderr
    assert done.stdout == ""


NETS = '''
import pytorch_lightning as pl
import torch

class Plain(pl.LightningModule):
    """Itself the network; its input is not an image."""
    example_input_array = torch.zeros(1, 4)
    def __init__(self, width):
        super().__init__()
        self.layer = torch.nn.Linear(4, width)
    def forward(self, x):
        return self.layer(x)

class Wrapped(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(12), torch.nn.Linear(12, 3))

class Odd(pl.LightningModule):
    example_input_array = torch.zeros(1, 4)
    def forward(self, x):
        return {"a": x}
'''


@pytest.mark.slow
def test_models_are_logged_as_graphs(store: Path, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow
    import torch

    (tmp_path / "nets_of_user.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    import nets_of_user  # type: ignore[import-not-found]

    folder = store / "runs/r"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    modules = {"plain": nets_of_user.Plain(5), "wrapped": nets_of_user.Wrapped(), "odd": nets_of_user.Odd()}
    targets = {"plain": "Plain, width: 5", "wrapped": "Wrapped", "odd": "Odd"}
    with Journal(folder / "journal.jsonl") as journal:
        journal.open("train", "r", "dlsearch/test/digits")
        journal.metrics({"test/accuracy": 0.75}, 9)
        for name, module in modules.items():
            torch.save({"state_dict": module.state_dict()}, folder / f"{name}.ckpt")
            (folder / f"{name}.yaml").write_text(
                f"task: {{_target_: nets_of_user.{targets[name]}}}\n"
                "data: {_target_: x.Y, shape: [1, 3, 4]}\nallow_targets: [nets_of_user]\n"
            )
            journal.model(folder / f"{name}.ckpt", folder / f"{name}.yaml", name, {})
        journal.model(folder / "plain.ckpt", folder / "plain.yaml", "plain", {})  # as after a kill: not a second one
        journal.status("FINISHED")
    assert sync(store, uri)["pending"] == 0
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("dlsearch/test/digits")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert "dlsearch.model.id" in run.data.tags
    assert "one tensor as its output" in run.data.tags["dlsearch.model.error"]
    models = client.search_logged_models([experiment.experiment_id])
    assert sorted(model.name for model in models if str(model.status).endswith("READY")) == ["plain", "wrapped"]
    logged = {model.name: model for model in models}
    for name, inputs in {"plain": torch.randn(7, 4), "wrapped": torch.randn(7, 1, 3, 4)}.items():
        model = logged[name]
        assert str(model.status).endswith("READY")
        assert [(metric.key, metric.value, metric.step) for metric in model.metrics] == [("test/accuracy", 0.75, 9)]
        files = Path(model.artifact_location.removeprefix("file://"))
        assert (files / "data/model.pt2").is_file()
        assert not list(files.rglob("*.pkl")) + list(files.rglob("*.pth"))
        module = modules[name].eval()
        graph = torch.export.load(files / "data/model.pt2").module()
        expected = module(inputs) if name == "plain" else module.net(inputs)
        assert torch.allclose(graph(inputs), expected, atol=1e-6)  # a batch of 7: the batch dimension is free
