"""``reproduce``: a recorded study, run again and compared."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.cli.arguments import Place, parser, place, print_json, print_lines, split
from dlsearch.cli.retraining import (
    DIFFERENT,
    DONE,
    REFUSED,
    check_only_places,
    name_differences,
    typed_threads,
)
from dlsearch.core.errors import ConfigError
from dlsearch.core.files.inside import inside

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


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
    from dlsearch.verification import reproduce as replay

    report = replay.load(path)
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
    found["inputs"] = inputs
    found["equal"] = _is_equal(found)
    if options.json:
        print_json(found)
    else:
        print_lines(*_describe_comparison(found))
    return DONE if found["equal"] else DIFFERENT


def _find_report(target: str, where: Place) -> Path:
    """The file that `target` names, or the report of the study."""
    if target.endswith(".json"):
        return Path(target)
    from dlsearch.tracking import layout

    path = inside(where.store, f"{layout.study_folder(target)}/report/report.json")
    if not path.is_file():
        raise ConfigError(target, f"has no report in {where.store}", f"dlsearch report {target}")
    return path


def _is_equal(found: Mapping[str, Any]) -> bool:
    """Whether all that was run again came out as recorded."""
    confirmed = found["confirmed"]
    return (
        not _unequal_trials(found)
        and found["winner"]["equal"]
        and (confirmed is None or confirmed["equal"])
        and not found["proposals"]
    )


def _unequal_trials(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [trial for trial in found["trials"] if trial["verdict"] not in ("equal", "skipped")]


def _find_differing_inputs(
    report: Mapping[str, Any], where: Place, overrides: Sequence[str]
) -> list[Any]:
    """What differs here from the inputs of the first trial."""
    from dlsearch.verification.retrain import Again, repeatable

    study = report["study"]
    document = {**study, "allow_targets": study["config"]["allow_targets"]}
    first = next((trial for trial in report["replay"] if repeatable(trial) is None), None)
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
    report: Mapping[str, Any],
    store: Path,
    where: Place,
    options: Any,
    overrides: Sequence[str],
) -> dict[str, Any]:

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

    store.mkdir(parents=True, exist_ok=True)
    url = storage_url(store, None)
    name = report["study"]["name"]
    storage = Storage(url)
    threads = typed_threads(overrides) or next(
        t["inputs"]["threads"] for t in report["replay"] if t["inputs"]
    )
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
    record = json.loads(json.dumps(read_record(study)))
    storage.close()
    folder = write_report(name, url, store)
    return {
        "study": name,
        **replay.compare(report, record),
        "proposals": replay.proposals(report),
        "report": str(folder / "index.html"),
    }


def _describe_comparison(found: Mapping[str, Any]) -> list[str]:
    lines = []
    for trial in _unequal_trials(found):
        lines.append(f"trial {trial['number']} ({trial['state']}): {trial['verdict']}")
        lines += [
            f"  {each['what']}: recorded {each['recorded']}, again {each['again']}"
            for each in trial["differs"]
        ]
    skipped = [trial for trial in found["trials"] if trial["verdict"] == "skipped"]
    equal = sum(trial["verdict"] == "equal" for trial in found["trials"])
    run = len(found["trials"]) - len(skipped)
    lines.append(f"reproduce {found['study']}: {equal} of {run} trials bit-equal")
    lines += [f"  trial {trial['number']} was not run: it {trial['why']}" for trial in skipped]
    winner = found["winner"]
    if winner["equal"]:
        lines.append("  winner: the same")
    else:
        lines.append(f"  winner: {winner['again']}, recorded {winner['recorded']}")
    confirmed = found["confirmed"]
    if confirmed is not None:
        same = "the same means and weights" if confirmed["equal"] else "NOT the same"
        lines.append(f"  confirmation: {same}")
    return [
        *lines,
        f"  proposals: {_describe_proposals(found['proposals'])}",
        "  parameters and the ends of pruned trials were taken from the report",
        f"report: {found['report']}",
    ]


def _describe_proposals(differing: Sequence[Any] | None) -> str:
    if differing is None:
        return "not checked: the sampler adapts, so they depend on the order in which results came"
    return f"{len(differing)} differ" if differing else "the same, drawn again"
