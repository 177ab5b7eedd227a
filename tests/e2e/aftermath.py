"""What must hold of a study whatever was done to it, read from its databases and its journals; nothing here asks it.

Of dlsearch's own code only the reading of a journal's rows is used, and the names under which
tracking writes.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from dlsearch.tracking import layout
from dlsearch.tracking.journal import rows
from tests.e2e.storm import STOP, Blow, Seen

OPTUNAS = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
COUNTS = tuple(OPTUNAS)  # the ends of attempts whose results count
Row = tuple[str, str, int, int, str]  # a run's key, metric, time, step, value


@dataclass
class Left:
    """What a study left in its storage.

    Args:
        asked: The study's total.
        trials: Optuna's rows by number: state, and value of the first objective.
        numbers: Of Optuna's rows, in order, doubled ones included.
        params: What each trial was, as text.
        attempts: Our rows, oldest first.
    """

    asked: int
    trials: dict[int, tuple[str, float | None]]
    numbers: list[int]
    params: dict[int, str]
    attempts: list[dict[str, Any]]

    def of(self, number: int) -> list[dict[str, Any]]:
        """A trial's attempts, oldest first."""
        return [a for a in self.attempts if a["kind"] == "trial" and a["number"] == number]


def read(url: str, study: str) -> Left:
    """Read the storage."""
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    mine = "WHERE study_id = (SELECT study_id FROM studies WHERE study_name = :study)"
    with engine.connect() as connection:

        def ask(query: str) -> list[Any]:
            return list(connection.execute(sa.text(query), {"study": study}).all())

        trials = ask(
            "SELECT number, CAST(state AS VARCHAR(9)), value FROM trials LEFT JOIN trial_values "
            f"ON trial_values.trial_id = trials.trial_id AND objective = 0 {mine} ORDER BY number"
        )
        params: dict[int, dict[str, float]] = {}
        for number, name, value in ask(
            f"SELECT number, param_name, param_value FROM trials JOIN trial_params USING (trial_id) {mine}"
        ):
            params.setdefault(number, {})[name] = value
        ((asked,),) = ask("SELECT n_trials FROM dlsearch_study WHERE name = :study")
        found = connection.execute(
            sa.text("SELECT * FROM dlsearch_attempt WHERE study = :study ORDER BY id"),
            {"study": study},
        )
        attempts = [dict(row._mapping) for row in found]
    engine.dispose()
    return Left(
        asked,
        {number: (state, value) for number, state, value in trials},
        [number for number, _, _ in trials],
        {number: json.dumps(values, sort_keys=True) for number, values in params.items()},
        attempts,
    )


@dataclass
class Tracked:
    """What the journals say, and what MLflow's database has of it.

    Args:
        written: Rows of metrics in the journals.
        arrived: Rows in MLflow's database, in all runs that are not deleted, each as often as it is
            there.
        keys: Runs that the journals open.
        runs: How many runs MLflow has of each key.
        states: Of trials' runs, by number and attempt: MLflow's status, and our tag.
        running: Runs that MLflow takes for running.
        epochs: Validated epochs in each attempt's journal, by number and attempt.
        ended: Attempts whose journals say how they ended.
    """

    written: Counter[Row] = field(default_factory=Counter)
    arrived: Counter[Row] = field(default_factory=Counter)
    keys: set[str] = field(default_factory=set)
    runs: Counter[str] = field(default_factory=Counter)
    states: dict[tuple[int, int], tuple[str, str]] = field(default_factory=dict)
    running: list[str] = field(default_factory=list)
    epochs: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    ended: set[tuple[int, int]] = field(default_factory=set)


def tracked(store: Path, mlflow: Path, study: str, objective: str = "val/accuracy") -> Tracked:
    """Read the journals of a store, and MLflow's SQLite file at `mlflow`."""
    found = Tracked()
    for path in sorted(store.rglob("journal*.jsonl")):
        all_rows = list(rows(path))
        key = next(row["key"] for row in all_rows if row["row"] == "open")
        found.keys.add(key)
        metrics = [row for row in all_rows if row["row"] == "metrics"]
        for row in metrics:
            found.written.update(
                (key, n, row["t"], row["step"], _value(v)) for n, v in row["values"].items()
            )
        if path.parent.name[0] == "t" and path.parent.parent.name == study:
            which = int(path.parent.name[1:]), int(path.name.split(".")[1][1:])
            found.epochs[which] = [
                int(r["values"]["epoch"]) for r in metrics if objective in r["values"]
            ]
            if any(row["row"] == "status" for row in all_rows):
                found.ended.add(which)
    alive = "JOIN runs ON runs.run_uuid = tags.run_uuid AND lifecycle_stage = 'active'"
    with closing(sqlite3.connect(mlflow, timeout=60)) as database:
        found.arrived.update(
            (key, name, t, step, "nan" if is_nan else _value(value))
            for key, name, t, step, value, is_nan in database.execute(
                "SELECT tags.value, metrics.key, metrics.timestamp, step, metrics.value, is_nan FROM metrics "
                f"JOIN tags ON tags.run_uuid = metrics.run_uuid AND tags.key = '{layout.KEY}' {alive}"
            )
        )
        found.runs.update(
            key
            for (key,) in database.execute(
                f"SELECT value FROM tags {alive} WHERE tags.key = '{layout.KEY}'"
            )
        )
        found.running = [
            name
            for (name,) in database.execute(
                "SELECT name FROM runs WHERE lifecycle_stage = 'active' AND status = 'RUNNING'"
            )
        ]
        tags: dict[str, dict[str, str]] = {}
        for run, key, value in database.execute(
            f"SELECT tags.run_uuid, tags.key, tags.value FROM tags {alive}"
        ):
            tags.setdefault(run, {})[key] = value
        status = dict(database.execute("SELECT run_uuid, status FROM runs"))
    for run, its in tags.items():
        if its.get(layout.KIND) == "trial" and its.get(layout.STUDY_NAME) == study:
            which = int(its[layout.TRIAL_NUMBER]), int(its[layout.TRIAL_ATTEMPT])
            found.states[which] = status[run], its[layout.TRIAL_STATE]
    return found


def _value(value: Any) -> str:
    if isinstance(value, str):  # how a journal writes what is not finite
        value = float(value)
    if value != value:
        return "nan"
    # as MLflow keeps infinities
    return repr(max(-1.7976931348623157e308, min(1.7976931348623157e308, float(value))))


@dataclass(frozen=True)
class Check:
    """One thing that must hold.

    Args:
        what: In words.
        found: A count.
        wanted: What it must be; None where it is only told.
        note: Which.
    """

    what: str
    found: float
    wanted: float | None = 0
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether it is what it must be."""
        return self.wanted is None or self.found == self.wanted


def of_storage(left: Left, seen: Seen) -> list[Check]:
    """What must hold of the storage alone, and of what was seen in it before."""
    finished = [n for n, (state, _) in left.trials.items() if state in OPTUNAS.values()]
    same = Counter(left.params[n] for n in finished if n in left.params)
    changed = [n for n, was in seen.finished.items() if left.trials.get(n) != was]
    late, twice, disagree, gaps, orphans = [], [], [], [], []
    for number, (state, value) in left.trials.items():
        attempts = left.of(number)
        counted = [a for a in attempts if a["state"] in COUNTS]
        late += [number] * any(a is not attempts[-1] for a in counted)
        late += [
            number
            for a, b in pairwise(attempts)
            if a["ended"] is not None and a["ended"] > b["started"] + 1e-6
        ]
        twice += [number] * (len(counted) > 1)
        gaps += [number] * ([a["attempt"] for a in attempts] != list(range(1, len(attempts) + 1)))
        if not attempts:
            orphans.append(number)
        elif state in OPTUNAS.values() and not _agree(attempts[-1], state, value):
            disagree.append(number)
    live = [a for a in left.attempts if a["state"] == "running"]
    open_ = [n for n, (state, _) in left.trials.items() if state not in OPTUNAS.values()]
    return [
        Check("trials asked for", left.asked, None),
        Check("rows", len(left.numbers), left.asked),
        Check("numbers missing or doubled", len(set(range(left.asked)) ^ set(left.numbers))),
        Check("trials finished", len(finished), left.asked, _some(open_)),
        Check("trials with the parameters of another", sum(n - 1 for n in same.values())),
        Check("finished trials lost or changed", len(changed), 0, _some(changed)),
        Check("results accepted twice", len(twice), 0, _some(twice)),
        Check("late results accepted", len(late), 0, _some(late)),
        Check(
            "trials and attempts that disagree",
            len(disagree) + len(orphans) + len(gaps),
            0,
            _some(disagree),
        ),
        Check("attempts still RUNNING", len(live), 0, _some([a["number"] for a in live])),
    ]


def _agree(last: Mapping[str, Any], state: str, value: float | None) -> bool:
    """Whether Optuna's row says what the last attempt came to."""
    if OPTUNAS.get(last["state"]) != state:
        return last["state"] == "lost" and state == "FAIL"
    values = json.loads(last["result"] or "{}").get("values")
    return state != "COMPLETE" or (values is not None and values[0] == value)


def of_tracking(left: Left, there: Tracked, report: Mapping[str, Any] | None) -> list[Check]:
    """What must hold of MLflow, and of the report that was read from the storage."""
    written = set(there.written)
    doubled = sum(n - 1 for n in there.arrived.values()) + sum(n - 1 for n in there.runs.values())
    disagree = []
    for attempt in left.attempts:
        which = attempt["number"], attempt["attempt"]
        if attempt["kind"] != "trial":
            continue
        if which not in there.epochs:  # no journal: it ended before it began
            disagree += [which] * (attempt["state"] in COUNTS)
        elif there.states.get(which) != (layout.status_of(attempt["state"]), attempt["state"]):
            disagree.append(which)
    checks = [
        Check("rows in the journals", len(written), None),
        Check(
            "of them not in MLflow",
            len(written - set(there.arrived)) + len(there.keys - set(there.runs)),
        ),
        Check("rows and runs that MLflow has twice", doubled),
        Check("rows in MLflow of no journal", len(set(there.arrived) - written)),
        Check("runs that MLflow takes for running", len(there.running), 0, _some(there.running)),
        Check("attempts whose state is another in MLflow", len(disagree), 0, _some(disagree)),
    ]
    if report is not None:
        said = {
            t["number"]: (OPTUNAS.get(t["state"]), (t["values"] or [None])[0])
            for t in report["trials"]
        }
        other = [
            n for n, (state, value) in left.trials.items() if not _same(said.get(n), state, value)
        ]
        checks += [
            Check(
                "trials whose state or value is another in the report", len(other), 0, _some(other)
            ),
            Check("checks of the record that fail", sum(not c["ok"] for c in report["checks"])),
        ]
    return checks


def _same(said: tuple[str | None, float | None] | None, state: str, value: float | None) -> bool:
    """Whether a report, whose numbers have twelve digits, says this of a trial."""
    if said is None or said[0] != state:
        return False
    if state != "COMPLETE" or said[1] is None or value is None:
        return state != "COMPLETE" and said[1] is None
    return math.isclose(said[1], value, rel_tol=1e-9)


def of_blows(left: Left, there: Tracked, seen: Seen, lease_s: float) -> list[Check]:
    """What a blow may cost: nothing but the attempts that it hit, found out in time, and an epoch of each."""
    lost = [a for a in left.attempts if a["state"] == "lost"]
    unexplained = [
        (a["number"], a["attempt"])
        for a in lost
        if not any(_hit(blow, a, lease_s) for blow in seen.blows)
    ]
    found_out = detections(left, seen)
    again = epochs_again(left, there)
    return [
        Check("attempts lost", len(lost), None),
        Check("of them lost although nothing hit them", len(unexplained), 0, _some(unexplained)),
        Check("commands that ended by themselves", len(seen.codes), 0, _some(seen.codes)),
        Check("attempts hit", len(found_out), None),
        Check(
            "of them found out later than lease + 10 s", sum(s > lease_s + 10 for s in found_out)
        ),
        Check("epochs trained again, of one attempt at most", max(again, default=0), None),
        Check("attempts that cost more than one epoch", sum(n > 1 for n in again)),
    ]


def _hit(blow: Blow, attempt: Mapping[str, Any], lease_s: float) -> bool:
    if attempt["id"] in blow.attempts:
        return True
    # A worker that is hit while it claims; and one that is stopped in a transaction holds up all
    # the others.
    within = (
        attempt["started"] <= (blow.until or blow.at) + 1 and (attempt["ended"] or 0) >= blow.at - 1
    )
    held_up = blow.kind == STOP and attempt["ended"] > blow.at + lease_s / 2
    return within and (attempt["pid"] in blow.workers or held_up)


def detections(left: Left, seen: Seen) -> list[float]:
    """Seconds from each blow until an attempt that it ended was seen not to run any more."""
    states = {a["id"]: a["state"] for a in left.attempts}
    found = {}
    for blow in seen.blows:
        for each in blow.attempts:
            if (
                states.get(each) in ("lost", "interrupted")
                and each in seen.ends
                and each not in found
            ):
                found[each] = max(0.0, seen.ends[each] - blow.at)
    return list(found.values())


def epochs_again(left: Left, there: Tracked) -> list[int]:
    """Whole epochs that were in a journal already when the next attempt trained them; for each that had a next one.

    An attempt is killed within an epoch as a rule, which is then lost in part and stands in no
    journal: so there may be no whole one, or one where the kill came between an epoch's last row
    and its checkpoint.
    """
    found = []
    for number in left.trials:
        done: set[int] = set()
        for attempt in left.of(number):
            its = set(there.epochs.get((number, attempt["attempt"]), ()))
            if attempt["attempt"] > 1:
                found.append(len(its & done))
            done |= its
    return found


def failed(checks: Iterable[Check]) -> list[str]:
    """Those that do not hold, in words."""
    return [f"{c.what}: {c.found:g} {c.note}".rstrip() for c in checks if not c.holds]


def _some(what: Sequence[Any]) -> str:
    return ", ".join(map(str, what[:5])) + (" …" if len(what) > 5 else "")
