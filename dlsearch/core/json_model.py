"""Frozen dataclasses that are written as JSON: a key for each field, in the order of the fields."""

from __future__ import annotations

from dataclasses import fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlsearch.core.types import JsonObject

_WAY = "json"

#: Metadata of a field that is left out of the JSON where its value is None; others are null then.
LEFT_OUT_IF_NONE = MappingProxyType({_WAY: "left out if none"})

#: Metadata of a field whose keys stand among those of the object that has it. A key that stands
#: there already keeps its place and gets the new value. None has no keys.
MERGED = MappingProxyType({_WAY: "merged"})

#: Metadata of a field that is not written.
NOT_WRITTEN = MappingProxyType({_WAY: "not written"})


class JsonModel:
    """A dataclass that is written as a JSON object.

    A field that is added to the class is a key that is added to the JSON.
    """

    def to_json(self) -> JsonObject:
        """As plain JSON, the models within it too."""
        document: JsonObject = {}
        for each in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value = getattr(self, each.name)
            if each.metadata == NOT_WRITTEN:
                continue
            if each.metadata == LEFT_OUT_IF_NONE and value is None:
                continue
            if each.metadata == MERGED:
                document.update(plain_json(value) or {})
            else:
                document[each.name] = plain_json(value)
        return document


def plain_json(value: Any) -> Any:
    """A value of a model as plain JSON.

    A list, or a mapping, is of models throughout or of none: what holds none is taken as it is.
    """
    if isinstance(value, JsonModel):
        return value.to_json()
    if isinstance(value, list) and value and isinstance(value[0], JsonModel):
        return [each.to_json() for each in value]
    if isinstance(value, dict) and isinstance(next(iter(value.values()), None), JsonModel):
        return {key: each.to_json() for key, each in value.items()}
    return value
