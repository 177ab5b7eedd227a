"""``verify``: recorded trials, trained again and compared."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from dlsearch.cli.arguments import Place, parser, place, print_json, print_lines, split
from dlsearch.cli.reading import require_storage
from dlsearch.cli.retraining import (
    DIFFERENT,
    DONE,
    REFUSED,
    check_only_places,
    name_differences,
    typed_threads,
)
from dlsearch.core.errors import ConfigError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from dlsearch.config.progress import ProgressUnit
    from dlsearch.core.types import JsonObject
    from dlsearch.records.models import StudyRecord
    from dlsearch.verification.retrain import Verdict


def verify(words: list[str]) -> int:
    """Train recorded trials again and compare, bit for bit."""
    overrides, rest = split(words)
    arguments = parser(
        "verify",
        "Train a trial again from its record: the same weights, metrics and data, or why not.",
    )
    arguments.add_argument(
        "target", metavar="NAME[/NUMBER]", help="a trial, or a study to sample trials of"
    )
    arguments.add_argument(
        "--sample",
        type=int,
        default=5,
        metavar="N",
        help="how many trials of a study (default: 5)",
    )
    arguments.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the sample (default: 0)",
    )
    arguments.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="trials at a time (default: what the cores allow)",
    )
    arguments.add_argument("--anyway", action="store_true", help="train although an input differs")
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    options = arguments.parse_args(rest)
    _check_positive("--sample", options.sample)
    _check_positive("--jobs", options.jobs)
    check_only_places("verify", overrides)
    where = place(overrides)
    name, _, number = options.target.partition("/")
    document, record = _read_study(where, name)
    chosen = _choose_trials(record, name, number, options)
    from dlsearch.records.status import progress_unit_of
    from dlsearch.verification.retrain import Again

    unit = progress_unit_of(record.study.model)
    verdicts: list[Verdict] = []

    def say(verdict: Verdict) -> None:
        verdicts.append(verdict)
        if not options.json:
            print_lines(*_describe_verdict(verdict, unit))
            sys.stdout.flush()

    with Again(
        document,
        data=where.data,
        weights=where.weights,
        threads=typed_threads(overrides),
    ) as again:
        again.verify_all(
            chosen,
            anyway=options.anyway,
            jobs=options.jobs,
            say=say,
        )
    equal = sum(verdict.verdict == "equal" for verdict in verdicts)
    if options.json:
        print_json(
            {
                "study": name,
                "checked": [verdict.to_json() for verdict in verdicts],
                "equal": equal,
                "share": equal / len(verdicts),
            }
        )
    elif not number:
        print_lines(_describe_sample(name, verdicts, equal))
    return _exit_code(verdicts)


def _check_positive(option: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise ConfigError(option, f"expected at least 1, got {value}")


def _exit_code(verdicts: Sequence[Verdict]) -> int:
    kinds = {verdict.verdict for verdict in verdicts}
    if "different" in kinds:
        return DIFFERENT
    return REFUSED if "refused" in kinds else DONE


def _read_study(where: Place, name: str) -> tuple[JsonObject, StudyRecord]:
    """The document and the record of a study; writes nothing, unlike what serves it."""
    from dlsearch.records.record import read_record
    from dlsearch.study.study import Study

    require_storage(where, name)
    storage = where.look()
    try:
        study = Study(storage, name)
        return study.document, read_record(study)
    finally:
        storage.close()


def _choose_trials(
    record: StudyRecord,
    name: str,
    number: str,
    options: Namespace,
) -> list[JsonObject]:
    from dlsearch.verification.retrain import repeatable, sample

    trials = json.loads(json.dumps([trial.to_json() for trial in record.trials]))
    if not number:
        numbers = sample(trials, options.sample, options.seed)
        if not numbers:
            raise ConfigError(
                "study.name", f"study {name!r} has no trial that can be trained again and compared"
            )
        return [trials[each] for each in numbers]
    if not number.isdecimal() or int(number) >= len(trials):
        raise ConfigError(f"{name}/{number}", "there is no such trial", f"0 to {len(trials) - 1}")
    reason = repeatable(trials[int(number)])
    if reason is not None:
        raise ConfigError(f"{name}/{number}", reason)
    return [trials[int(number)]]


def _describe_verdict(verdict: Verdict, unit: ProgressUnit) -> list[str]:
    how = f"{verdict.state}{', resumed' if verdict.resumed else ''}"
    head = f"trial {verdict.number} ({how}): "
    if verdict.verdict == "refused":
        why = "inputs differ" if len(verdict.inputs) > 1 else "an input differs"
        lines = [f"{head}not trained: {why}"]
        return [*lines, *name_differences(verdict.inputs), "  --anyway trains it all the same"]
    notes = name_differences(verdict.inputs, "although ")
    if verdict.verdict == "equal":
        weights = str(verdict.again["state_sha256"])[:12]
        same = f"weights {weights}, {verdict.again['epochs']} {unit}s of metrics"
        splits = ", splits" if verdict.again["split_sha256"] else ""
        return [f"{head}equal, bit for bit: {same}{splits} ({verdict.seconds:.1f} s)", *notes]
    lines = [f"{head}NOT equal ({verdict.seconds:.1f} s)", *notes]
    return lines + [
        f"  {each.what}: recorded {each.recorded}, again {each.again}" for each in verdict.differs
    ]


def _describe_sample(name: str, verdicts: Sequence[Verdict], equal: int) -> str:
    kinds = [
        ("pruned", sum(v.state == "pruned" for v in verdicts)),
        ("resumed", sum(v.resumed for v in verdicts)),
    ]
    among = " and ".join(f"{count} {what}" for what, count in kinds if count)
    share = f"{100 * equal / len(verdicts):.0f} %"
    named = f", {among} among them" if among else ""
    return f"verify {name}: {equal} of {len(verdicts)} trials bit-equal ({share}){named}"
