"""``ensemble``: the scores of a finished study's best trials, averaged."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.cli.arguments import Place, parser, place, print_json, print_lines, split
from dlsearch.cli.reading import require_storage
from dlsearch.cli.shipping import SHIPS_REST
from dlsearch.core.errors import ConfigError
from dlsearch.core.files.inside import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dlsearch.app.ensemble import AskedEnsemble, Member
    from dlsearch.study.study import Study

SHIPPING_SECONDS = 60.0
_AS_RECORDED = "as recorded: the test set was not opened again"


def ensemble(words: list[str]) -> int:
    """Average the scores of a study's best trials."""
    overrides, rest = split(words)
    arguments = parser(
        "ensemble",
        "Average the scores of a finished study's best trials; weights chosen on validation.",
    )
    arguments.add_argument("name", help="a finished study")
    arguments.add_argument(
        "--top",
        type=int,
        default=5,
        metavar="K",
        help="how many trials (default 5)",
    )
    arguments.add_argument(
        "--by", default="probabilities", help="average probabilities (default) or logits"
    )
    arguments.add_argument("--validation", action="store_true", help="leave the test set closed")
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    options = arguments.parse_args(rest)
    if options.top < 2:
        raise ConfigError("--top", f"expected 2 or more, got {options.top}")
    if options.by not in ("probabilities", "logits"):
        raise ConfigError("--by", f"expected probabilities or logits, got {options.by!r}")
    from dlsearch.app.ensemble import AskedEnsemble
    from dlsearch.study.study import Study

    where = place(overrides)
    require_storage(where, options.name)
    storage = where.open()
    asked = AskedEnsemble(options.top, options.by)
    try:
        study = Study(storage, options.name)
        result = _find_result(
            study,
            where,
            overrides,
            asked,
            validation=options.validation,
        )
    finally:
        storage.close()
    if options.json:
        print_json(result.found)
    else:
        print_lines(*_describe_ensemble(options.name, result.found), *result.notes)
    return 0


@dataclass(frozen=True)
class _Result:
    """What is known of an ensemble.

    Args:
        found: Its weights and figures, as :mod:`dlsearch.training.ensemble` gives them.
        notes: What is to be said of them.
    """

    found: Mapping[str, Any]
    notes: list[str]


def _find_result(
    study: Study,
    where: Place,
    overrides: list[str],
    asked: AskedEnsemble,
    *,
    validation: bool,
) -> _Result:
    from dlsearch.app import ensemble as ensembles
    from dlsearch.records.record import read_record

    record = read_record(study)
    ensembles.check_study(study, record)
    if not validation:
        before = ensembles.find_recorded(study, record, asked)
        if before is not None:
            return _Result(before, [_AS_RECORDED])
    paths = _absolute_paths(overrides)
    members = ensembles.find_members(
        study,
        record,
        where.store,
        paths,
        asked.top,
    )
    single = ensembles.find_single(
        study,
        record,
        where.store,
        paths,
        members.chosen[0],
    )
    notes = []
    if members.absent:
        numbers = ", ".join(map(str, members.absent))
        notes.append(f"left out, as their checkpoints are not here: trials {numbers}")
    from dlsearch.storage import location
    from dlsearch.tracking import layout

    location.check_folders(where.store, study.name)
    folder = plain(where.store, f"{layout.study_folder(study.name)}/ensemble")
    if validation:
        found = _score_members(
            study,
            members.chosen,
            single,
            asked.by,
            folder,
            None,
        )
        return _Result(found, [*notes, "the test set stayed closed"])
    rows: list[int] = []

    def open_ledger(_: Mapping[str, Any]) -> None:
        rows.append(study.ledger.opened(ensembles.KIND, None, study.seed))

    with ensembles.alone(folder):
        # another process may have scored it until now
        before = ensembles.find_recorded(study, record, asked)
        if before is not None:
            return _Result(before, [_AS_RECORDED])
        scored = _score_members(
            study,
            members.chosen,
            single,
            asked.by,
            folder,
            open_ledger,
        )
        found = {**scored, "left_out": members.absent}
        document = ensembles.ledger_document(found, record, asked)
        study.ledger.scored(rows[0], document)
    found = {**document["ensemble"], "ledger_id": rows[0]}
    notes += _publish_result(
        study,
        where,
        found,
        document["metrics"],
        folder / f"e{rows[0]}",
        is_tracked=_is_tracked(study, overrides),
    )
    return _Result(found, notes)


def _is_tracked(study: Study, overrides: list[str]) -> bool:
    """Whether both the study and this command ship to MLflow."""
    from dlsearch.config.compose import compose_config

    is_tracked_here = compose_config(overrides).tracking.enabled
    return bool(is_tracked_here and study.document["config"]["tracking"]["enabled"])


def _absolute_paths(overrides: list[str]) -> dict[str, str]:
    from dlsearch.config.compose import compose_config, resolve

    paths: dict[str, str] = resolve(compose_config(overrides), "paths")
    absolute = {}
    for key, value in paths.items():
        path = Path(value).expanduser().resolve()
        absolute[key] = str(path)
    return absolute


def _score_members(
    study: Study,
    chosen: Sequence[Member],
    single: Member,
    by: str,
    folder: Path,
    unseal: Callable[[Mapping[str, Any]], None] | None,
) -> Mapping[str, Any]:
    """Weigh the members on validation and, where `unseal` is given, score them on the test set."""
    from dlsearch.execution.ensemble_scoring import EnsembleMember, score_ensemble

    def sent(each: Member) -> EnsembleMember:
        return EnsembleMember(
            each.name,
            each.config,
            str(each.checkpoint),
            dict(each.result),
        )

    return score_ensemble(
        [sent(each) for each in chosen],
        sent(single),
        by,
        study.document["objectives"][0],
        folder,
        unseal,
    )


def _publish_result(
    study: Study,
    where: Place,
    found: Mapping[str, Any],
    metrics: Mapping[str, float],
    folder: Path,
    *,
    is_tracked: bool,
) -> list[str]:
    """Write the result beside the study, into the tracking journal and into the report."""
    from dlsearch.app.reporting import write_report

    folder.mkdir(parents=True, exist_ok=True)
    document = folder / "ensemble.json"
    text = json.dumps(found, indent=1, sort_keys=True)
    document.write_text(f"{text}\n", encoding="utf-8")
    _write_journal(
        study,
        found,
        metrics,
        document,
    )
    report = write_report(study.name, where.storage_url, where.store)
    notes = [f"written: {document}", f"report: {report / 'index.html'}"]
    if is_tracked and not _ship(study, where):
        notes.append(SHIPS_REST)
    return notes


def _write_journal(
    study: Study,
    found: Mapping[str, Any],
    metrics: Mapping[str, float],
    document: Path,
) -> None:
    """The journal of the ensemble's run, beside its document."""
    from dlsearch.tracking import layout
    from dlsearch.tracking.journal import Journal

    chosen = found["chosen"]
    with Journal(document.parent / "journal.jsonl") as journal:
        journal.open(
            "ensemble",
            layout.ensemble_run_name(study.name),
            study.document["experiment"],
            None,
            {**layout.study_tags(study.document), layout.TEST_EVALUATED: "true"},
        )
        params = {
            "members": found["members"],
            "by": found["by"],
            "weights": found["weights"][chosen],
        }
        journal.params(params)
        figures = found["validation"][chosen]
        validated = {f"val/{name}": value for name, value in figures.items()}
        journal.metrics({**validated, **metrics}, 0)
        journal.artifact(document, "")
        journal.status(layout.FINISHED)


def _ship(study: Study, where: Place) -> bool:
    """Have the journals of this store shipped; whether everything has arrived."""
    from dlsearch.tracking import layout
    from dlsearch.tracking.destination import UnknownDestinationError, where_to_ship
    from dlsearch.tracking.mlflow import shipper

    folder = where.store / layout.study_folder(study.name)
    try:
        uri = where_to_ship(
            where.store,
            folder,
            where.tracking_uri,
            typed=False,
        )
    except UnknownDestinationError:
        return False
    return shipper.start(where.store, uri).stop(SHIPPING_SECONDS)


def _describe_ensemble(name: str, found: Mapping[str, Any]) -> list[str]:
    single = found["single"]
    names = [*found["members"], single, "searched weights"]
    width = max(map(len, names))
    lines = [
        f"ensemble of {name}: {len(found['members'])} trials, {found['by']} averaged",
        *_describe_validation(found, width),
        f"chosen on validation: {found['chosen']} weights "
        f"(searched ones have seen these {found['validation']['n']} examples)",
    ]
    if "test" in found:
        lines += _describe_test(found, width)
    return lines


def _describe_validation(found: Mapping[str, Any], width: int) -> list[str]:
    """The figures on validation: a row for each member, for both weightings and the single net."""
    validation = found["validation"]
    keys = list(validation["single"])

    def row(label: str, weights: str, cells: Sequence[str]) -> str:
        columns = "  ".join(f"{cell:>12}" for cell in cells)
        return f"  {label:<{width}}  {weights:>15}  {columns}"

    def figures_row(label: str, weights: str, figures: Mapping[str, float]) -> str:
        return row(label, weights, [f"{figures[key]:.4f}" for key in keys])

    lines = [row("", "weights", [f"val/{key}" for key in keys])]
    equal = found["weights"]["equal"]
    searched = found["weights"]["searched"]
    for index, member in enumerate(found["members"]):
        shares = f"{equal[index]:.3f}, {searched[index]:.3f}"
        lines.append(figures_row(member, shares, validation["each"][member]))
    lines.append(figures_row("equal weights", "", validation["equal"]))
    lines.append(figures_row("searched weights", "", validation["searched"]))
    lines.append(figures_row(found["single"], "", validation["single"]))
    return lines


def _describe_test(found: Mapping[str, Any], width: int) -> list[str]:
    """The figures on the test set."""
    test = found["test"]
    single = found["single"]
    labels = {"single": single, "equal": "equal weights", "searched": "searched weights"}
    lines = [f"test set, {test['n']} examples, opened once for:"]
    for kind, label in labels.items():
        figures = ", ".join(f"test/{key} {value:.4f}" for key, value in test[kind].items())
        mark = "  ← chosen" if kind == found["chosen"] else ""
        lines.append(f"  {label:<{width}}  {figures}{mark}")
    lines.append(
        f"against the {single}, "
        f"the chosen ensemble is right on {test['gained']} more examples"
        f" and wrong on {test['lost']} others"
    )
    return lines
