"""The models of the record: what is declared is what is written, and what is read of a result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints, is_typeddict

import pytest

from dlsearch.core.json_model import LEFT_OUT_IF_NONE, MERGED, NOT_WRITTEN, JsonModel
from dlsearch.core.types import JsonObject
from dlsearch.records import models, status
from dlsearch.records.models import StudyRecord, TrainingRecord, TrialRecord
from dlsearch.records.record import read_record
from dlsearch.records.status import Status, read_status
from dlsearch.study import seen, states
from tests.records.recorded import STUDIES, make_study


@dataclass(frozen=True)
class Inner(JsonModel):
    """A part."""

    a: int
    b: int | None = None


@dataclass(frozen=True)
class Outer(JsonModel):
    """One field of each kind."""

    first: Inner
    several: list[Inner]
    named: dict[str, Inner]
    merged: Inner | None = field(metadata=MERGED)
    absent: int | None = field(metadata=LEFT_OUT_IF_NONE)
    null: int | None
    hidden: int = field(metadata=NOT_WRITTEN)
    tree: JsonObject


def test_fields_are_written_in_their_order() -> None:
    inner = Inner(1)
    model = Outer(inner, [inner], {"x": inner}, Inner(2, 3), None, None, 4, {"deep": [1, None]})
    assert json.dumps(model.to_json()) == json.dumps(
        {
            "first": {"a": 1, "b": None},
            "several": [{"a": 1, "b": None}],
            "named": {"x": {"a": 1, "b": None}},
            "a": 2,
            "b": 3,
            "null": None,
            "tree": {"deep": [1, None]},
        }
    )


def test_what_is_left_out_if_none_is_written_otherwise_and_nothing_is_merged_of_none() -> None:
    document = Outer(Inner(1), [], {}, None, 5, 6, 7, {}).to_json()
    assert document["absent"] == 5
    assert "a" not in document


def test_a_result_fills_the_columns_of_its_names() -> None:
    said = {each.name: f"<{each.name}>" for each in fields(TrainingRecord)}
    assert TrainingRecord.from_result({**said, "other": 1}).to_json() == said
    assert TrainingRecord.from_result({"epochs": None, "breaches": None}) == TrainingRecord()


def test_every_column_of_a_training_is_a_column_of_its_trial() -> None:
    names = [each.name for each in fields(TrialRecord)]
    assert "training" in names
    assert not {each.name for each in fields(TrainingRecord)} & set(names)


# -- the declared types are those of the values ------------------------------------------------------
def hints_of(kind: type) -> dict[str, Any]:
    """The types of the fields, as declared; what is imported for the type checker alone is given."""
    known = {**vars(models), **vars(states), **vars(seen), **vars(status)}
    known |= {"JsonObject": dict, "ConfigTree": dict, "Params": dict}
    return get_type_hints(kind, known)


def mismatches(kind: Any, value: Any, where: str) -> Iterator[str]:
    """Where a value is not of the type that is declared for it."""
    origin = get_origin(kind)
    if kind is Any or (kind is float and type(value) is int):
        return
    if origin in (Union, UnionType):
        found = [list(mismatches(each, value, where)) for each in get_args(kind)]
        if all(found):
            yield from min(found, key=len)
    elif origin is list and isinstance(value, list):
        for index, each in enumerate(value):
            yield from mismatches(get_args(kind)[0], each, f"{where}[{index}]")
    elif origin is dict and isinstance(value, dict):
        for key, each in value.items():
            yield from mismatches(get_args(kind)[0], key, f"{where}, a key")
            yield from mismatches(get_args(kind)[1], each, f"{where}.{key}")
    elif is_dataclass(kind) and isinstance(kind, type) and isinstance(value, kind):
        for name, hint in hints_of(kind).items():
            yield from mismatches(hint, getattr(value, name), f"{where}.{name}")
    elif is_typeddict(kind):
        if not isinstance(value, dict) or not set(value) <= set(kind.__annotations__):
            yield f"{where}: {value!r} has other keys than {kind.__name__}"
    elif not isinstance(value, origin or kind):
        yield f"{where}: {value!r} is no {kind}"


@pytest.mark.parametrize("name", STUDIES)
def test_the_values_are_of_the_declared_types(name: str, tmp_path: Path) -> None:
    study = make_study(name, tmp_path)
    record = read_record(study)
    found = read_status(study, tmp_path)
    study.storage.close()
    assert list(mismatches(StudyRecord, record, "record")) == []
    assert list(mismatches(Status, found, "status")) == []


def test_a_value_of_another_type_is_found() -> None:
    assert list(mismatches(list[int | None], [1, None, "2"], "x")) == [
        "x[2]: '2' is no <class 'int'>"
    ]
