"""Every name that tracking writes, from tags and metrics to folders and states.

Programs that read runs import their names from here. Nothing heavy is imported.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from dlsearch.core.types import Params

SCHEMA_VERSION = "1"

# -- tags
SCHEMA = "dlsearch.schema"
KIND = "dlsearch.kind"
# of the journal that a run was shipped from; finds the run again after a crash
KEY = "dlsearch.key"
STUDY_NAME = "dlsearch.study.name"
STUDY_UUID = "dlsearch.study.uuid"
STUDY_DIRECTION = "dlsearch.study.direction"
STUDY_OBJECTIVE = "dlsearch.study.objective"
STUDY_SAMPLER = "dlsearch.study.sampler"
STUDY_PRUNER = "dlsearch.study.pruner"
STUDY_SEED = "dlsearch.study.seed"
SHA_PREFIX = "dlsearch.sha."
TRIAL_NUMBER = "dlsearch.trial.number"
TRIAL_STATE = "dlsearch.trial.state"
TRIAL_ATTEMPT = "dlsearch.trial.attempt"
TRIAL_RETRY_OF = "dlsearch.trial.retry_of"
TRIAL_FAIL_REASON = "dlsearch.trial.fail_reason"
TRIAL_FAIL_CAUSE = "dlsearch.trial.fail_cause"
WORKER_ID = "dlsearch.worker.id"
WORKER_HOST = "dlsearch.worker.host"
WORKER_GPU = "dlsearch.worker.gpu_uuid"
BEST = "dlsearch.best"
BEST_TRIAL = "dlsearch.best.trial"
REPLICA_ROUND = "dlsearch.confirm.round"
REPLICA_NUMBER = "dlsearch.confirm.replica"
REPLICA_SEED = "dlsearch.confirm.seed"
REPLICA_DEFAULT = "dlsearch.confirm.default"
REPLICA_REFIT = "dlsearch.confirm.refit"
REPLICA_KEPT = "dlsearch.confirm.kept"
WINNER = "dlsearch.winner"  # of a study's or a confirmation's run: the trial that won, or "default"
TEST_EVALUATED = "dlsearch.test_evaluated"
MODEL_ID = "dlsearch.model.id"
MODEL_ERROR = "dlsearch.model.error"
TRACKING_WARNING = "dlsearch.tracking.warning"

#: In the folder of a training: what MLflow gets of its net, as
#: :mod:`dlsearch.training.state.portable` writes it.
MODEL_FOLDER = "model"
MODEL_ABOUT = "model.json"
MODEL_PROGRAM = "model.pt2"

KINDS = ("study", "trial", "confirm", "replicate", "train", "ensemble")

# -- params and metrics
SEARCHED_PREFIX = "hp/"
FIXED_PREFIX = "cfg/"
OBJECTIVE = "objective"
BEST_OBJECTIVE = "best/objective"
BEST_STEP = "best/step"
BEST_EPOCH = "best/epoch"
BEST_PREFIX = "best/"
FINAL_PREFIX = "final/"
EPOCH = "epoch"
EPOCH_SECONDS = "time/epoch_s"
DATA_WAIT_SECONDS = "time/data_wait_s"
TOTAL_SECONDS = "time/total_s"
N_PARAMS = "model/n_params"
GPU_PEAK_MB = "gpu/peak_mem_mb"
DEVICE_HOURS = "compute/device_hours"
THROUGHPUT = "throughput/trials_per_h"
COUNT_PREFIX = "n/"
SYSTEM_PREFIX = "system/"

# -- artifacts
STUDY_ARTIFACTS = "study"
ENV_ARTIFACTS = "study/env"
CODE_ARTIFACTS = "study/code"
REPORT_ARTIFACTS = "report"
LOG_ARTIFACTS = "logs"
ERROR_ARTIFACTS = "error"
CHECKPOINT_ARTIFACTS = "ckpt"
LONG_VALUES = "long"  # whole values of params and tags that are too long for MLflow

# -- MLflow's limits
MAX_METRICS = 1000
MAX_PARAMS = 100
MAX_TAGS = 100
MAX_PARAM = 6000
MAX_TAG = 5000
MAX_KEY = 250
MAX_DIGEST = 36
MAX_BATCH_BYTES = 800_000

FINISHED = "FINISHED"
KILLED = "KILLED"
FAILED = "FAILED"
SCHEDULED = "SCHEDULED"
RUNNING = "RUNNING"
_STATUS = {
    "complete": FINISHED,
    "finished": FINISHED,
    "pruned": KILLED,
    "interrupted": KILLED,
    "fail": FAILED,
    "failed": FAILED,
    "lost": FAILED,
    "waiting": SCHEDULED,
    "running": RUNNING,
}


def status_of(state: str) -> str:
    """MLflow's status for a state of ours or of Optuna's.

    The exact state belongs into the tag `TRIAL_STATE`.
    """
    return _STATUS[state.lower()]


# -- experiments, runs, folders
def experiment_name(project: str, task: str) -> str:
    """The experiment of one data set and objective family: ``dlsearch/<project>/<task>``."""
    return f"dlsearch/{project}/{task}"


def study_run_name(study: str) -> str:
    """The name of a study's own run."""
    return f"study:{study}"


def confirm_run_name(study: str) -> str:
    """The name of the run that holds a study's seed replicates."""
    return f"confirm:{study}"


def ensemble_run_name(study: str) -> str:
    """The name of the run of a study's ensemble."""
    return f"ensemble:{study}"


def run_name(study: str, number: int, attempt: int = 1) -> str:
    """The name of one attempt's run: ``nightly/t00042``, ``nightly/t00042.a2``."""
    return f"{study}/t{number:05d}{_of_attempt(attempt)}"


def replica_name(number: int, trial: int | None, replica: int) -> str:
    """What a replica is called in round `number`.

    ``r1-t00042-s0``, and without a trial ``r1-default-s0``.
    """
    return f"r{number}-{'default' if trial is None else f't{trial:05d}'}-s{replica}"


def replica_run_name(study: str, name: str, attempt: int = 1) -> str:
    """The name of one attempt's run in the confirmation: ``nightly/confirm/r1-t00042-s0``."""
    return f"{study}/confirm/{name}{_of_attempt(attempt)}"


def _of_attempt(attempt: int) -> str:
    return f".a{attempt}" if attempt > 1 else ""


#: Folders of a store below which trainings have their own.
FOLDERS_OF_TRAININGS = ("studies", "runs", "cache", "weights")


def study_folder(study: str) -> str:
    """A study's folder, relative to the store."""
    return f"studies/{study}"


def pending_folder(study: str) -> str:
    """Where workers keep results that the database did not take, relative to the store."""
    return f"{study_folder(study)}/unwritten"


def trial_folder(study: str, number: int) -> str:
    """A trial's folder, relative to the store."""
    return f"{study_folder(study)}/t{number:05d}"


def confirm_folder(study: str, name: str = "") -> str:
    """The folder of a study's confirmation, or of something in it, relative to the store."""
    return f"{study_folder(study)}/confirm{f'/{name}' if name else ''}"


# -- weights
#: The best weights of a training, and, as earlier versions kept them, the checkpoint with them.
WEIGHTS = "best.safetensors"
CHECKPOINT = "best.ckpt"
#: Which checkpoints of a training are this user's own; see
#: :mod:`dlsearch.training.state.resume_record`.
RESUME_RECORD = "resume.json"


def weights_beside(checkpoint: Path) -> Path:
    """The file of weights that a record's name of a best checkpoint stands for.

    A study of an earlier version has its weights in the checkpoint alone.
    """
    weights = checkpoint.with_name(WEIGHTS)
    if checkpoint.name == CHECKPOINT and weights.is_file():
        return weights
    return checkpoint


# -- keys and values
def key(name: str) -> str:
    r"""`name` as MLflow takes it.

    MLflow has a charset, ``[/\w.\- :]``, rules for paths (no ``//``, no ``..``) and a limit of 250
    characters.
    """
    clean = re.sub(r"[^/\w.\- :]", "_", name)
    clean = "/".join(part for part in clean.split("/") if part not in ("", ".", "..")) or "_"
    if len(clean) > MAX_KEY:
        clean = f"{clean[: MAX_KEY - 13]}-{hashlib.sha256(clean.encode()).hexdigest()[:12]}"
    return clean


def text(value: Any) -> str:
    """A param's or tag's value as text, in the words of a config.

    ``true``, ``null`` and ``0.001``, for example, and JSON for the rest.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if value is None or isinstance(value, (bool, int, Mapping, list, tuple)):
        return json.dumps(value, default=str, ensure_ascii=False)
    return str(value)


def shorten(value: str, limit: int, where: str) -> str:
    """`value` in at most `limit` characters; what was cut is said, and `where` the whole stands."""
    if len(value) <= limit:
        return value
    note = f" … [{len(value)} characters; whole in {where}]"
    return value[: limit - len(note)] + note


def long_value_path(name: str) -> str:
    """The artifact that holds the whole of a param or tag that was shortened."""
    return f"{LONG_VALUES}/{key(name).replace('/', '.')}.txt"


def dataset_digest(digest: str) -> str:
    """A digest in MLflow's 36 characters."""
    return digest[:MAX_DIGEST]


def flatten_params(config: Mapping[str, Any], searched: Iterable[str]) -> Params:
    """The fixed part of a config as params: ``cfg/<flattened key>``, without what is `searched`."""
    left_out = set(searched)
    found: Params = {}

    def visit(prefix: str, node: Any) -> None:
        if prefix in left_out:
            return
        if isinstance(node, Mapping) and node:
            for name, value in node.items():
                visit(f"{prefix}.{name}" if prefix else str(name), value)
        elif prefix:
            found[f"{FIXED_PREFIX}{prefix}"] = node

    visit("", config)
    return found


def study_tags(document: Mapping[str, Any]) -> dict[str, str]:
    """The tags that every run of a study carries.

    Args:
        document: The study: ``name uuid directions objectives sampler pruner seed sha``.
    """
    tags = {
        STUDY_NAME: document["name"],
        STUDY_UUID: document["uuid"],
        STUDY_DIRECTION: ",".join(document["directions"]),
        STUDY_OBJECTIVE: ",".join(document["objectives"]),
        STUDY_SAMPLER: _target_name(document.get("sampler")),
        STUDY_PRUNER: _target_name(document.get("pruner")),
        STUDY_SEED: text(document.get("seed")),
    }
    tags |= {
        f"{SHA_PREFIX}{name}": str(value)
        for name, value in document.get("sha", {}).items()
        if value
    }
    return {name: value for name, value in tags.items() if value}


def _target_name(node: Any) -> str:
    if not node:
        return "none"
    if isinstance(node, Mapping):
        return str(node["_target_"]).rsplit(".", 1)[-1] if "_target_" in node else text(dict(node))
    return str(node)
