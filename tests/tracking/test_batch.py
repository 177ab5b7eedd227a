from __future__ import annotations

import json

from dlsearch.tracking.mlflow.batch import Batch


def metric_row(step: int, values: dict[str, float]) -> dict[str, object]:
    return {"row": "metrics", "t": step, "step": step, "values": values}


def test_requests_keep_within_the_limits() -> None:
    batch = Batch()
    for step in range(900):
        batch.add(metric_row(step, {"a": 1.0, "b": float("nan"), "c": 2.0}), step)
    batch.add({"row": "params", "values": {f"p{n}": "v" for n in range(250)}}, 901)
    batch.add({"row": "tags", "values": {f"t{n}": "v" for n in range(130)}}, 902)
    requests = batch.requests()
    for request in requests:
        assert len(request.metrics) + len(request.params) + len(request.tags) <= 1000
        assert len(request.params) <= 100
        assert len(request.tags) <= 100
    assert sum(len(request.metrics) for request in requests) == 2700
    assert len({key for request in requests for key in request.params}) == 250
    assert len({key for request in requests for key in request.tags}) == 130


def test_requests_keep_within_a_megabyte() -> None:
    batch = Batch()
    batch.add({"row": "params", "values": {f"p{n}": "ä" * 6000 for n in range(100)}}, 1)
    for request in batch.requests():
        assert len(json.dumps({"params": request.params})) < 1_000_000


def test_long_values_stand_whole_elsewhere() -> None:
    batch = Batch()
    batch.add({"row": "params", "values": {"cfg/a.b": "x" * 6001}}, 1)
    (request,) = batch.requests()
    assert len(request.params["cfg/a.b"]) == 6000
    assert batch.long == {"long/cfg.a.b.txt": "x" * 6001}


def test_the_first_param_and_the_last_tag_win() -> None:
    batch = Batch()
    for value in ("1", "2"):
        batch.add({"row": "params", "values": {"a": value}}, 1)
        batch.add({"row": "tags", "values": {"a": value}}, 2)
    (request,) = batch.requests()
    assert (request.params, request.tags) == ({"a": "1"}, {"a": "2"})
