"""A tracking server that stops in the middle of a search, and what ``dlsearch sync`` does then, as it was printed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from contextlib import closing

import pytest

from dlsearch.tracking.mlflow import ui
from tests.e2e.running import TINY, until

# the command waits two minutes for a server that is away
pytestmark = [pytest.mark.storm, pytest.mark.timeout(420)]


class Server:
    """MLflow's own, on a port."""

    def __init__(self, folder):
        self.folder, self.port = folder, ui.free_port(0)
        self.address = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--port",
            str(self.port),
            "--workers",
            "1",
        ]
        command += ["--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}"]
        command += ["--artifacts-destination", str(self.folder / "art")]
        environment = {
            **os.environ,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PYTHONDONTWRITEBYTECODE": "",
        }
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        until(self._is_up, 120, 0.1)

    def _is_up(self):
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=30) as answer:
                return answer.status == 200
        except OSError:
            return False

    def stop(self):
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
            self.process = None

    def runs(self):
        with closing(sqlite3.connect(self.folder / "server.db")) as database:
            query = "SELECT t.value, r.status FROM runs r JOIN tags t USING (run_uuid) WHERE t.key = 'mlflow.runName'"
            return dict(database.execute(query))


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    server.start()
    yield server
    server.stop()


def test_after_an_outage_sync_ships_a_study_to_its_own_server(place, server):
    site = place("remote")
    words = [
        "study.name=s",
        "study.n_trials=4",
        "tracking.enabled=true",
        f"tracking.uri={server.address}",
    ]
    slow = [
        "trainer.max_epochs=40",
        "data.train_size=256",
        "hydra.launcher.workers=1",
        "callbacks=none",
    ]
    with site.running("-m", *TINY, *words, *slow) as process:
        until(lambda: "s/t00000" in server.runs(), 120, 0.1)
        server.stop()
        assert process.wait(300) == 0, site.log.read_text()
    said = site.log.read_text()
    assert "tracking: not everything has reached MLflow yet; dlsearch sync ships the rest" in said

    pending = site.run("sync", code=1, timeout=120)
    assert f"to {server.address}, " in pending
    assert "rows pending: " in pending
    assert not (site.store / "mlflow.db").exists(), "nothing went into a database of its own"

    server.start()
    shipped = site.run("sync", timeout=120)
    assert f"to {server.address}, 0 pending" in shipped
    assert server.runs() == {"study:s": "FINISHED"} | {
        f"s/t{number:05d}": "FINISHED" for number in range(4)
    }
    assert not (site.store / "mlflow.db").exists()
