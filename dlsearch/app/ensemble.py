"""The ensemble of a study: its trials, whether it has been scored, and its row in the ledger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from dlsearch.core.bounded import IN_DATABASE, load_yaml, parse_json
from dlsearch.core.errors import ConfigError
from dlsearch.core.files.inside import inside
from dlsearch.core.files.locks import exclusive_lock
from dlsearch.study.kept_model import kept_model
from dlsearch.study.trial_config import trial_config
from dlsearch.tracking import layout

if TYPE_CHECKING:
    from dlsearch.study.study import Study

KIND = "ensemble"


@dataclass(frozen=True)
class Member:
    """A trained net of a study.

    Args:
        name: ``trial 3``, or of what was kept ``kept model``.
        number: The trial; None where it is the default configuration, which no trial ran.
        value: Its objective in the search; of the kept model the mean over its replicas.
        config: What it was trained with, plain.
        checkpoint: Its weights.
        result: What its training said at its end: ``values``, ``best_epoch``, ``state_sha256`` and
            ``inputs``.
    """

    name: str
    number: int | None
    value: float | None
    config: dict[str, Any]
    checkpoint: Path
    result: Mapping[str, Any]


def members(
    study: Study,
    record: Mapping[str, Any],
    store: Path,
    paths: Mapping[str, str],
    top: int,
) -> tuple[list[Member], list[int]]:
    """The best trials whose checkpoints are in this store, and which better ones are not.

    Trials that took over another's result are that other's.

    Args:
        study: The open study.
        record: Its record.
        store: This machine's store.
        paths: This machine's ``paths``.
        top: How many.

    Raises:
        ConfigError: There are fewer.
    """
    sign = -1 if study.directions[0] == "maximize" else 1
    ended = [t for t in record["trials"] if t["state"] == "complete" and t["duplicate_of"] is None]
    ended = [t for t in ended if not t.get("infeasible")]
    found: list[Member] = []
    absent: list[int] = []
    for trial in sorted(ended, key=lambda t: (sign * t["value"], t["number"])):
        checkpoint = inside(
            store, f"{layout.trial_folder(study.name, trial['number'])}/ckpt/best.ckpt"
        )
        if len(found) == top:
            break
        if not checkpoint.is_file():
            absent.append(trial["number"])
            continue
        config = trial_config(
            study.document,
            trial["params"],
            seed=trial["seed"],
            paths=paths,
        )
        found.append(
            Member(
                f"trial {trial['number']}",
                trial["number"],
                trial["value"],
                config,
                checkpoint,
                trial,
            )
        )
    if len(found) < max(2, top):
        gone = (
            f"; checkpoints of trials {', '.join(map(str, absent))} are not in {store}"
            if absent
            else ""
        )
        raise ConfigError(
            "--top",
            f"expected at most {len(found)}, the trials of {study.name!r} that can take part{gone}",
        )
    return found, absent


def check(study: Study, record: Mapping[str, Any]) -> None:
    """Refuse a study that has no ensemble.

    Raises:
        ConfigError: It is not over, or has several objectives.
    """
    if len(study.directions) > 1:
        raise ConfigError(
            "NAME", f"{study.name!r} has several objectives, and no one ranking of its trials"
        )
    if record["study"]["state"] == "failed":
        raise ConfigError(
            "NAME", f"no trial of {study.name!r} completed", f"dlsearch status {study.name}"
        )
    if record["study"]["state"] != "complete":
        raise ConfigError(
            "NAME", f"{study.name!r} is not finished", f"dlsearch status {study.name}"
        )


def single(
    study: Study,
    record: Mapping[str, Any],
    store: Path,
    paths: Mapping[str, str],
    best: Member,
) -> Member:
    """What an ensemble is compared with: the model that the study kept, else its best trial's.

    Raises:
        ConfigError: The kept model is not in this store.
    """
    if not study.finalize:
        return best
    kept = kept_model(dict(record), store)
    config: Any = OmegaConf.to_container(load_yaml(kept.config), resolve=False)
    return Member(
        "kept model",
        kept.number,
        kept.about["objective"]["value"],
        {**config, "paths": dict(paths)},
        kept.checkpoint,
        _result_of_kept(record["finalization"]),
    )


def _result_of_kept(final: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the training of the kept model said at its end."""
    refit: Mapping[str, Any] = final.get("refit_run") or {}
    if refit.get("state") == "complete":
        return refit
    winner = next(each for each in final["configurations"] if each["winner"])
    found: Mapping[str, Any] = next(
        r for r in winner["replicas"] if r["replica"] == final["kept"]["replica"]
    )
    return found


def standing(record: Mapping[str, Any]) -> dict[str, Any]:
    """How far a study is: an ensemble is scored once for each."""
    final = record.get("finalization") or {}
    return {
        "round": final.get("round"),
        "trials": sum(t["state"] == "complete" for t in record["trials"]),
    }


def recorded(
    study: Study, record: Mapping[str, Any], asked: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The result of this ensemble, where it has been scored of the study as it is; else None.

    Args:
        study: The open study.
        record: Its record.
        asked: Settings: ``top`` and ``by``.

    Raises:
        ConfigError: Another ensemble has been scored: a second one would be chosen by the test set.
    """
    now = standing(record)
    for row in study.ledger.rows():
        if row["kind"] != KIND or not row["document"]:
            continue
        found = parse_json(row["document"], IN_DATABASE)["ensemble"]
        if found["standing"] != now:
            continue
        if found["asked"] == dict(asked):
            return {**found, "ledger_id": row["id"]}
        before = f"the top {found['asked']['top']} by {found['asked']['by']}"
        raise ConfigError(
            "NAME",
            f"the test set was opened for an ensemble of {study.name!r} already ({before}), "
            "and is opened for no other",
            "--validation compares ensembles without it",
        )
    return None


def document(
    found: Mapping[str, Any], record: Mapping[str, Any], asked: Mapping[str, Any]
) -> dict[str, Any]:
    """The ledger's document: the figures of the weights that validation chose, and all else."""
    figures = found["test"][found["chosen"]]
    prefix = "test/"
    return {
        "metrics": {f"{prefix}{name}": value for name, value in figures.items()},
        "n": found["test"]["n"],
        "value": found["validation"][found["chosen"]].get(found["objective"]),
        "ensemble": {**found, "asked": dict(asked), "standing": standing(record)},
    }


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Only one process scores an ensemble of a study; its death releases it.

    Raises:
        ConfigError: Another one does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    from filelock import Timeout

    lock = exclusive_lock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            "NAME", "another dlsearch ensemble of this study is at work", "wait for it"
        ) from None
    try:
        yield
    finally:
        lock.release()
