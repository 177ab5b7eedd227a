"""Rows gathered into the requests that MLflow accepts. Imports no mlflow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dlsearch.tracking import layout

if TYPE_CHECKING:
    from dlsearch.tracking.journal import Row

#: Params and tags that are gathered before they are sent.
_MAX_WORDS = 100
#: Of an item in a request's JSON: an escaped character takes six bytes at most.
_BYTES_A_CHARACTER = 6
_BYTES_A_WORD = 40
_BYTES_A_METRIC = 120


@dataclass(frozen=True)
class MetricValue:
    """A metric at one moment.

    Args:
        key: Its name.
        value: The value.
        at_ms: When it was measured, milliseconds since 1970.
        step: The global step.
    """

    key: str
    value: float
    at_ms: int
    step: int


@dataclass
class Request:
    """What one ``log_batch`` carries.

    Args:
        metrics: In the order of the journal.
        params: Key to value.
        tags: Key to value.
    """

    metrics: list[MetricValue] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class Batch:
    """Consecutive params, metrics and tags rows, sent together."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.all = Request()
        self.long: dict[str, str] = {}  # artifact path to whole value
        self.rows = 0
        self.offset = 0

    def add(self, row: Row, offset: int) -> None:
        """Take a row that ends at `offset` of its journal."""
        self.rows += 1
        self.offset = offset
        values = row["values"]
        if row["row"] == "metrics":
            for key, value in values.items():
                metric = MetricValue(key, float(value), row["t"], row["step"])
                self.all.metrics.append(metric)
        elif row["row"] == "params":
            for key, value in values.items():
                fitting = self._fit_value(key, value, layout.MAX_PARAM)
                self.all.params.setdefault(key, fitting)
        else:
            for key, value in values.items():
                self.all.tags[key] = self._fit_value(
                    key,
                    value,
                    layout.MAX_TAG,
                )

    @property
    def full(self) -> bool:
        """Whether it is time to send."""
        words = len(self.all.params) + len(self.all.tags)
        return len(self.all.metrics) >= layout.MAX_METRICS or words >= _MAX_WORDS

    def requests(self) -> list[Request]:
        """All of it, each request within MLflow's limits of number and size."""
        packer = _Packer()
        for key, value in self.all.params.items():
            cost = _cost_of_word(key, value)
            packer.make_space(cost, "params", layout.MAX_PARAMS)
            packer.last.params[key] = value
        for key, value in self.all.tags.items():
            cost = _cost_of_word(key, value)
            packer.make_space(cost, "tags", layout.MAX_TAGS)
            packer.last.tags[key] = value
        for metric in self.all.metrics:
            cost = _BYTES_A_CHARACTER * len(metric.key) + _BYTES_A_METRIC
            packer.make_space(cost, "metrics", layout.MAX_METRICS)
            packer.last.metrics.append(metric)
        return packer.requests

    def _fit_value(
        self,
        key: str,
        value: str,
        limit: int,
    ) -> str:
        if len(value) <= limit:
            return value
        where = layout.long_value_path(key)
        self.long[where] = value
        return layout.shorten(value, limit, where)


class _Packer:
    """Fills one request after the other."""

    def __init__(self) -> None:
        self.requests = [Request()]
        self._bytes = 0
        self._count = 0

    @property
    def last(self) -> Request:
        """The request that is being filled."""
        return self.requests[-1]

    def make_space(self, cost: int, kind: str, limit: int) -> None:
        """Begin another request where an item does not fit into the last one, and count the item.

        Args:
            cost: Bytes that the item takes.
            kind: The field of a request that it goes into.
            limit: How many items that field may hold.
        """
        in_field = len(getattr(self.last, kind))
        is_full = in_field >= limit or self._count >= layout.MAX_METRICS
        is_large = self._bytes + cost >= layout.MAX_BATCH_BYTES
        if is_full or is_large:
            self.requests.append(Request())
            self._bytes = 0
            self._count = 0
        self._bytes += cost
        self._count += 1


def _cost_of_word(key: str, value: str) -> int:
    return _BYTES_A_CHARACTER * (len(key) + len(value)) + _BYTES_A_WORD
