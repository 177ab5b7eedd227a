"""``verify`` and ``reproduce``: recorded trials, or a whole recorded study, trained again and compared."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.config.errors import ConfigError
from dlsearch.verbs.words import Place, parser, place, print_json, print_lines, split

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dlsearch.search.again import Verdict
    from dlsearch.search.inputs import Difference

#: Overrides that say where things are; the configuration is the record's.
_PLACES = ("paths.", "study.storage", "tracking.", "worker.threads")
DONE, DIFFERENT, REFUSED = 0, 1, 2
_SHOWN = 8  # differences that are printed


def _only_places(verb: str, overrides: Sequence[str]) -> None:
    for word in overrides:
        key = word.lstrip("+~").split("=", 1)[0]
        if not key.startswith(_PLACES):
            raise ConfigError(key, f"{verb} trains what the record says and takes no other value", "leave it out")


def _threads(overrides: Sequence[str]) -> int | None:
    given = [word.split("=", 1)[1] for word in overrides if word.startswith("worker.threads=")]
    return int(given[-1]) if given and given[-1] != "null" else None


def _read(where: Place, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The document and the record of a study; writes nothing, unlike what serves it."""
    from dlsearch.search import place as places
    from dlsearch.search.record import read_record
    from dlsearch.search.study import Study

    if not places.exists(where.storage_url):
        raise ConfigError("study.name", f"there is no study {name!r}: {places.mask(where.storage_url)} does not exist")
    storage = where.open()
    try:
        study = Study(storage, name)
        return study.document, read_record(study)
    finally:
        storage.close()


def verify(words: list[str]) -> int:
    """Train recorded trials again and compare, bit for bit."""
    overrides, rest = split(words)
    arguments = parser("verify", "Train a trial again from its record: the same weights, metrics and data, or why not.")
    arguments.add_argument("target", metavar="NAME[/NUMBER]", help="a trial, or a study to sample trials of")
    arguments.add_argument("--sample", type=int, default=5, metavar="N", help="how many trials of a study (default: 5)")
    arguments.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    arguments.add_argument("--jobs", type=int, metavar="N", help="trials at a time (default: what the cores allow)")
    arguments.add_argument("--anyway", action="store_true", help="train although an input differs")
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    options = arguments.parse_args(rest)
    for option in ("sample", "jobs"):
        if getattr(options, option) is not None and getattr(options, option) < 1:
            raise ConfigError(f"--{option}", f"expected at least 1, got {getattr(options, option)}")
    _only_places("verify", overrides)
    where = place(overrides)
    name, _, number = options.target.partition("/")
    document, record = _read(where, name)
    chosen = _chosen(record, name, number, options)
    from dlsearch.search.again import Again

    verdicts: list[Verdict] = []

    def say(verdict: Verdict) -> None:
        verdicts.append(verdict)
        if not options.json:
            print_lines(*_lines(verdict))
            sys.stdout.flush()

    with Again(document, data=where.data, weights=where.weights, threads=_threads(overrides)) as again:
        again.verify_all(chosen, anyway=options.anyway, jobs=options.jobs, say=say)
    equal = sum(verdict.verdict == "equal" for verdict in verdicts)
    if options.json:
        print_json({
            "study": name, "checked": [verdict.to_json() for verdict in verdicts], "equal": equal,
            "share": equal / len(verdicts),
        })  # fmt: skip
    elif not number:
        print_lines(_sum(name, verdicts, equal))
    kinds = {verdict.verdict for verdict in verdicts}
    return DIFFERENT if "different" in kinds else REFUSED if "refused" in kinds else DONE


def _chosen(record: Mapping[str, Any], name: str, number: str, options: Any) -> list[dict[str, Any]]:
    import json

    from dlsearch.search.again import repeatable, sample

    trials = json.loads(json.dumps(record["trials"]))
    if not number:
        numbers = sample(trials, options.sample, options.seed)
        if not numbers:
            raise ConfigError("study.name", f"study {name!r} has no trial that can be trained again and compared")
        return [trials[each] for each in numbers]
    if not number.isdecimal() or int(number) >= len(trials):
        raise ConfigError(f"{name}/{number}", "there is no such trial", f"0 to {len(trials) - 1}")
    reason = repeatable(trials[int(number)])
    if reason is not None:
        raise ConfigError(f"{name}/{number}", reason)
    return [trials[int(number)]]


def _lines(verdict: Verdict) -> list[str]:
    how = f"{verdict.state}{', resumed' if verdict.resumed else ''}"
    head = f"trial {verdict.number} ({how}): "
    if verdict.verdict == "refused":
        lines = [f"{head}not trained: {'inputs differ' if len(verdict.inputs) > 1 else 'an input differs'}"]
        return [*lines, *_named(verdict.inputs), "  --anyway trains it all the same"]
    notes = _named(verdict.inputs, "although ")
    if verdict.verdict == "equal":
        same = f"weights {str(verdict.again['state_sha256'])[:12]}, {verdict.again['epochs']} epochs of metrics"
        splits = ", splits" if verdict.again["split_sha256"] else ""
        return [f"{head}equal, bit for bit: {same}{splits} ({verdict.seconds:.1f} s)", *notes]
    lines = [f"{head}NOT equal ({verdict.seconds:.1f} s)", *notes]
    return lines + [f"  {d['what']}: recorded {d['recorded']}, again {d['again']}" for d in verdict.differs]


def _named(found: Sequence[Difference], word: str = "") -> list[str]:
    """A line each; another commit of dlsearch may differ in a hundred files."""
    lines = [f"  {word}{each}" for each in found[:_SHOWN]]
    return [*lines, f"  … and {len(found) - _SHOWN} more (--json lists them)"] if len(found) > _SHOWN else lines


def _sum(name: str, verdicts: Sequence[Verdict], equal: int) -> str:
    kinds = [("pruned", sum(v.state == "pruned" for v in verdicts)), ("resumed", sum(v.resumed for v in verdicts))]
    among = " and ".join(f"{count} {what}" for what, count in kinds if count)
    share = f"{100 * equal / len(verdicts):.0f} %"
    return (
        f"verify {name}: {equal} of {len(verdicts)} trials bit-equal ({share}){f', {among} among them' * bool(among)}"
    )


def reproduce(words: list[str]) -> int:
    """Run a whole study again from its report, in a store of its own, and compare."""
    overrides, rest = split(words)
    arguments = parser("reproduce", "Run a study again from its report.json alone, in another store, and compare.")
    arguments.add_argument(
        "target", metavar="NAME|report.json", help="a study with a report in this store, or the file"
    )
    arguments.add_argument("--store", type=Path, required=True, metavar="DIR", help="where the repetition is written")
    arguments.add_argument("--jobs", type=int, metavar="N", help="trials at a time (default: what the cores allow)")
    arguments.add_argument("--anyway", action="store_true", help="run although an input differs")
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    options = arguments.parse_args(rest)
    _only_places("reproduce", overrides)
    where = place(overrides)
    path = Path(options.target)
    if not options.target.endswith(".json"):
        from dlsearch.tracking import layout

        path = where.store / layout.study_folder(options.target) / "report" / "report.json"
        if not path.is_file():
            raise ConfigError(options.target, f"has no report in {where.store}", f"dlsearch report {options.target}")
    from dlsearch.search import replay
    from dlsearch.search.driver import check_store

    report = replay.load(path)
    store = check_store(options.store)
    if store == where.store:
        raise ConfigError("--store", "expected another store than the study's own", "--store again")
    refused = _inputs(report, where, overrides)
    if refused and not options.anyway:
        if options.json:
            print_json({"study": report["study"]["name"], "inputs": [each.to_json() for each in refused]})
        else:
            print_lines("not run: inputs differ", *_named(refused), "  --anyway runs it all the same")
        return REFUSED
    found = {**_run(report, store, where, options, overrides), "inputs": [each.to_json() for each in refused]}
    bad = [t for t in found["trials"] if t["verdict"] not in ("equal", "skipped")]
    same = not bad and found["winner"]["equal"] and (found["confirmed"] is None or found["confirmed"]["equal"])
    found["equal"] = same and not found["proposals"]
    if options.json:
        print_json(found)
    else:
        print_lines(*_told(found, bad))
    return DONE if found["equal"] else DIFFERENT


def _inputs(report: Mapping[str, Any], where: Place, overrides: Sequence[str]) -> list[Any]:
    """What differs here from what the first trial met."""
    from dlsearch.search.again import Again, repeatable

    study = report["study"]
    document = {**study, "allow_targets": study["config"]["allow_targets"]}
    first = next((trial for trial in report["replay"] if repeatable(trial) is None), None)
    if first is None:
        raise ConfigError("report.json", "holds no trial that can be trained again and compared")
    with Again(document, data=where.data, weights=where.weights, threads=_threads(overrides)) as again:
        return again.look(first)


def _run(
    report: Mapping[str, Any], store: Path, where: Place, options: Any, overrides: Sequence[str]
) -> dict[str, Any]:
    import json

    from dlsearch.config.compose import compose_config
    from dlsearch.search import replay
    from dlsearch.search.database import Storage
    from dlsearch.search.place import storage_url
    from dlsearch.search.record import read_record
    from dlsearch.search.rounds import Rounds
    from dlsearch.search.serve import serve
    from dlsearch.search.slots import cores
    from dlsearch.search.study import Study
    from dlsearch.verbs.study import write_report

    store.mkdir(parents=True, exist_ok=True)
    url, name = storage_url(store, None), report["study"]["name"]
    storage = Storage(url)
    replay.open_replay(storage, report)
    storage.close()
    threads = _threads(overrides) or next(t["inputs"]["threads"] for t in report["replay"] if t["inputs"])
    slots = options.jobs or max(1, cores() // threads)
    started = time.monotonic()
    code = serve(
        compose_config([
            f"worker.join='{name}'", f"worker.threads={threads}", f"worker.slots={slots}", "tracking.enabled=false",
            f"paths.store='{store}'", f"paths.data='{where.data}'", f"paths.cache='{store / 'cache'}'",
            f"paths.weights='{where.weights}'",
        ]),
        foreground=True,
    )  # fmt: skip
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


def _told(found: Mapping[str, Any], bad: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for trial in bad:
        lines.append(f"trial {trial['number']} ({trial['state']}): {trial['verdict']}")
        lines += [f"  {d['what']}: recorded {d['recorded']}, again {d['again']}" for d in trial["differs"]]
    skipped = [t for t in found["trials"] if t["verdict"] == "skipped"]
    equal = sum(t["verdict"] == "equal" for t in found["trials"])
    lines.append(f"reproduce {found['study']}: {equal} of {len(found['trials']) - len(skipped)} trials bit-equal")
    lines += [f"  trial {t['number']} was not run: it {t['why']}" for t in skipped]
    winner = found["winner"]
    other = f"{winner['again']}, recorded {winner['recorded']}"
    lines.append(f"  winner: {'the same' if winner['equal'] else other}")
    confirmed = found["confirmed"]
    if confirmed is not None:
        lines.append(f"  confirmation: {'the same means and weights' if confirmed['equal'] else 'NOT the same'}")
    drawn = found["proposals"]
    told = "not checked: the sampler adapts, so they depend on the order in which results came"
    if drawn is not None:
        told = "the same, drawn again" if not drawn else f"{len(drawn)} differ"
    lines += [f"  proposals: {told}", "  parameters and the ends of pruned trials were taken from the report"]
    return [*lines, f"report: {found['report']}"]
