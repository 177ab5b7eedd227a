"""``ensemble``: the scores of a finished study's best trials, averaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.cli.arguments import Place, parser, place, print_json, print_lines, split
from dlsearch.cli.reading import require_storage
from dlsearch.cli.shipping import SHIPS_REST
from dlsearch.core.errors import ConfigError
from dlsearch.core.files.inside import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlsearch.app.ensemble import Member
    from dlsearch.study.study import Study


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
    from dlsearch.study.study import Study

    where = place(overrides)
    require_storage(where, options.name)
    storage = where.open()
    try:
        found, notes = _find_result(Study(storage, options.name), where, overrides, options)
    finally:
        storage.close()
    if options.json:
        print_json(found)
    else:
        print_lines(*_describe_ensemble(options.name, found), *notes)
    return 0


def _find_result(
    study: Study,
    where: Place,
    overrides: list[str],
    options: Any,
) -> tuple[dict[str, Any], list[str]]:
    from dlsearch.app import ensemble as ensembles
    from dlsearch.records.record import read_record

    record = read_record(study)
    ensembles.check(study, record)
    asked = {"top": options.top, "by": options.by}
    if not options.validation:
        before = ensembles.recorded(study, record, asked)
        if before is not None:
            return before, ["as recorded: the test set was not opened again"]
    paths = _absolute_paths(overrides)
    chosen, absent = ensembles.members(study, record, where.store, paths, options.top)
    other = ensembles.single(study, record, where.store, paths, chosen[0])
    notes = (
        [f"left out, as their checkpoints are not here: trials {', '.join(map(str, absent))}"]
        if absent
        else []
    )
    from dlsearch.config.compose import compose_config
    from dlsearch.storage import location as places
    from dlsearch.tracking import layout

    places.check_folders(where.store, study.name)
    folder = plain(where.store, f"{layout.study_folder(study.name)}/ensemble")
    if options.validation:
        found = _score_members(study, chosen, other, options.by, folder, None)
        return found, [*notes, "the test set stayed closed"]
    rows: list[int] = []
    with ensembles.alone(folder):
        before = ensembles.recorded(
            study, record, asked
        )  # another process may have scored it until now
        if before is not None:
            return before, ["as recorded: the test set was not opened again"]
        opened = study.ledger.opened
        found = _score_members(
            study,
            chosen,
            other,
            options.by,
            folder,
            lambda _: rows.append(opened(ensembles.KIND, None, study.seed)),
        )
        found["left_out"] = absent
        document = ensembles.document(found, record, asked)
        study.ledger.scored(rows[0], document)
    found = {**document["ensemble"], "ledger_id": rows[0]}
    enabled = (
        compose_config(overrides).tracking.enabled
        and study.document["config"]["tracking"]["enabled"]
    )
    notes += _publish_result(
        study, where, found, document["metrics"], folder / f"e{rows[0]}", enabled=bool(enabled)
    )
    return found, notes


def _absolute_paths(overrides: list[str]) -> dict[str, str]:
    from dlsearch.config.compose import compose_config, resolve

    paths: dict[str, str] = resolve(compose_config(overrides), "paths")
    return {key: str(Path(value).expanduser().resolve()) for key, value in paths.items()}


def _score_members(
    study: Study,
    chosen: Sequence[Member],
    other: Member,
    by: str,
    folder: Path,
    unseal: Any,
) -> dict[str, Any]:
    from omegaconf import OmegaConf

    from dlsearch.training.ensemble import Ensemble, Trained
    from dlsearch.training.inputs import expected_of

    def trained(each: Member) -> Trained:
        expected = expected_of(study.document["objectives"][0], each.result, each.config)
        return Trained(each.name, OmegaConf.create(each.config), each.checkpoint, expected)

    objective = study.document["objectives"][0].removeprefix("val/")
    objective = objective if objective in ("accuracy", "f1", "loss") else "accuracy"
    ensemble = Ensemble([trained(each) for each in chosen], by, objective)
    return dict(ensemble.run(trained(other), folder, unseal))


def _publish_result(
    study: Study,
    where: Place,
    found: dict[str, Any],
    metrics: dict[str, float],
    folder: Path,
    *,
    enabled: bool,
) -> list[str]:
    """Write the result beside the study, into the tracking journal and into the report."""
    from dlsearch.app.reporting import write_report
    from dlsearch.tracking import layout
    from dlsearch.tracking.destination import UnknownDestinationError, where_to_ship
    from dlsearch.tracking.journal import Journal
    from dlsearch.tracking.mlflow import shipper

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ensemble.json").write_text(
        json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )
    with Journal(folder / "journal.jsonl") as journal:
        tags = {**layout.study_tags(study.document), layout.TEST_EVALUATED: "true"}
        journal.open(
            "ensemble",
            layout.ensemble_run_name(study.name),
            study.document["experiment"],
            None,
            tags,
        )
        journal.params(
            {
                "members": found["members"],
                "by": found["by"],
                "weights": found["weights"][found["chosen"]],
            }
        )
        validated = {
            f"val/{name}": value for name, value in found["validation"][found["chosen"]].items()
        }
        journal.metrics({**validated, **metrics}, 0)
        journal.artifact(folder / "ensemble.json", "")
        journal.status(layout.FINISHED)
    report = write_report(study.name, where.storage_url, where.store)
    notes = [f"written: {folder / 'ensemble.json'}", f"report: {report / 'index.html'}"]
    if enabled:
        try:
            uri = where_to_ship(
                where.store,
                where.store / layout.study_folder(study.name),
                where.tracking_uri,
                typed=False,
            )
            shipped = shipper.start(where.store, uri).stop(60.0)
        except UnknownDestinationError:
            shipped = False
        if not shipped:
            notes.append(SHIPS_REST)
    return notes


def _describe_ensemble(name: str, found: dict[str, Any]) -> list[str]:
    validation = found["validation"]
    test = found.get("test")
    keys = list(validation["single"])
    lines = [f"ensemble of {name}: {len(found['members'])} trials, {found['by']} averaged"]
    width = max(len(each) for each in (*found["members"], found["single"], "searched weights"))
    lines.append(
        f"  {'':<{width}}  {'weights':>15}  " + "  ".join(f"{'val/' + key:>12}" for key in keys)
    )

    def row(label: str, weights: str, figures: dict[str, float]) -> str:
        return f"  {label:<{width}}  {weights:>15}  " + "  ".join(
            f"{figures[key]:>12.4f}" for key in keys
        )

    for i, each in enumerate(found["members"]):
        shares = f"{found['weights']['equal'][i]:.3f}, {found['weights']['searched'][i]:.3f}"
        lines.append(row(each, shares, validation["each"][each]))
    lines.append(row("equal weights", "", validation["equal"]))
    lines.append(row("searched weights", "", validation["searched"]))
    lines.append(row(found["single"], "", validation["single"]))
    lines.append(
        f"chosen on validation: {found['chosen']} weights "
        f"(searched ones have seen these {validation['n']} examples)"
    )
    if test is not None:
        lines.append(f"test set, {test['n']} examples, opened once for:")
        for kind, label in (
            ("single", found["single"]),
            ("equal", "equal weights"),
            ("searched", "searched weights"),
        ):
            shown = ", ".join(f"test/{key} {value:.4f}" for key, value in test[kind].items())
            lines.append(
                f"  {label:<{width}}  {shown}" + ("  ← chosen" if kind == found["chosen"] else "")
            )
        lines.append(
            f"against the {found['single']}, "
            f"the chosen ensemble is right on {test['gained']} more examples"
            f" and wrong on {test['lost']} others"
        )
    return lines
