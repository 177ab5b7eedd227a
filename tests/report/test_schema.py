"""report.json against its published schema, and against what must hold in any study."""

from __future__ import annotations

import copy
import json
from importlib import resources
from typing import Any

import pytest

from dlsearch.report.facts import contents
from dlsearch.report.facts.facts import facts
from dlsearch.report.load import view
from tests.report.invariants import invariants

jsonschema = pytest.importorskip("jsonschema")


@pytest.fixture(scope="module")
def validator() -> Any:
    """Of the schema that is in the package."""
    schema = json.loads(
        resources.files("dlsearch.report").joinpath("schema.json").read_text("utf-8")
    )
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def facts_of(record: dict[str, Any]) -> dict[str, Any]:
    """As ``report.json`` holds them."""
    return json.loads(json.dumps(facts(view(record)), allow_nan=False))


def everything(record: dict[str, Any]) -> dict[str, Any]:
    """The simulated study, with a lost replica and a breach beside its pruned, failed, retried and duplicate trials."""
    final = record["finalization"]
    lost = final["configurations"][0]["replicas"][3]
    lost.update(state="failed", reason="lost", value=None, values=None)
    done = [r["value"] for r in final["configurations"][0]["replicas"] if r["value"] is not None]
    final["configurations"][0]["mean"] = sum(done) / len(done)
    record["trials"][3]["breaches"] = [{"how": "loader", "what": "asked for the test loader"}]
    return record


def test_the_schema_holds(validator: Any, record: dict[str, Any], make_record: Any) -> None:
    for r in (everything(record), make_record(confirmed=False), make_record(3, confirmed=False)):
        f = facts_of(r)
        assert [e.message for e in validator.iter_errors(f)] == []


def keys_of(schema: dict[str, Any], *path: str) -> set[str]:
    """The keys that the schema requires at a place; ``[]`` steps into the elements of a list."""
    node = schema
    for step in path:
        node = node["items"] if step == "[]" else node["properties"][step]
    return set(node["required"])


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (contents.ObjectiveRow, ("objectives", "[]")),
        (contents.Won, ("won",)),
        (contents.Accounting, ("accounting",)),
        (contents.DuplicateRow, ("accounting", "duplicates", "[]")),
        (contents.Compute, ("compute",)),
        (contents.Course, ("course",)),
        (contents.Importances, ("importances",)),
        (contents.Edge, ("edges", "[]")),
        (contents.Resolution, ("resolution",)),
        (contents.Confirmation, ("confirmation",)),
        (contents.Optimism, ("optimism",)),
        (contents.TestFacts, ("test",)),
        (contents.EnsembleRow, ("test", "ensembles", "[]")),
        (contents.BreachRow, ("breaches", "[]")),
        (contents.DataFacts, ("data",)),
        (contents.NamedGap, ("gaps", "[]")),
        (contents.Commands, ("reproduce",)),
        (contents.Claim, ("claim",)),
        (contents.ChecklistRow, ("checklist", "[]")),
    ],
)
def test_the_types_have_the_keys_of_the_schema(validator: Any, model: Any, path: Any) -> None:
    assert set(model.__annotations__) <= set(model.__required_keys__)
    assert model.__required_keys__ == keys_of(validator.schema, *path)


def test_the_report_has_the_keys_of_the_schema(validator: Any) -> None:
    # reports of earlier versions lack what a repetition starts from, and know no comparison
    lacking = {"replay", "again", "arms"}
    assert keys_of(validator.schema) == contents.Report.__required_keys__ - lacking
    assert set(validator.schema["properties"]) == contents.Report.__required_keys__


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (contents.TrialRow, "trial"),
        (contents.AttemptRow, "attempt"),
        (contents.ReplicaRow, "replica"),
        (contents.OpeningRow, "opening"),
    ],
)
def test_the_types_have_the_keys_of_the_definitions(validator: Any, model: Any, name: str) -> None:
    assert model.__required_keys__ == set(validator.schema["$defs"][name]["required"])


@pytest.mark.parametrize(
    ("model", "name"), [(contents.FinalistRow, "finalist"), (contents.Comparison, "comparison")]
)
def test_what_has_a_mean_has_its_keys_too(validator: Any, model: Any, name: str) -> None:
    definitions = validator.schema["$defs"]
    own = set(definitions[name]["allOf"][1]["required"])
    if name == "finalist":
        own |= {"arm"}  # reports of earlier versions know no comparison
    assert model.__required_keys__ == own | set(definitions["mean"]["required"])


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: f.pop("claim"),
        lambda f: f.update(extra=1),
        lambda f: f["trials"][0].update(state="COMPLETE"),
        lambda f: f["confirmation"]["comparisons"][0].update(probability=1.5),
        lambda f: f["checklist"][0].update(answer="perhaps"),
        lambda f: f["confirmation"]["finalists"][0].update(interval=[1.0]),
    ],
)
def test_the_schema_refuses(validator: Any, record: dict[str, Any], damage: Any) -> None:
    f = facts_of(record)
    damage(f)
    assert not validator.is_valid(f)


def test_the_invariants_hold(record: dict[str, Any]) -> None:
    f = facts_of(everything(record))
    states = {x["state"] for x in f["trials"]}
    assert {"complete", "pruned", "failed"} <= states
    assert f["accounting"]["retried"]
    assert f["accounting"]["duplicates"]
    found = invariants(f)
    assert len(found) >= 30
    assert [name for name, holds in found.items() if not holds] == []


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda f: f["accounting"]["counts"].update(failed=2), "states are counted"),
        (lambda f: f["trials"].reverse(), "numbers are 0, 1, 2"),
        (
            lambda f: f["confirmation"]["finalists"][0].update(mean=0.5),
            "means are those of the replicas",
        ),
        (lambda f: f["confirmation"]["seeds"].reverse(), "replicas are paired by seed"),
        (lambda f: f["test"]["openings"].pop(), "every score has its opening"),
        (
            lambda f: f["confirmation"]["comparisons"][0].update(probability=0.5),
            "probabilities are those of the t test",
        ),
    ],
)
def test_an_invariant_can_fail(record: dict[str, Any], damage: Any, named: str) -> None:
    f = copy.deepcopy(facts_of(record))
    assert invariants(f)[named]
    damage(f)
    assert not invariants(f)[named]
