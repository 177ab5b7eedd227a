"""Logs trained networks as MLflow models, in a process of its own.

A large network takes a while to copy.

The shipper starts it when a journal names a model, gives it one job a line, and closes it when
there are no more. The network lies beside the journal as a graph (``pt2``) with a description:
:mod:`dlsearch.training.state.portable` wrote them where it was trained. Both are copied; nothing is
built, loaded or imported that a journal or a config names.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.console.streams import finish_output, put_in_place
from dlsearch.core.files.regular import open_to_append, read_json
from dlsearch.core.files.stored import NotStoredError, open_stored
from dlsearch.core.masking import learn_environment, mask_text
from dlsearch.tracking import layout

if TYPE_CHECKING:
    from dlsearch.core.types import JsonObject

_JOB_TIMEOUT_S = 600.0
_IDLE_S = 20.0
_EXAMPLE = "input_example.json"
_SERVING_EXAMPLE = "serving_input_example.json"


@dataclass(frozen=True)
class ModelJob:
    """A network that is to be logged.

    Args:
        run_id: MLflow's run that trained it.
        experiment_id: That run's experiment.
        folder: Where the network and its description lie.
        name: Of the model.
        metrics: What it scored; where there are none, the run's scores.
        t: When the journal asked for it, milliseconds.
    """

    run_id: str
    experiment_id: str
    folder: str
    name: str
    metrics: dict[str, float | str]
    t: int


@dataclass(frozen=True)
class ModelAnswer:
    """What came of a job.

    Args:
        model_id: MLflow's name for the model; None where it could not be logged.
        error: Why it could not, in one line.
        retry: Whether it may be possible later.
    """

    model_id: str | None = None
    error: str | None = None
    retry: bool = False


@dataclass(frozen=True)
class ArrayKind:
    """What an array that a network takes, or returns, is like.

    Args:
        shape: Its sizes; -1 for any.
        dtype: The type of its elements.
    """

    shape: list[int]
    dtype: str


@dataclass(frozen=True)
class Description:
    """What is known of a network without building it.

    Args:
        inputs: What it takes.
        outputs: What it returns.
        example: An input, as nested lists.
        input: Facts of the input that whoever predicts needs.
        torch: The version of torch that wrote it.
    """

    inputs: ArrayKind
    outputs: ArrayKind
    example: list[Any]
    input: JsonObject
    torch: str


class ModelProcess:
    """The shipper's hold on that process.

    Args:
        uri: Where models are logged.
        log: Where the process says what went wrong.
    """

    def __init__(self, uri: str, log: Path) -> None:
        """Start nothing."""
        self._uri = uri
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._answers: dict[int, ModelAnswer] = {}
        self._deadlines: dict[int, float] = {}
        self._count = 0
        self._idle_since = 0.0

    def submit(self, job: ModelJob) -> int:
        """Queue a job; its number."""
        self._count += 1
        jobs_before = len(self._deadlines)
        patience_s = _JOB_TIMEOUT_S * (1 + jobs_before)
        self._deadlines[self._count] = time.monotonic() + patience_s
        if self._process is None or self._process.poll() is not None:
            self._start_process()
        assert self._process is not None
        assert self._process.stdin is not None
        line = json.dumps({**vars(job), "job": self._count})
        with suppress(OSError):  # it died at once: `answer` notices
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        return self._count

    def answer(self, number: int) -> ModelAnswer | None:
        """What came of a job; None while it is at work."""
        process = self._process
        if number not in self._answers:
            if process is not None and process.poll() is not None:
                if self._reader is not None:
                    self._reader.join(5.0)
                died = f"the process that logs models died ({process.returncode})"
                self._answers.setdefault(number, ModelAnswer(error=died))
            elif time.monotonic() > self._deadlines[number]:
                self.close()
                late = f"not done after {_JOB_TIMEOUT_S:.0f} s"
                self._answers[number] = ModelAnswer(error=late)
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
        """End the process when it has had nothing to do for a while.

        Models of a study come one after the other.
        """
        if self._process is None or self._deadlines:
            return
        if time.monotonic() - self._idle_since > _IDLE_S:
            self.close()

    def close(self) -> None:
        """End it: by itself when it has nothing to do, by force otherwise."""
        process = self._process
        self._process = None
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

    def _start_process(self) -> None:
        environment = {"MLFLOW_TRACKING_URI": self._uri, "OMP_NUM_THREADS": "1"}
        with open_to_append(self._log, mode=0o666) as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "dlsearch.tracking.mlflow.model"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log.fileno(),
                text=True,
                env={**os.environ, **environment},
            )
        self._reader = threading.Thread(
            target=self._read_answers,
            args=(self._process,),
            name="models",
            daemon=True,
        )
        self._reader.start()

    def _read_answers(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                with suppress(ValueError):
                    answer = json.loads(line)
                    number = answer.pop("job")
                    self._answers[number] = ModelAnswer(**answer)


class NotDescribedError(ValueError):
    """What lies beside a journal is no description of a model."""


#: What arrays may hold.
_DTYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")


def description(folder: Path) -> Description:
    """What :mod:`dlsearch.training.state.portable` wrote of a net.

    Raises:
        NotDescribedError: It is not there, or is something else.
    """
    program = folder / layout.MODEL_PROGRAM
    about = folder / layout.MODEL_ABOUT
    is_link = any(path.is_symlink() for path in (folder, about, program))
    if is_link or not about.is_file():
        raise NotDescribedError("no description of the model lies beside its journal")
    found = read_json(about)
    if isinstance(found, dict) and isinstance(found.get("error"), str):
        raise NotDescribedError(found["error"])
    try:
        described = _check_description(found)
        open_stored(program).close()
    except (KeyError, TypeError, OSError, NotStoredError) as error:
        raise NotDescribedError(f"the description of the model is none: {error}") from error
    return described


def _check_description(found: Any) -> Description:
    """The description that plain JSON is.

    Raises:
        NotDescribedError: Something in it is of another kind.
        KeyError: Something is missing.
        TypeError: It is no mapping.
    """
    inputs = _check_array("inputs", found["inputs"])
    outputs = _check_array("outputs", found["outputs"])
    example = found["example"]
    if not isinstance(example, list) or not isinstance(found["input"], dict):
        raise NotDescribedError("the description of the model has no example")
    return Description(
        inputs,
        outputs,
        example,
        found["input"],
        str(found["torch"]),
    )


def _check_array(name: str, about: Any) -> ArrayKind:
    shape = about["shape"]
    dtype = about["dtype"]
    is_known = dtype in _DTYPES and bool(shape)
    if not is_known or not all(type(size) is int and size >= -1 for size in shape):
        raise NotDescribedError(f"the description of the model has no {name}")
    return ArrayKind(shape, dtype)


class _Flavor:
    """Writes the folder that ``mlflow.pytorch.save_model`` writes, from a graph that is there.

    Args:
        folder: Where it lies.
        about: Its :func:`description`.
    """

    def __init__(self, folder: Path, about: Description) -> None:
        """Write nothing."""
        self._folder = folder
        self._about = about

    def save_model(self, path: str, mlflow_model: Any, **_: Any) -> None:
        """Called by MLflow with the folder to write."""
        import shutil

        import yaml
        from mlflow import pyfunc
        from mlflow.models import ModelSignature
        from mlflow.types import Schema

        target = Path(path)
        about = self._about
        (target / "data").mkdir(parents=True)
        shutil.copyfile(self._folder / layout.MODEL_PROGRAM, target / "data" / layout.MODEL_PROGRAM)
        (target / _EXAMPLE).write_text(json.dumps(about.example))
        (target / _SERVING_EXAMPLE).write_text(json.dumps({"inputs": about.example}))
        requirements = [
            f"mlflow=={_version_of('mlflow')}",
            f"torch=={about.torch.partition('+')[0]}",
            f"numpy=={_version_of('numpy')}",
        ]
        python = platform.python_version()
        conda = {
            "name": "mlflow-env",
            "channels": ["conda-forge"],
            "dependencies": [f"python={python}", "pip", {"pip": requirements}],
        }
        environment = {
            "python": python,
            "build_dependencies": ["pip", "setuptools", "wheel"],
            "dependencies": ["-r requirements.txt"],
        }
        (target / "requirements.txt").write_text("\n".join(requirements))
        (target / "conda.yaml").write_text(yaml.safe_dump(conda, sort_keys=False))
        (target / "python_env.yaml").write_text(yaml.safe_dump(environment, sort_keys=False))
        inputs = Schema([_make_spec(about.inputs)])
        outputs = Schema([_make_spec(about.outputs)])
        mlflow_model.signature = ModelSignature(inputs, outputs)
        mlflow_model.saved_input_example_info = {
            "artifact_path": _EXAMPLE,
            "type": "ndarray",
            "serving_input_path": _SERVING_EXAMPLE,
        }
        mlflow_model.metadata = {"input": about.input} if about.input else None
        mlflow_model.add_flavor(
            "pytorch",
            model_data="data",
            pytorch_version=about.torch,
            code=None,
        )
        pyfunc.add_to_model(
            mlflow_model,
            loader_module="mlflow.pytorch",
            data="data",
            pickle_module_name="mlflow.pytorch.pickle_module",
            conda_env="conda.yaml",
            python_env="python_env.yaml",
            model_config={"device": None},
        )
        files = [each for each in target.rglob("*") if each.is_file()]
        mlflow_model.model_size_bytes = sum(each.stat().st_size for each in files)
        mlflow_model.save(str(target / "MLmodel"))


def _make_spec(about: ArrayKind) -> Any:
    import numpy as np
    from mlflow.types import TensorSpec

    return TensorSpec(np.dtype(about.dtype), tuple(about.shape))


def log_model(job: ModelJob) -> str:
    """Log one network to the run that trained it; the id of the model."""
    import mlflow
    from mlflow.models import Model

    about = description(Path(job.folder))
    client = mlflow.MlflowClient()
    known = client.search_logged_models([job.experiment_id], f"source_run_id = '{job.run_id}'")
    for model in known:  # this shipper's predecessor was killed after it had done this
        if model.name == job.name:
            if str(model.status).endswith("READY"):
                return str(model.model_id)
            client.delete_logged_model(model.model_id)  # begun, and cut off
    # the run's; `run_id` alone puts it into the default one
    mlflow.set_experiment(experiment_id=job.experiment_id)
    info = Model.log(
        artifact_path=None,
        flavor=_Flavor(Path(job.folder), about),
        flavor_name="mlflow.pytorch",
        name=job.name,
        # without it mlflow wants an active run, and would overwrite its status
        run_id=job.run_id,
        validate_serving_input=False,  # it would load the graph
    )
    metrics = _metrics_of(client, job, info.model_id)
    if metrics:
        client.log_batch(job.run_id, metrics=metrics, synchronous=True)
    return str(info.model_id)


def _metrics_of(client: Any, job: ModelJob, model_id: str) -> list[Any]:
    """The job's metrics, or the run's best and test scores, as the model's.

    They have the same step and the same time, and are linked.
    """
    from mlflow.entities import Metric

    scores = client.get_run(job.run_id).data.metrics
    named = job.metrics
    if not named:
        named = {key: scores[key] for key in scores if key.startswith(("best/", "test/"))}
    found = []
    for key, value in named.items():
        when_ms = job.t
        step = 0
        history = client.get_metric_history(job.run_id, key) if key in scores else []
        if history:
            when_ms = history[-1].timestamp
            step = history[-1].step
        metric = Metric(
            key,
            float(value),
            when_ms,
            step,
            model_id=model_id,
            run_id=job.run_id,
        )
        found.append(metric)
    return found


def is_outage(error: BaseException) -> bool:
    """Whether the server or the way to it failed, so that the same job may succeed later."""
    from requests.exceptions import ConnectionError as Unreachable
    from requests.exceptions import HTTPError, RetryError, Timeout

    if isinstance(error, HTTPError):
        return error.response is not None and error.response.status_code >= 500
    if isinstance(error, (Unreachable, RetryError, Timeout)):
        return True
    code = getattr(error, "error_code", None)
    return code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE") and "http" in str(error).lower()


def _version_of(name: str) -> str:
    from importlib.metadata import version

    return version(name)


def main() -> int:
    """Do the jobs that arrive on standard input; answer on standard output."""
    import logging
    import warnings

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever mlflow prints goes to the log, masked
    learn_environment()
    put_in_place()
    warnings.simplefilter("ignore")
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    for line in sys.stdin:
        fields = json.loads(line)
        number = fields.pop("job")
        try:
            answer = ModelAnswer(model_id=log_model(ModelJob(**fields)))
        except Exception as error:
            first = (str(error).splitlines() or [""])[0][:500]
            words = mask_text(f"{type(error).__name__}: {first}")
            answer = ModelAnswer(error=words, retry=is_outage(error))
            logging.getLogger("dlsearch.shipper").warning("model", exc_info=True)
        line_of_answer = json.dumps({"job": number, **vars(answer)})
        answers.write(f"{line_of_answer}\n")
        answers.flush()
    finish_output()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
