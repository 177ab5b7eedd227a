"""The study document and the test ledger of a record, read into what the report needs of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlsearch.report.formats import NONE
from dlsearch.report.study import (
    DataDescription,
    Dimension,
    DimensionKind,
    LedgerRow,
    ModelDescription,
    Provenance,
    StudyDocument,
    TestedReplica,
)


def read_document(study: Mapping[str, Any]) -> StudyDocument:
    """Read the study document, whose sections may be missing or null."""
    overrides = _list_of(study, "overrides")
    slots = _list_of(study, "slots")
    space = _list_of(study, "space")
    return StudyDocument(
        name=str(study["name"]),
        state=study.get("state"),
        seconds=study.get("seconds"),
        command=study.get("command"),
        overrides=tuple(str(word) for word in overrides),
        slots=tuple(_name_slot(slot) for slot in slots),
        space=tuple(_read_dimension(dimension) for dimension in space),
        sampler=_mapping_of(study, "sampler"),
        config=_mapping_of(study, "config"),
        data=_read_data(_mapping_of(study, "data")),
        model=_read_model(_mapping_of(study, "model")),
        provenance=_read_provenance(_mapping_of(study, "provenance")),
    )


def read_ledger_row(row: Mapping[str, Any]) -> LedgerRow:
    """Read one row of the test ledger."""
    refit = _mapping_of(row, "refit")
    replicas = _list_of(row, "replicas")
    return LedgerRow(
        ledger_id=row.get("ledger_id"),
        kind=row.get("kind"),
        round=row.get("round"),
        trial_number=row.get("trial_number"),
        seed=row.get("seed"),
        evaluated_at=row.get("evaluated_at"),
        n=row.get("n"),
        scored=bool(row.get("scored")),
        metrics=_mapping_of(row, "metrics"),
        confusion=_list_of(row, "confusion"),
        classes=_list_of(row, "classes"),
        errors=_list_of(row, "errors"),
        value=row.get("value"),
        refit_metrics=refit.get("metrics"),
        replicas=tuple(_read_tested_replica(replica) for replica in replicas),
        ensemble=row.get("ensemble"),
        first_layer=row.get("first_layer"),
        inside=row.get("inside"),
    )


def _read_tested_replica(raw: Mapping[str, Any]) -> TestedReplica:
    return TestedReplica(
        replica=raw.get("replica"),
        seed=raw.get("seed"),
        metrics=_mapping_of(raw, "metrics"),
    )


def _name_slot(slot: Mapping[str, Any]) -> str:
    return name_place(slot.get("worker"), slot.get("slot"))


def name_place(worker: Any, slot: Any) -> str:
    """A slot by its worker and its own name: ``w0 / 1``."""
    known = [str(part) for part in (worker, slot) if part is not None]
    return " / ".join(known) or NONE


def _read_dimension(raw: Mapping[str, Any]) -> Dimension:
    choices = raw.get("choices")
    return Dimension(
        name=str(raw["name"]),
        kind=_read_kind(raw.get("kind")),
        low=raw.get("low"),
        high=raw.get("high"),
        log=bool(raw.get("log")),
        step=raw.get("step"),
        choices=None if choices is None else tuple(choices),
        added=bool(raw.get("added")),
    )


def _read_kind(kind: object) -> DimensionKind:
    """The kind of a dimension; values of an unknown kind are treated as categories."""
    for known in DimensionKind:
        if kind == known:
            return known
    return DimensionKind.CATEGORICAL


def _read_data(raw: Mapping[str, Any]) -> DataDescription:
    overlap = _mapping_of(raw, "overlap")
    return DataDescription(
        known=bool(raw),
        sizes=_mapping_of(raw, "sizes"),
        digests=_mapping_of(raw, "digests"),
        class_counts=_mapping_of(raw, "class_counts"),
        classes=_list_of(raw, "classes"),
        shape=raw.get("shape"),
        overlap_index=overlap.get("index"),
        overlap_content=overlap.get("content"),
    )


def _read_model(raw: Mapping[str, Any]) -> ModelDescription:
    return ModelDescription(
        n_params=raw.get("n_params"),
        macs=raw.get("macs"),
        layers=_list_of(raw, "layers"),
    )


def _read_provenance(raw: Mapping[str, Any]) -> Provenance:
    return Provenance(
        commit=raw.get("commit"),
        dirty=bool(raw.get("dirty")),
        packages=_mapping_of(raw, "packages"),
        lock=raw.get("lock"),
        threads=raw.get("threads"),
        cpu=raw.get("cpu"),
        platform=raw.get("platform"),
        gpus=_list_of(raw, "gpus"),
        nondeterministic=_list_of(raw, "nondeterministic"),
    )


def _mapping_of(raw: Mapping[str, Any], key: str) -> Any:
    """The mapping of this key; empty where it is missing or null."""
    return raw.get(key) or {}


def _list_of(raw: Mapping[str, Any], key: str) -> Any:
    """The list of this key; empty where it is missing or null."""
    return raw.get(key) or []
