"""Logs trained networks as MLflow models, in a process of its own: torch and mlflow together are large.

The shipper starts it when a journal names a model, gives it one job a line, and closes it when there are no more. The
network is rebuilt from its config and a checkpoint that is loaded without unpickling objects, and exported as a graph
(``pt2``): whoever loads it needs neither dlsearch nor trust.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from dlsearch.tracking.masking import MaskedStream, learn_environment

_JOB_TIMEOUT_S = 600.0
_IDLE_S = 20.0


class ModelProcess:
    """The shipper's hold on that process.

    Args:
        uri: Where models are logged.
        log: Where the process says what went wrong.
    """

    def __init__(self, uri: str, log: Path) -> None:
        """Start nothing."""
        self._uri, self._log = uri, log
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._answers: dict[int, dict[str, Any]] = {}
        self._deadlines: dict[int, float] = {}
        self._count = 0
        self._idle_since = 0.0

    def submit(self, job: dict[str, Any]) -> int:
        """Queue a job; its number."""
        self._count += 1
        self._deadlines[self._count] = time.monotonic() + _JOB_TIMEOUT_S * (1 + len(self._deadlines))
        if self._process is None or self._process.poll() is not None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(OSError):  # it died at once: `answer` notices
            self._process.stdin.write(json.dumps({**job, "job": self._count}) + "\n")
            self._process.stdin.flush()
        return self._count

    def answer(self, number: int) -> dict[str, Any] | None:
        """``{"model_id": …}`` or ``{"error": …}``; None while it is at work."""
        process = self._process
        if number not in self._answers:
            if process is not None and process.poll() is not None:
                if self._reader is not None:
                    self._reader.join(5.0)
                self._answers.setdefault(number, {"error": f"the process that logs models died ({process.returncode})"})
            elif time.monotonic() > self._deadlines[number]:
                self.close()
                self._answers[number] = {"error": f"not done after {_JOB_TIMEOUT_S:.0f} s"}
            else:
                return None
        self._deadlines.pop(number, None)
        self._idle_since = time.monotonic()
        return self._answers.pop(number)

    @property
    def busy(self) -> bool:
        """Whether it is at work."""
        return bool(self._deadlines)

    def rest(self) -> None:
        """End the process when it has had nothing to do for a while; models of a study come one after the other."""
        if self._process is not None and not self._deadlines and time.monotonic() - self._idle_since > _IDLE_S:
            self.close()

    def close(self) -> None:
        """End it: by itself when it has nothing to do, by force otherwise."""
        process, self._process = self._process, None
        if process is None:
            return
        if self._deadlines:
            process.kill()
        if process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._reader is not None:
            self._reader.join(5.0)

    def _start(self) -> None:
        environment = {"MLFLOW_TRACKING_URI": self._uri, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dlsearch.tracking.model"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **environment},
            )
        self._reader = threading.Thread(target=self._read, args=(self._process,), name="models", daemon=True)
        self._reader.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                with suppress(ValueError):
                    answer = json.loads(line)
                    self._answers[answer.pop("job")] = answer


def load_net(config: Path, checkpoint: Path) -> tuple[Any, Any]:
    """The trained network, in evaluation mode on the CPU, and the config that it was built from.

    It is ``task.net`` where the task has one, and the LightningModule itself otherwise.
    """
    import torch
    from omegaconf import OmegaConf

    from dlsearch.config.build import build
    from dlsearch.tracking.checksum import check

    check(checkpoint)
    cfg = OmegaConf.load(config)
    extra = list(OmegaConf.select(cfg, "allow_targets") or [])
    task = build(OmegaConf.select(cfg, "task"), "task", extra=extra)
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    task.load_state_dict(state["state_dict"])
    net = getattr(task, "net", None)
    return (net if isinstance(net, torch.nn.Module) else task).eval(), cfg


def input_of(checkpoint: Path) -> dict[str, Any]:
    """How an input is made, as the data module put it into the checkpoint; empty where it put nothing."""
    import torch

    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    found = [v["input"] for v in saved.values() if isinstance(v, dict) and isinstance(v.get("input"), dict)]
    return dict(found[0]) if found else {}


def example_input(task: Any, cfg: Any) -> Any:
    """Two inputs for the network, as an array: the module's own example, an image of the data's shape, or a batch."""
    import numpy as np
    import torch
    from omegaconf import OmegaConf

    from dlsearch.config.build import build

    own = getattr(task, "example_input_array", None)
    if isinstance(own, torch.Tensor):
        return np.concatenate([own.detach().cpu().numpy()] * 2)[: max(2, len(own))]
    shape = OmegaConf.select(cfg, "data.shape", default=None)
    if shape is not None and len(shape) == 3:
        return np.random.default_rng(0).random((2, *shape), dtype=np.float32)
    data = build(cfg.data, "data", extra=list(OmegaConf.select(cfg, "allow_targets") or []))
    data.prepare_data()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    inputs = batch[0] if isinstance(batch, (list, tuple)) else batch
    return inputs[:2].detach().cpu().numpy()


def log_model(job: dict[str, Any]) -> str:
    """Log one network to the run that trained it; the id of the model.

    Args:
        job: ``run_id experiment_id config checkpoint name metrics t``.
    """
    import mlflow
    import mlflow.pytorch
    import torch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    client = mlflow.MlflowClient()
    known = client.search_logged_models([job["experiment_id"]], f"source_run_id = '{job['run_id']}'")
    for model in known:  # this shipper's predecessor was killed after it had done this
        if model.name == job["name"]:
            if str(model.status).endswith("READY"):
                return str(model.model_id)
            client.delete_logged_model(model.model_id)  # begun, and cut off
    torch.set_num_threads(1)
    net, cfg = load_net(Path(job["config"]), Path(job["checkpoint"]))
    inputs = example_input(net, cfg)
    with torch.no_grad():
        outputs = net(torch.from_numpy(inputs))
    if not isinstance(outputs, torch.Tensor):
        raise TypeError(f"a network with one tensor as its output is needed, this one gives {type(outputs).__name__}")
    array = outputs.numpy()
    signature = ModelSignature(
        Schema([TensorSpec(inputs.dtype, (-1, *inputs.shape[1:]))]),
        Schema([TensorSpec(array.dtype, (-1, *array.shape[1:]))]),
    )
    requirements = [f"{name}=={_version(name)}" for name in ("mlflow", "torch", "numpy")]
    mlflow.set_experiment(experiment_id=job["experiment_id"])  # the run's; `run_id` alone puts it into the default one
    info = mlflow.pytorch.log_model(
        net,
        name=job["name"],
        run_id=job["run_id"],  # without it mlflow wants an active run, and would overwrite its status
        serialization_format="pt2",
        signature=signature,
        input_example=inputs,
        pip_requirements=requirements,
        metadata={"input": spec} if (spec := input_of(Path(job["checkpoint"]))) else None,
    )
    metrics = _metrics_of(client, job, info.model_id)
    if metrics:
        client.log_batch(job["run_id"], metrics=metrics, synchronous=True)
    return str(info.model_id)


def _metrics_of(client: Any, job: dict[str, Any], model_id: str) -> list[Any]:
    """The job's metrics, or the run's best and test scores, as the model's: same step, same time, linked."""
    from mlflow.entities import Metric

    scores = client.get_run(job["run_id"]).data.metrics
    named = job["metrics"] or {key: value for key, value in scores.items() if key.startswith(("best/", "test/"))}
    found = []
    for key, value in named.items():
        last = client.get_metric_history(job["run_id"], key)[-1:] if key in scores else []
        when, step = (last[0].timestamp, last[0].step) if last else (job["t"], 0)
        found.append(Metric(key, float(value), when, step, model_id=model_id, run_id=job["run_id"]))
    return found


def is_outage(error: BaseException) -> bool:
    """Whether it is the server that failed, or the way to it, so that the same job may succeed later."""
    from requests.exceptions import ConnectionError as Unreachable
    from requests.exceptions import HTTPError, RetryError, Timeout

    if isinstance(error, HTTPError):
        return error.response is not None and error.response.status_code >= 500
    if isinstance(error, (Unreachable, RetryError, Timeout)):
        return True
    code = getattr(error, "error_code", None)
    return code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE") and "http" in str(error).lower()


def _version(name: str) -> str:
    from importlib.metadata import version

    return version(name)


def main() -> int:
    """Do the jobs that arrive on standard input; answer on standard output."""
    import logging
    import warnings

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a user's module prints goes to the log, masked
    learn_environment()
    sys.stdout, sys.stderr = MaskedStream(sys.stdout), MaskedStream(sys.stderr)
    warnings.simplefilter("ignore")
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    for line in sys.stdin:
        job = json.loads(line)
        answer: dict[str, Any] = {"job": job["job"]}
        try:
            answer["model_id"] = log_model(job)
        except Exception as error:
            first = (str(error).splitlines() or [""])[0][:500]
            answer["error"] = f"{type(error).__name__}: {first}"
            answer["retry"] = is_outage(error)
            logging.getLogger("dlsearch.shipper").warning("model", exc_info=True)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
