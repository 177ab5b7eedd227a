"""What pruning saves: epochs spent to reach the validation score of full-length random search, for each pruner.

    python benchmarks/pruning.py [--seeds 0,1,2,3,4] [--only lenet_mnist] [--curves FILE] [--verify
    hyperband,sha] [--train-size 12800] [--out FILE]

Full-length random search runs for real, once a study seed: `dlsearch -m experiment=lenet_mnist
sampler=random pruner=none`, 20 trials, none of them the default configuration. A trial is a
function of the study's seed and its number, so under random sampling a pruned trial's curve is the
beginning of its full-length curve, and a pruner can be replayed over the recorded curves without
training again: the pruner that dlsearch builds from its YAML, asked after every epoch through
Optuna as a worker asks it, two workers side by side in simulated time, in which an epoch takes as
long as it took. `--verify` runs the first seed again under a pruner for real, with one worker (so
that the order is the same), and ends with an error unless every trial's epochs, state and value
equal the replay's.

Seed noise is measured: the winner of each study is trained again under three other trial seeds. It
is the standard deviation of the difference between two trainings of one configuration, pooled over
the winners. A pruner has reached random search's score once a trial that it does not prune is no
more than that below it; it counts when the trial gets there, not when it ends. How far the winners
fall when they are trained again is said as well: the best of 20 scores is partly luck, and a search
that finds configurations as good need not have it.

The second case is made for pruning to lose: the search is over the peak of a one-cycle schedule
that rises for most of the training. The higher the peak, the better a trial looks while the rate is
still low, and the worse it ends.

`--curves FILE` keeps what was recorded; a run continues it, so that the costly part can be done
study by study. Epochs are counted, not seconds: the machine may be busy meanwhile.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine

Json = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A search.

    Args:
        title: Of its table.
        words: dlsearch's overrides.
        data: Its data set.
    """

    title: str
    words: tuple[str, ...]
    data: str


CASES = {
    "lenet_mnist": Case("LeNet-5 on MNIST, `experiment=lenet_mnist`", ("experiment=lenet_mnist",), "mnist"),
    "slow_starters": Case(
        "where pruning loses: the peak of a one-cycle schedule that rises for three quarters of the training",
        (
            "model=lenet", "data=digits", "scheduler=one_cycle", "scheduler.rise=0.75", "trainer.max_epochs=12",
            "study.n_trials=20", "optimizer.lr=tag(log, interval(1e-3, 1))",
        ),
        "digits",
    ),
}  # fmt: skip
PRUNERS: dict[str, tuple[str, ...]] = {
    "none": (),
    "hyperband": (),
    "sha": (),
    "median": (),
    "patient": (),
    "percentile": (),
    "wilcoxon": (),
    "threshold": ("pruner.lower=0.5",),
}
NOISE_SEEDS = (1001, 1002, 1003)


# -- recording -------------------------------------------------------------------------------------------------------
def search(case: Case, given: argparse.Namespace, name: str, *words: str, workers: int = 2) -> Json:
    """Run a study for real; its trials with their curves, from the storage."""
    from dlsearch.records.record import read_record
    from dlsearch.storage.database import Storage
    from dlsearch.study.study import Study

    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        store = Path(place, "store")
        command = [
            str(Path(sys.executable).with_name("dlsearch")), "-m", *case.words, f"study.name={name}", "sampler=random",
            "study.default_first=false", "study.finalize=false", "trainer.accelerator=cpu", "tracking.enabled=false",
            "worker.threads=1", f"hydra.launcher.workers={workers}", f"paths.store={store}",
            f"paths.data={Path(given.data).resolve()}", *words,
        ]  # fmt: skip
        if case.data == "mnist" and given.train_size:
            command.append(f"data.train_size={given.train_size}")
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(
                f"{' '.join(command)} ended with exit status {done.returncode}:\n{done.stderr[-4000:]}"
            )
        storage = Storage(f"sqlite:///{store / 'dlsearch.db'}")
        record = read_record(Study(storage, name)).to_json()
        storage.close()
    trials = []
    for trial in record["trials"]:
        if len(trial["attempts"]) != 1 or trial["duplicate_of"] is not None:
            raise SystemExit(f"{name}: trial {trial['number']} ran {len(trial['attempts'])} times")
        keys = ("number", "state", "params", "value", "epochs", "seconds")
        trials.append(
            {key: trial[key] for key in keys}
            | {"curve": [value for _, value in trial["intermediate"]]}
        )
    return {
        "name": name,
        "max_epochs": record["study"]["config"]["trainer"]["max_epochs"],
        "trials": trials,
    }


def record(
    label: str, case: Case, given: argparse.Namespace, seeds: Sequence[int], book: Book
) -> None:
    """The full-length studies of a case, and its winners under other seeds."""
    for seed in seeds:
        words = ("pruner=none", f"seed={seed}")
        book.get(
            f"{label}/{seed}",
            lambda words=words, seed=seed: search(case, given, f"{label}_{seed}", *words),
        )
    if given.record:
        return
    winners = [winner(book.get(f"{label}/{seed}"))["params"] for seed in seeds]
    for seed in NOISE_SEEDS:

        def again(seed: int = seed) -> Json:
            with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
                json.dump(winners, file)
                file.flush()
                words = (
                    f"study.enqueue={file.name}",
                    f"study.n_trials={len(winners)}",
                    "pruner=none",
                )
                return search(case, given, f"{label}_noise", *words, f"seed={seed}")

        book.get(f"{label}/{','.join(map(str, seeds))}/noise/{seed}", again)


class Book:
    """What was recorded, in a file where one is given."""

    def __init__(self, path: Path | None, settings: Json) -> None:
        self.path = path
        self.found: Json = {"settings": settings}
        if path is not None and path.is_file():
            self.found = json.loads(path.read_text())
            if self.found["settings"] != settings:
                raise SystemExit(
                    f"{path} was recorded with {self.found['settings']}, this is {settings}"
                )

    def get(self, key: str, make: Callable[[], Json] | None = None) -> Json:
        """The study `key`, recorded now where it is missing."""
        if key not in self.found:
            assert make is not None, key
            print(f"recording {key}", file=sys.stderr, flush=True)
            self.found[key] = make()
            if self.path is not None:
                self.path.write_text(json.dumps(self.found))
        return dict(self.found[key])


def winner(study: Json) -> Json:
    """The best trial of a recorded study."""
    return max(
        (t for t in study["trials"] if t["state"] == "complete"),
        key=lambda t: (t["value"], -t["number"]),
    )


def noise_of(studies: Sequence[Json]) -> float:
    """Standard deviation of the difference between two trainings of a configuration, pooled over configurations."""
    scores = zip(*([t["value"] for t in study["trials"]] for study in studies), strict=True)
    return (2 * statistics.fmean(statistics.variance(each) for each in scores)) ** 0.5


# -- replaying -------------------------------------------------------------------------------------------------------
@dataclass
class Replay:
    """A study under a pruner.

    Args:
        trials: State, epochs and value of each.
        seen: Epochs spent by all trials so far and the score just reported, for every report of a
            trial that was not pruned later.
    """

    trials: list[tuple[str, int, float | None]]
    seen: list[tuple[int, float]]

    @property
    def epochs(self) -> int:
        """Spent in all."""
        return sum(epochs for _, epochs, _ in self.trials)

    @property
    def best(self) -> float | None:
        """The best value of a trial that was not pruned; None where all were."""
        return max(
            (v for state, _, v in self.trials if state == "complete" and v is not None),
            default=None,
        )

    def until(self, score: float) -> int | None:
        """Epochs spent until `score` was reached."""
        return next((spent for spent, value in self.seen if value >= score), None)


def replay(study: Json, pruner: str, *, workers: int) -> Replay:
    """Run the recorded curves under a pruner."""
    import optuna

    from dlsearch.config.compose import compose_config, resolve
    from dlsearch.sampling.factory import build_pruner

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # the best trial stopped early: known
    warnings.filterwarnings("ignore", message="WilcoxonPruner finds steps")
    cfg = compose_config(
        [f"trainer.max_epochs={study['max_epochs']}", f"pruner={pruner}", *PRUNERS[pruner]]
    )
    made = build_pruner(
        resolve(cfg, "pruner"), max_epochs=study["max_epochs"], direction="maximize"
    )
    live = optuna.create_study(study_name=study["name"], direction="maximize", pruner=made)
    curves = study["trials"]
    ends: dict[int, tuple[str, int, float | None]] = {}
    reports: list[tuple[int, int, float]] = []  # trial, epochs spent by all, value
    running: dict[int, tuple[optuna.Trial, int]] = {}  # worker → trial, epochs done
    clock = [(0.0, worker) for worker in range(workers)]
    spent = 0
    while clock:
        now, worker = heapq.heappop(clock)
        if worker in running:  # one more epoch of its trial has ended
            trial, epoch = running.pop(worker)
            curve = curves[trial.number]
            spent += 1
            pruned = False
            if epoch < len(curve["curve"]):
                trial.report(curve["curve"][epoch], epoch)
                reports.append((trial.number, spent, curve["curve"][epoch]))
                pruned = trial.should_prune()
            if pruned:
                live.tell(trial, state=optuna.trial.TrialState.PRUNED)
                ends[trial.number] = ("pruned", epoch + 1, None)
            elif epoch + 1 < curve["epochs"]:
                running[worker] = (trial, epoch + 1)
            elif curve["state"] == "complete":
                live.tell(trial, curve["value"])
                ends[trial.number] = ("complete", epoch + 1, curve["value"])
            else:
                live.tell(trial, state=optuna.trial.TrialState.FAIL)
                ends[trial.number] = (curve["state"], epoch + 1, None)
        if worker not in running:
            if len(ends) + len(running) == len(curves):
                continue
            running[worker] = (live.ask(), 0)
        curve = curves[running[worker][0].number]
        heapq.heappush(clock, (now + curve["seconds"] / max(1, curve["epochs"]), worker))
    seen = [(spent, value) for number, spent, value in reports if ends[number][0] == "complete"]
    return Replay([ends[number] for number in range(len(curves))], seen)


def verify(
    label: str, case: Case, given: argparse.Namespace, seed: int, pruner: str, book: Book
) -> str:
    """Run a study under a pruner for real, and compare it with its replay."""
    full = book.get(f"{label}/{seed}")
    words = (f"pruner={pruner}", *PRUNERS[pruner], f"seed={seed}")
    real = book.get(
        f"{label}/{seed}/real/{pruner}",
        lambda: search(case, given, full["name"], *words, workers=1),
    )
    replayed = replay(full, pruner, workers=1)
    ran = [(t["state"], t["epochs"], t["value"]) for t in real["trials"]]
    if ran != replayed.trials:
        wrong = [
            f"{n}: {a}, replayed {b}"
            for n, (a, b) in enumerate(zip(ran, replayed.trials, strict=True))
            if a != b
        ]
        raise SystemExit(f"{label} under {pruner} differs from its replay: {'; '.join(wrong)}")
    for trial in real["trials"]:
        if trial["curve"] != full["trials"][trial["number"]]["curve"][: len(trial["curve"])]:
            raise SystemExit(
                f"trial {trial['number']} of {label} took another course under {pruner}"
            )
    best = "no trial left" if replayed.best is None else f"best {replayed.best:.4f}"
    return f"{pruner} on seed {seed}, one worker: {replayed.epochs} epochs, {best}"


# -- the tables ------------------------------------------------------------------------------------------------------
def report(label: str, case: Case, seeds: Sequence[int], book: Book) -> str:
    """A case's table and what is to be known about it."""
    studies = [book.get(f"{label}/{seed}") for seed in seeds]
    key = f"{label}/{','.join(map(str, seeds))}/noise"
    again = [book.get(f"{key}/{seed}") for seed in NOISE_SEEDS]
    noise = noise_of(again)
    found = {name: [replay(study, name, workers=2) for study in studies] for name in PRUNERS}
    rows = []
    for name, runs in found.items():
        scores = [winner(study)["value"] for study in studies]
        gaps = [
            run.best - score
            for run, score in zip(runs, scores, strict=True)
            if run.best is not None
        ]
        ends = [run.until(score - noise) for run, score in zip(runs, scores, strict=True)]
        whole = [none.epochs for none in found["none"]]
        ratios = [end / epochs for end, epochs in zip(ends, whole, strict=True) if end is not None]
        rows.append([
            " ".join((name, *(f"`{word}`" for word in PRUNERS[name]))),
            mean([run.epochs for run in runs], 0),
            mean([run.epochs / epochs for run, epochs in zip(runs, whole, strict=True)], 2),
            mean([run.best for run in runs if run.best is not None], 4),
            mean(gaps, 4, sign=True),
            f"{sum(gap >= -noise for gap in gaps)} of {len(runs)}",
            mean(ratios, 2),
        ])  # fmt: skip
    headings = [
        "pruner", "epochs", "× none's", "best validation accuracy", "less none's", "no more than seed noise below it",
        "reached after, × none's epochs",
    ]  # fmt: skip
    winners = [winner(study)["params"]["optimizer.lr"] for study in studies]
    drop = statistics.fmean(t["value"] for study in again for t in study["trials"])
    drop -= statistics.fmean(winner(study)["value"] for study in studies)
    notes = [
        f"Seed noise (standard deviation of the difference between two trainings of a winner): {noise:.4f}."
    ]
    notes.append(
        f"Trained again under {len(NOISE_SEEDS)} other seeds, none's winners score {drop:+.4f} on average."
    )
    for name, runs in found.items():
        if bare := sum(run.best is None for run in runs):
            notes.append(
                f"{name} left no trial on {bare} of {len(runs)} seeds, which the means leave out."
            )
    notes.append(f"Winners' learning rates: {', '.join(f'{lr:.2g}' for lr in winners)}.")
    return f"**{case.title}**\n\n{machine.table(headings, rows)}\n\n{' '.join(notes)}"


def mean(values: Sequence[float], digits: int, *, sign: bool = False) -> str:
    """``mean (least–most)``; a dash for nothing."""
    if not values:
        return "—"
    form = f"{'+' if sign else ''}.{digits}f"
    middle, least, most = (
        format(value, form) for value in (statistics.fmean(values), min(values), max(values))
    )
    return f"{middle} ({least} to {most})" if sign else f"{middle} ({least}–{most})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0,1,2,3,4", help="of the studies")
    parser.add_argument("--only", choices=list(CASES), help="one case")
    parser.add_argument(
        "--train-size", type=int, default=12_800, help="MNIST images an epoch; 0: all 50,000"
    )
    parser.add_argument("--curves", type=Path, help="file that keeps what was recorded")
    parser.add_argument(
        "--record", action="store_true", help="record the studies of these seeds and no more"
    )
    parser.add_argument(
        "--verify", default="", help="pruners to run for real on the first seed of lenet_mnist"
    )
    parser.add_argument(
        "--data", default=os.environ.get("DLSEARCH_DATA", "data"), help="folder of the data sets"
    )
    parser.add_argument("--out", type=Path, help="file that the tables are appended to")
    given = parser.parse_args()
    seeds = [int(seed) for seed in given.seeds.split(",")]
    book = Book(given.curves, {"train_size": given.train_size})
    parts = []
    for label, case in CASES.items():
        if given.only in (None, label):
            record(label, case, given, seeds, book)
            if not given.record:
                parts.append(report(label, case, seeds, book))
    if given.record:
        return
    names = [name for name in given.verify.split(",") if name]
    checked = [
        verify("lenet_mnist", CASES["lenet_mnist"], given, seeds[0], name, book) for name in names
    ]
    if checked:
        parts.append(
            f"Run for real as well, every trial's epochs and score equal to the replay: {'; '.join(checked)}."
        )
    n = f"20 trials a study, {len(seeds)} study seeds, {given.train_size or 50_000:,} MNIST images an epoch"
    n = f"{n}, mean (least–most)"
    packages = ("dlsearch", "torch", "pytorch-lightning", "optuna")
    machine.publish("\n\n".join([*parts, machine.caption(n, packages)]), given.out)


if __name__ == "__main__":
    main()
