"""``ensemble``: the scores of a finished study's best trials, averaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.config.errors import ConfigError
from dlsearch.verbs.words import Place, parser, place, print_json, print_lines, split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlsearch.search.ensembles import Member
    from dlsearch.search.study import Study


def ensemble(words: list[str]) -> int:
    """Average the scores of a study's best trials."""
    overrides, rest = split(words)
    arguments = parser(
        "ensemble", "Average the scores of a finished study's best trials; weights chosen on validation."
    )
    arguments.add_argument("name", help="a finished study")
    arguments.add_argument("--top", type=int, default=5, metavar="K", help="how many trials (default 5)")
    arguments.add_argument("--by", default="probabilities", help="average probabilities (default) or logits")
    arguments.add_argument("--validation", action="store_true", help="leave the test set closed")
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    options = arguments.parse_args(rest)
    if options.top < 2:
        raise ConfigError("--top", f"expected 2 or more, got {options.top}")
    if options.by not in ("probabilities", "logits"):
        raise ConfigError("--by", f"expected probabilities or logits, got {options.by!r}")
    from dlsearch.search import place as places
    from dlsearch.search.study import Study

    where = place(overrides)
    if not places.exists(where.storage_url):
        shown = f"there is no study {options.name!r}: {places.mask(where.storage_url)} does not exist"
        raise ConfigError("study.name", shown)
    storage = where.open()
    try:
        found, told = _found(Study(storage, options.name), where, overrides, options)
    finally:
        storage.close()
    if options.json:
        print_json(found)
    else:
        print_lines(*_lines(options.name, found), *told)
    return 0


def _found(study: Study, where: Place, overrides: list[str], options: Any) -> tuple[dict[str, Any], list[str]]:
    from dlsearch.search import ensembles
    from dlsearch.search.record import read_record

    record = read_record(study)
    ensembles.check(study, record)
    asked = {"top": options.top, "by": options.by}
    if not options.validation:
        before = ensembles.recorded(study, record, asked)
        if before is not None:
            return before, ["as recorded: the test set was not opened again"]
    paths = _paths(overrides)
    chosen, absent = ensembles.members(study, record, where.store, paths, options.top)
    other = ensembles.single(study, record, where.store, paths, chosen[0])
    told = [f"left out, as their checkpoints are not here: trials {', '.join(map(str, absent))}"] if absent else []
    from dlsearch.config.compose import compose_config

    folder = where.store / "studies" / study.name / "ensemble"
    if options.validation:
        found = _score(study, chosen, other, options.by, folder, None)
        return found, [*told, "the test set stayed closed"]
    rows: list[int] = []
    with ensembles.alone(folder):
        before = ensembles.recorded(study, record, asked)  # of whoever was at it until now
        if before is not None:
            return before, ["as recorded: the test set was not opened again"]
        opened = study.ledger.opened
        found = _score(
            study, chosen, other, options.by, folder, lambda _: rows.append(opened(ensembles.KIND, None, study.seed))
        )
        found["left_out"] = absent
        document = ensembles.document(found, record, asked)
        study.ledger.scored(rows[0], document)
    found = {**document["ensemble"], "ledger_id": rows[0]}
    enabled = compose_config(overrides).tracking.enabled and study.document["config"]["tracking"]["enabled"]
    told += _publish(study, where, found, document["metrics"], folder / f"e{rows[0]}", enabled=bool(enabled))
    return found, told


def _paths(overrides: list[str]) -> dict[str, str]:
    from dlsearch.config.compose import compose_config, resolve

    paths: dict[str, str] = resolve(compose_config(overrides), "paths")
    return {key: str(Path(value).expanduser().resolve()) for key, value in paths.items()}


def _score(study: Study, chosen: Sequence[Member], other: Member, by: str, folder: Path, unseal: Any) -> dict[str, Any]:
    from omegaconf import OmegaConf

    from dlsearch.train.ensemble import Ensemble, Trained

    def trained(each: Member) -> Trained:
        return Trained(each.name, OmegaConf.create(each.config), each.checkpoint)

    objective = study.document["objectives"][0].removeprefix("val/")
    objective = objective if objective in ("accuracy", "f1", "loss") else "accuracy"
    return Ensemble([trained(each) for each in chosen], by, objective).run(trained(other), folder, unseal)


def _publish(
    study: Study, where: Place, found: dict[str, Any], metrics: dict[str, float], folder: Path, *, enabled: bool
) -> list[str]:
    """Write the result beside the study, into the tracking journal and into the report."""
    from dlsearch.tracking import layout, shipper
    from dlsearch.tracking.journal import Journal
    from dlsearch.verbs.study import write_report

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ensemble.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    with Journal(folder / "journal.jsonl") as journal:
        tags = {**layout.study_tags(study.document), layout.TEST_EVALUATED: "true"}
        journal.open("ensemble", layout.ensemble_run_name(study.name), study.document["experiment"], None, tags)
        journal.params({"members": found["members"], "by": found["by"], "weights": found["weights"][found["chosen"]]})
        validated = {f"val/{name}": value for name, value in found["validation"][found["chosen"]].items()}
        journal.metrics({**validated, **metrics}, 0)
        journal.artifact(folder / "ensemble.json", "")
        journal.status(layout.FINISHED)
    report = write_report(study.name, where.storage_url, where.store)
    told = [f"written: {folder / 'ensemble.json'}", f"report: {report / 'index.html'}"]
    if enabled:
        ship = shipper.start(where.store, where.tracking_uri)
        if not ship.stop(60.0):
            told.append("tracking: not everything has reached MLflow yet; dlsearch sync ships the rest")
    return told


def _lines(name: str, found: dict[str, Any]) -> list[str]:
    validation, test = found["validation"], found.get("test")
    keys = list(validation["single"])
    lines = [f"ensemble of {name}: {len(found['members'])} trials, {found['by']} averaged"]
    width = max(len(each) for each in (*found["members"], found["single"], "searched weights"))
    lines.append(f"  {'':<{width}}  {'weights':>15}  " + "  ".join(f"{'val/' + key:>12}" for key in keys))

    def row(label: str, weights: str, figures: dict[str, float]) -> str:
        return f"  {label:<{width}}  {weights:>15}  " + "  ".join(f"{figures[key]:>12.4f}" for key in keys)

    for i, each in enumerate(found["members"]):
        shares = f"{found['weights']['equal'][i]:.3f}, {found['weights']['searched'][i]:.3f}"
        lines.append(row(each, shares, validation["each"][each]))
    lines.append(row("equal weights", "", validation["equal"]))
    lines.append(row("searched weights", "", validation["searched"]))
    lines.append(row(found["single"], "", validation["single"]))
    lines.append(
        f"chosen on validation: {found['chosen']} weights (searched ones have seen these {validation['n']} examples)"
    )
    if test is not None:
        lines.append(f"test set, {test['n']} examples, opened once for:")
        for kind, label in (("single", found["single"]), ("equal", "equal weights"), ("searched", "searched weights")):
            shown = ", ".join(f"test/{key} {value:.4f}" for key, value in test[kind].items())
            lines.append(f"  {label:<{width}}  {shown}" + ("  ← chosen" if kind == found["chosen"] else ""))
        lines.append(
            f"against the {found['single']}, the chosen ensemble is right on {test['gained']} more examples"
            f" and wrong on {test['lost']} others"
        )
    return lines
