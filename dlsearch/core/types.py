"""Names for trees whose shape is open: what a user's keys, or another program, decide."""

from __future__ import annotations

from typing import Any, TypeAlias

#: A JSON object of unknown shape. What has a known shape has a class of its own.
JsonObject: TypeAlias = dict[str, Any]

#: A composed config as plain data, or a part of one: nothing in it is resolved later.
ConfigTree: TypeAlias = dict[str, Any]

#: The value of a searched key: a number, a word, a truth value, null, or the tree that an option
#: of a config group stands for.
ParamValue: TypeAlias = Any

#: Searched values by key.
Params: TypeAlias = dict[str, ParamValue]
