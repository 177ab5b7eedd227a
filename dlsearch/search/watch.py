"""Watching a study while it runs: the live table, plain lines where there is no terminal, and the study's own run."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import sqlalchemy as sa
from omegaconf import OmegaConf
from optuna.exceptions import StorageInternalError

from dlsearch.config.errors import DatabaseAwayError
from dlsearch.search import run_journals
from dlsearch.search.outage import is_away
from dlsearch.search.record import ORDER, read_status
from dlsearch.search.study import REASON, Study
from dlsearch.tracking import layout
from dlsearch.tracking.journal import Journal
from dlsearch.tracking.masking import mask

if TYPE_CHECKING:
    import threading
    from contextlib import AbstractContextManager

    from dlsearch.search.draft import Draft

REAP_S = 2.0
SYMBOL = {"complete": "●", "pruned": "○", "failed": "✕", "running": "▶", "waiting": "·"}


class Watch:
    """The driver's eyes on a study.

    Args:
        study: The open study.
        store: The store.
        total_slots: Slots that serve it, for the share in use; None where nobody knows.
        notices: What to say first.
        resumed: Whether the study existed.
        out: Where to write; standard output by default.
    """

    def __init__(
        self,
        study: Study,
        store: Path,
        *,
        total_slots: int | None,
        notices: list[str],
        resumed: bool,
        out: TextIO | None = None,
    ) -> None:
        """Say what begins."""
        self.study, self.store, self.total_slots = study, store, total_slots
        self.out = out or sys.stdout
        self.started = self._reaped = time.monotonic()
        self._told = {t.number for t in study.trials() if t.state.is_finished()}
        self._at_start = len(self._told)
        self._told_replicas = {_which(each) for each in _replicas(read_status(study))}
        self._journal = Journal(store / layout.study_folder(study.name) / "journal.jsonl")
        row = study.row()
        what = (
            f"resumed, {self._at_start} of {row.n_trials} trials are there"
            if resumed
            else counted(row.n_trials, "trial")
        )
        slots = f", {counted(total_slots, 'slot')}" if total_slots else ""
        self.say(f"study {study.name}: {what}{slots}")
        for notice in notices:
            self.say(f"note: {notice}")

    def say(self, line: str) -> None:
        """One line to the user."""
        self.out.write(f"{line}\n")
        self.out.flush()

    # -- the study's own run in MLflow ---------------------------------------------------------------------------
    def open_run(self, draft: Draft, diff: str | None) -> None:
        """Open the study's run: its tags, what is fixed, the files that describe it, and the uncommitted change."""
        document = self.study.document
        folder = self.store / layout.study_folder(self.study.name)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(OmegaConf.create(mask(draft.config)), folder / "config.yaml")
        (folder / "overrides.txt").write_text("".join(f"{line}\n" for line in document["overrides"]))
        OmegaConf.save(OmegaConf.create({"space": document["space"]}), folder / "search_space.yaml")
        self._journal.open(
            "study", layout.study_run_name(self.study.name), document["experiment"], None, layout.study_tags(document)
        )
        searched = {dim["name"] for dim in document["space"]}
        self._journal.params(layout.flatten_params(document["config"], searched))
        for name in ("config.yaml", "overrides.txt", "search_space.yaml"):
            self._journal.artifact(folder / name, layout.STUDY_ARTIFACTS)
        (folder / "provenance.json").write_text(json.dumps(document["provenance"], indent=1, sort_keys=True))
        self._journal.artifact(folder / "provenance.json", layout.ENV_ARTIFACTS)
        if diff:  # MLflow records the commit alone
            (folder / "diff.patch").write_text(diff)
            self._journal.artifact(folder / "diff.patch", layout.CODE_ARTIFACTS)
        for split, context in (("train", "train"), ("val", "validation")):
            digest = document["data"].get("digests", {}).get(split)
            if digest:
                self._journal.dataset(document["data"]["name"], digest, context, document["data"]["name"])
        self._journal.flush()

    def close_run(self, report: Path | None, *, interrupted: bool) -> None:
        """Close the study's run, with its report."""
        if report is not None:
            for path in sorted(report.rglob("*")):
                if path.is_file():
                    self._journal.artifact(path, str(Path("report") / path.parent.relative_to(report)))
        best = None
        with suppress(DatabaseAwayError):
            best = self.study.storage.surely(self.study.best)
        if best is not None:
            self._journal.tags({layout.BEST_TRIAL: str(best.number)})
        self._journal.status("KILLED" if interrupted else "FINISHED")
        self._journal.close()

    def _note(self, status: dict[str, Any], number: int) -> None:
        rows = {f"n/{state}": count for state, count in status["counts"].items() if state != "waiting"}
        if status["best"] is not None:
            rows["best/objective"] = status["best"]["value"]
        elapsed = time.monotonic() - self.started
        rows["throughput/trials_per_h"] = (len(self._told) - self._at_start) / elapsed * 3600
        with suppress(OSError):  # no room: the rows are kept until there is
            self._journal.metrics(rows, number)
            self._journal.flush()

    # -- the live view -------------------------------------------------------------------------------------------
    def watch(self, stop: threading.Event, guard: AbstractContextManager[Any]) -> None:
        """Follow the study until `stop`; a thread's body. `guard` is held while the storage is read."""
        if self.out.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self.out)
            with Live(console=console, auto_refresh=False, transient=True) as live:
                while not stop.wait(0.5):
                    with guard:
                        status = self._follow()
                        if status is not None:
                            live.update(table(status, self.total_slots, self._time_left(status)), refresh=True)
        else:
            while not stop.wait(0.3):
                with guard:
                    self._follow(lines=True)
        with guard:
            self._follow(lines=not self.out.isatty())

    def _follow(self, *, lines: bool = False) -> dict[str, Any] | None:
        """Tell what is new; None while the database is away, of which the workers speak."""
        try:
            return self._tell(lines=lines)
        except Exception as error:
            if not is_away(error):
                raise
            self.study.leases.broken()
            return None

    def _tell(self, *, lines: bool) -> dict[str, Any]:
        self._reap()
        trials = self.study.trials()  # first, so that the best of the status is no worse than one that is told here
        status = read_status(self.study)
        for trial in trials:
            if trial.state.is_finished() and trial.number not in self._told:
                self._told.add(trial.number)
                self._note(status, trial.number)
                if lines:
                    self.say(_line(trial, status))
        for each in _replicas(status):
            if _which(each) not in self._told_replicas:
                self._told_replicas.add(_which(each))
                if lines:
                    self.say(_replica_line(each, status))
        return status

    def _reap(self) -> None:
        """End what outlived its lease: the worker that would may be the one that is silent."""
        if time.monotonic() > self._reaped + REAP_S:
            self._reaped = time.monotonic()
            try:
                if self.study.leases.overdue():
                    for end in run_journals.left_open(self.study, self.store, self.study.reap()):
                        run_journals.end(*end)
            except (sa.exc.SQLAlchemyError, OSError, StorageInternalError) as error:
                if is_away(error):
                    raise
                # The disk is full, say: next time.

    def _time_left(self, status: dict[str, Any]) -> float | None:
        done = len(self._told) - self._at_start
        if not done:
            return None
        finished = sum(status["counts"][state] for state in ("complete", "pruned", "failed"))
        return (time.monotonic() - self.started) / done * (status["n_trials"] - finished)

    def close(self, *, interrupted: bool) -> None:
        """Say how it ended; and say it for those who died before they could."""
        with suppress(OSError):  # no room: the next worker does it
            for end in run_journals.left_open(self.study, self.store, run_journals.of_the_dead(self.study)):
                run_journals.end(*end)
        status = read_status(self.study)
        counts = ", ".join(f"{n} {state}" for state, n in status["counts"].items() if n)
        total = sum(status["counts"].values())
        if interrupted:
            done = sum(status["counts"][state] for state in ("complete", "pruned", "failed"))
            self.say(f"interrupted: {done} of {status['n_trials']} trials are done; the same command goes on")
        else:
            self.say(
                f"study {self.study.name}: {counted(total, 'trial')} ({counts}) "
                f"in {duration(time.monotonic() - self.started)}"
            )
        best, winner = status["best"], status["winner"]
        if best is not None:
            shown = ", ".join(f"{key}={short(value)}" for key, value in best["params"].items())
            self.say(f"best: trial {best['number']}, {status['objective']} {best['value']:.4f} ({shown})")
        if winner is not None and winner["confirmed"]:
            self.say(f"winner: {confirmed(status)}")
        for test in status["test"][-1:]:
            scores = ", ".join(f"{name} {value:.4f}" for name, value in sorted(test["metrics"].items()))
            self.say(f"test set, opened {times(status['openings'])} for {who(test['trial_number'])}: {scores}")


def who(number: int | None) -> str:
    """A configuration in words."""
    return "the default configuration" if number is None else f"trial {number}"


def counted(count: int, noun: str) -> str:
    """``1 trial``, ``2 trials``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def times(count: int) -> str:
    """``once``, ``twice``, ``3 times``; how often the test set was opened."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def confirmed(status: dict[str, Any]) -> str:
    """The winner of a confirmation and the default configuration, in words."""
    rows = status["confirmation"]["configurations"]
    won = next(row for row in rows if row["winner"])
    words = f"{who(won['trial_number'])}, {status['objective']} {won['mean']:.4f} on average over {won['done']} seeds"
    default = next((row for row in rows if row["default"] and not row["winner"] and row["mean"] is not None), None)
    if default is not None:
        words += f"; the default configuration {default['mean']:.4f}"
    return words


def _replicas(status: dict[str, Any]) -> list[dict[str, Any]]:
    confirmation = status["confirmation"]
    return [{**each, "round": confirmation["round"]} for each in confirmation["replicas"]] if confirmation else []


def _which(replica: dict[str, Any]) -> tuple[Any, ...]:
    return replica["round"], replica["trial_number"], replica["replica"]


def _replica_line(replica: dict[str, Any], status: dict[str, Any]) -> str:
    confirmation = status["confirmation"]
    name = "default" if replica["trial_number"] is None else f"trial {replica['trial_number']:>3}"
    value = "" if replica["value"] is None else f"  {replica['value']:.4f}"
    seed = f"seed {replica['replica'] + 1}/{confirmation['seeds']}"
    return f"confirm {name:<9}  {seed}  {replica['state']:<8}{value}  {confirmation['done']}/{confirmation['planned']}"


def _line(trial: Any, status: dict[str, Any]) -> str:
    from dlsearch.search.record import STATES

    state = STATES[trial.state]
    words = [f"trial {trial.number:>3}", f"{state:<8}"]
    if state == "failed":
        words.append(f"({trial.user_attrs.get(REASON, 'exception')})")
    elif trial.values:
        words.append(" ".join(f"{value:.4f}" for value in trial.values))
    elif trial.intermediate_values:
        words.append(f"{trial.intermediate_values[max(trial.intermediate_values)]:.4f}")
    if trial.user_attrs.get("duplicate_of") is not None:
        words.append(f"same parameters as trial {trial.user_attrs['duplicate_of']}")
    best = status["best"]
    if best is not None:
        words.append(f"  best {best['value']:.4f} (trial {best['number']})")
    return "  ".join(words)


def short(value: Any) -> str:
    """A value as a person would write it."""
    return f"{value:.3g}" if isinstance(value, float) else printable(str(value))


def printable(text: str) -> str:
    r"""Without what moves the cursor or changes the terminal: ``\x1b`` for the escape character."""
    return text if text.isprintable() else "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def duration(seconds: float) -> str:
    """``48 s``, ``12 min``, ``3.4 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _name(running: dict[str, Any]) -> str:
    name = "default" if running["number"] is None else f"{running['number']}"
    if running["kind"] != "trial":
        name = f"{running['kind']} {name}"
    if running.get("replica") is not None:
        name += f" seed {running['replica'] + 1}"
    return name + (f".a{running['attempt']}" if running["attempt"] > 1 else "")


def table(status: dict[str, Any], total_slots: int | None = None, left: float | None = None) -> Any:
    """The table of a study: what runs, counts, the best so far, and how far the confirmation is.

    Args:
        status: From :func:`~dlsearch.search.record.read_status`.
        total_slots: For the share of slots in use.
        left: Seconds to go, if known.
    """
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    rows = Table(box=box.SIMPLE_HEAD, title=None, pad_edge=False)
    objective = status["objective"] if isinstance(status["objective"], str) else status["objective"][0]
    for heading, justify in (
        ("trial", "right"),
        ("epoch", "right"),
        (objective, "right"),
        ("device", "left"),
        ("s", "right"),
    ):
        rows.add_column(Text(heading), justify=justify)  # type: ignore[arg-type]
    now = time.time()
    for each in status["running"]:
        from datetime import datetime

        since = now - datetime.fromisoformat(str(each["started"])).timestamp()
        value = each.get("value")
        rows.add_row(
            _name(each),
            f"{each.get('epoch', 0)}/{each.get('max_epochs', '?')}",
            "" if value is None else f"{value:.4f}",
            Text(printable(str(each["device"]))),
            f"{since:.0f}",
        )
    counts = "   ".join(
        f"{SYMBOL[state]} {status['counts'][state]} {state}" for state in ORDER if status["counts"][state]
    )
    done = sum(status["counts"][state] for state in ("complete", "pruned", "failed"))
    head = f"{status['name']}   {done}/{status['n_trials']} trials   {counts}"
    if total_slots:
        head += f"   {len(status['running'])}/{total_slots} slots"
    confirmation = status["confirmation"]
    if confirmation is not None:
        head += f"   confirmation {confirmation['done']}/{confirmation['planned']}"
    if left is not None and confirmation is None:
        head += f"   ~{duration(left)} left"
    best = status["best"]
    foot = ""
    if best is not None:
        shown = "  ".join(f"{key}={short(value)}" for key, value in best["params"].items())
        foot = f"best  trial {best['number']}  {objective} {best['value']:.4f}  {shown}"
    return Group(Text(head, style="bold"), rows, *([_confirmation(confirmation)] if confirmation else []), Text(foot))


def _confirmation(confirmation: dict[str, Any]) -> Any:
    """A row for each configuration that is trained again."""
    from rich import box
    from rich.table import Table

    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("confirmation", "seeds", "mean", ""):
        rows.add_column(heading, justify="left" if heading in ("confirmation", "") else "right")
    for each in confirmation["configurations"]:
        notes = ["won"] if each["winner"] else []
        notes += [f"out after {each['dropped_after']}"] if each["dropped_after"] else []
        notes += [f"{each['failed']} failed"] if each["failed"] else []
        name = who(each["trial_number"]) + (
            " (default)" if each["default"] and each["trial_number"] is not None else ""
        )
        mean = "" if each["mean"] is None else f"{each['mean']:.4f}"
        rows.add_row(name, f"{each['done']}/{confirmation['seeds']}", mean, ", ".join(notes))
    return rows
