"""``reproduce``: a recorded study, run again and compared."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from dlsearch.cli.arguments import Place, parser, place, print_json, print_lines, split
from dlsearch.cli.retraining import (
    DIFFERENT,
    DONE,
    REFUSED,
    check_only_places,
    name_differences,
    typed_threads,
)
from dlsearch.core import permission
from dlsearch.core.errors import ConfigError
from dlsearch.core.files.inside import inside

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from dlsearch.training.inputs import Difference
    from dlsearch.verification.proposals import ProposalCheck
    from dlsearch.verification.report_file import ReplayReport
    from dlsearch.verification.reproduction import Reproduction
    from dlsearch.verification.verdicts import VerdictCheck

#: What a pruner says, by whether the trial is to stop.
_VERDICTS = {True: "stop", False: "go on"}


def reproduce(words: list[str]) -> int:
    """Run a whole study again from its report, in a store of its own, and compare."""
    overrides, rest = split(words)
    arguments = parser(
        "reproduce", "Run a study again from its report.json alone, in another store, and compare."
    )
    arguments.add_argument(
        "target",
        metavar="NAME|report.json",
        help="a study with a report in this store, or the file",
    )
    arguments.add_argument(
        "--store",
        type=Path,
        required=True,
        metavar="DIR",
        help="where the repetition is written",
    )
    arguments.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="trials at a time (default: what the cores allow)",
    )
    arguments.add_argument("--anyway", action="store_true", help="run although an input differs")
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    options = arguments.parse_args(rest)
    check_only_places("reproduce", overrides)
    where = place(overrides)
    path = _find_report(options.target, where)
    from dlsearch.app.prepare import check_store
    from dlsearch.verification.report_file import load

    report = load(path)
    store = check_store(options.store)
    if store == where.store:
        raise ConfigError("--store", "expected another store than the study's own", "--store again")
    differing = _find_differing_inputs(report, where, overrides)
    inputs = [each.to_json() for each in differing]
    if differing and not options.anyway:
        if options.json:
            print_json({"study": report["study"]["name"], "inputs": inputs})
        else:
            print_lines(
                "not run: inputs differ",
                *name_differences(differing),
                "  --anyway runs it all the same",
            )
        return REFUSED
    found = _run_again(report, store, where, options, overrides)
    if options.json:
        print_json({**found.to_json(), "inputs": inputs})
    else:
        print_lines(*_describe_reproduction(found))
    return DONE if found.is_equal else DIFFERENT


def _find_report(target: str, where: Place) -> Path:
    """The file that `target` names, or the report of the study."""
    if target.endswith(".json"):
        return Path(target)
    from dlsearch.tracking import layout

    path = inside(where.store, f"{layout.study_folder(target)}/report/report.json")
    if not path.is_file():
        raise ConfigError(target, f"has no report in {where.store}", f"dlsearch report {target}")
    return path


def _find_differing_inputs(
    report: ReplayReport,
    where: Place,
    overrides: Sequence[str],
) -> list[Difference]:
    """What differs here from the inputs of the first trial."""
    from dlsearch.verification.retrain import Again, repeatable

    study = report["study"]
    document = {**study, "allow_targets": study["config"]["allow_targets"]}
    runnable = (trial for trial in report["replay"] if repeatable(trial) is None)
    first = next(runnable, None)
    if first is None:
        raise ConfigError("report.json", "holds no trial that can be trained again and compared")
    with Again(
        document,
        data=where.data,
        weights=where.weights,
        threads=typed_threads(overrides),
    ) as again:
        return again.look(first)


def _run_again(
    report: ReplayReport,
    store: Path,
    where: Place,
    options: argparse.Namespace,
    overrides: Sequence[str],
) -> Reproduction:
    """Draw the proposals and judge the trials again, then run the study, and compare."""
    from dlsearch.app.reporting import write_report
    from dlsearch.app.serve import serve
    from dlsearch.config.compose import compose_config
    from dlsearch.confirmation.rounds import Rounds
    from dlsearch.execution.resources.slots import cores
    from dlsearch.records.record import read_record
    from dlsearch.storage.database import Storage
    from dlsearch.storage.location import storage_url
    from dlsearch.study.study import Study
    from dlsearch.verification import reproduce as replay
    from dlsearch.verification.proposals import draw_again
    from dlsearch.verification.reproduction import Reproduction
    from dlsearch.verification.verdicts import judge_again

    permission.require(report["study"]["config"]["allow_targets"])
    proposals = draw_again(report)
    verdicts = judge_again(report)
    store.mkdir(parents=True, exist_ok=True)
    url = storage_url(store, None)
    name = report["study"]["name"]
    storage = Storage(url)
    recorded_inputs = (row["inputs"] for row in report["replay"] if row["inputs"])
    threads = typed_threads(overrides) or next(recorded_inputs)["threads"]
    replay.open_replay(storage, report, threads)
    storage.close()
    slots = options.jobs or max(1, cores() // threads)
    started = time.monotonic()
    code = serve(
        compose_config(
            [
                f"worker.join='{name}'",
                f"worker.threads={threads}",
                f"worker.slots={slots}",
                "tracking.enabled=false",
                f"paths.store='{store}'",
                f"paths.data='{where.data}'",
                f"paths.cache='{store / 'cache'}'",
                f"paths.weights='{where.weights}'",
            ]
        ),
        foreground=True,
    )
    if code:
        raise KeyboardInterrupt
    storage = Storage(url)
    study = Study(storage, name)
    study.add_seconds(time.monotonic() - started)
    study.reap()
    study.settle(interrupted=False, confirmed=Rounds(study).done())
    record = json.loads(json.dumps(read_record(study).to_json()))
    storage.close()
    folder = write_report(name, url, store)
    return Reproduction(
        name,
        replay.compare(report, record),
        proposals,
        verdicts,
        folder / "index.html",
    )


# -- saying what came of it ------------------------------------------------------------------------
def _describe_reproduction(found: Reproduction) -> list[str]:
    comparison = found.comparison
    lines = []
    for trial in found.unequal_trials:
        lines.append(f"trial {trial.number} ({trial.state}): {trial.verdict}")
        lines += [
            f"  {value.what}: recorded {value.recorded}, again {value.again}"
            for value in trial.differs
        ]
    skipped = [trial for trial in comparison.trials if trial.verdict == "skipped"]
    equal = sum(trial.verdict == "equal" for trial in comparison.trials)
    run = len(comparison.trials) - len(skipped)
    lines.append(f"reproduce {found.study}: {equal} of {run} trials bit-equal")
    lines += [f"  trial {trial.number} was not run: it {trial.why}" for trial in skipped]
    winner = comparison.winner
    if winner.is_equal:
        lines.append("  winner: the same")
    else:
        lines.append(f"  winner: {winner.again}, recorded {winner.recorded}")
    if comparison.confirmed is not None:
        is_equal = comparison.confirmed.is_equal
        same = "the same means and weights" if is_equal else "NOT the same"
        lines.append(f"  confirmation: {same}")
    return [
        *lines,
        *_describe_proposals(found.proposals),
        *_describe_verdicts(found.verdicts),
        "  trials were trained with the report's parameters, and pruned where it says",
        f"report: {found.report}",
    ]


def _describe_proposals(found: ProposalCheck) -> list[str]:
    if found.why_not is not None:
        return [f"  proposals: not drawn again: {found.why_not}"]
    alike = found.drawn - len(found.differs)
    line = f"  proposals: {alike} of {found.drawn} drawn again alike"
    if found.given:
        line += f"; parameters that were given: {found.given}"
    lines = [line]
    lines += [
        f"    trial {each.number}: recorded {each.recorded}, drawn {each.again}"
        for each in found.differs
    ]
    if found.unknown:
        listed = _list_numbers(found.unknown)
        lines.append(f"    not drawn: the record does not say what trial {listed} saw")
    return lines


def _describe_verdicts(found: VerdictCheck) -> list[str]:
    if found.why_not is not None:
        return [f"  verdicts of the pruner: not repeated: {found.why_not}"]
    if not found.judged:
        return []
    alike = found.judged - len(found.differs)
    line = f"  verdicts of the pruner: {alike} of {found.judged} repeated alike"
    lines = [f"{line}, {found.stops} of them stopped a trial"]
    for each in found.differs:
        recorded = _VERDICTS[each.recorded]
        again = _VERDICTS[each.again]
        lines.append(
            f"    trial {each.number} after epoch {each.epoch}: recorded {recorded}, now {again}"
        )
    if found.unknown:
        listed = _list_numbers(found.unknown)
        lines.append(f"    not repeated: the record has no verdict on trial {listed}")
    return lines


def _list_numbers(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
