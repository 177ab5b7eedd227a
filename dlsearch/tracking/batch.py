"""Rows gathered into the requests that MLflow accepts. Imports no mlflow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dlsearch.tracking import layout


@dataclass
class Request:
    """What one ``log_batch`` carries.

    Args:
        metrics: Key, value, timestamp in ms, step.
        params: Key to value.
        tags: Key to value.
    """

    metrics: list[tuple[str, float, int, int]] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class Batch:
    """Consecutive params, metrics and tags rows, sent together."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.all = Request()
        self.long: dict[str, str] = {}  # artifact path to whole value
        self.rows, self.offset = 0, 0

    def add(self, row: dict[str, Any], offset: int) -> None:
        """Take a row that ends at `offset` of its journal."""
        self.rows, self.offset = self.rows + 1, offset
        if row["row"] == "metrics":
            self.all.metrics += [(key, float(value), row["t"], row["step"]) for key, value in row["values"].items()]
        elif row["row"] == "params":
            for key, value in row["values"].items():
                self.all.params.setdefault(key, self._fit(key, value, layout.MAX_PARAM))
        else:
            self.all.tags |= {key: self._fit(key, value, layout.MAX_TAG) for key, value in row["values"].items()}

    @property
    def full(self) -> bool:
        """Whether it is time to send."""
        return len(self.all.metrics) >= layout.MAX_METRICS or len(self.all.params) + len(self.all.tags) >= 100

    def requests(self) -> list[Request]:
        """All of it, each request within MLflow's limits of number and size."""
        found = [Request()]
        size = count = 0

        def room(bytes_: int, kind: list[Any] | dict[str, str], limit: int) -> bool:
            return len(kind) < limit and count < layout.MAX_METRICS and size + bytes_ < layout.MAX_BATCH_BYTES

        for name, limit in (("params", layout.MAX_PARAMS), ("tags", layout.MAX_TAGS)):
            for key, value in getattr(self.all, name).items():
                cost = 6 * (len(key) + len(value)) + 40  # escaped, a character takes six bytes at most
                if not room(cost, getattr(found[-1], name), limit):
                    found.append(Request())
                    size = count = 0
                getattr(found[-1], name)[key] = value
                size, count = size + cost, count + 1
        for metric in self.all.metrics:
            cost = 6 * len(metric[0]) + 120
            if not room(cost, found[-1].metrics, layout.MAX_METRICS):
                found.append(Request())
                size = count = 0
            found[-1].metrics.append(metric)
            size, count = size + cost, count + 1
        return found

    def _fit(self, key: str, value: str, limit: int) -> str:
        if len(value) <= limit:
            return value
        where = layout.long_value_path(key)
        self.long[where] = value
        return layout.shorten(value, limit, where)
