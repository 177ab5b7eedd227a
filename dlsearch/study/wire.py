"""The values of a study as JSON and back.

What travels between a worker and a study that is elsewhere.

Types are read from annotations by pydantic, so that a field that is added to a value travels with
it. Only those who send import this: it takes a quarter of a second.
"""

from __future__ import annotations

import functools
import json
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter

T = TypeVar("T")


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def encode(
    kind: Any,
    value: Any,
) -> str:
    """`value` as JSON; `kind` is its type, as annotated.

    Raises:
        pydantic_core.PydanticSerializationError: It is not of that type.
        TypeError: No JSON can hold it.
    """
    # not mode="json", which makes null of an infinite metric
    plain = _adapter(kind).dump_python(value, warnings="error")
    return json.dumps(plain, default=_list_of_set)


def _list_of_set(value: Any) -> list[Any]:
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"no JSON can hold a {type(value).__name__}")


def decode(
    kind: type[T],
    text: str,
) -> T:
    """The value of type `kind` that the JSON describes.

    Raises:
        ValueError: It describes none.
    """
    found: T = _adapter(cast("Any", kind)).validate_python(json.loads(text))
    return found
