"""Checks an ONNX file before onnxruntime reads it; needs neither of its packages.

A graph may keep a tensor in another file, which it names; and operators of onnxruntime's own read
files. What ``dlsearch export`` writes does neither.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Which fields of a message hold messages that are looked through, as onnx.proto numbers them.
_INNER: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse",
        23: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA = 13
_DATA_LOCATION = 14
_NODE_OPERATOR = 4
_NODE_DOMAIN = 7
_FUNCTION_DOMAIN = 10
_LOOPS = frozenset({b"Loop", b"Scan"})
_DOMAINS = frozenset({b"", b"ai.onnx"})
_MAX_DEPTH = 50


class NotReadError(ValueError):
    """A file is no ONNX graph, or names other files or operators."""


def check_onnx(path: Path) -> None:
    """Refuse a graph that keeps tensors in other files, or uses operators that are not ONNX's.

    Raises:
        NotReadError: It does, or is no such graph.
        OSError: It cannot be read.
    """
    if path.stat().st_size == 0:
        raise NotReadError("is empty")
    with (
        path.open("rb") as file,
        mmap.mmap(
            file.fileno(),
            0,
            access=mmap.ACCESS_READ,
        ) as content,
    ):
        domains = _DOMAINS | _domains_of_own_functions(content)
        _check_message(content, 0, len(content), "model", domains, 0)


def _domains_of_own_functions(content: mmap.mmap) -> frozenset[bytes]:
    """Domains of the operators that the file itself defines, out of others."""
    found = set()
    for number, begin, end in _read_fields(content, 0, len(content)):
        if _INNER["model"].get(number) != "function":
            continue
        for inner_number, at, to in _read_fields(content, begin, end):
            if inner_number == _FUNCTION_DOMAIN:
                found.add(bytes(content[at:to]))
    return frozenset(found)


def _check_message(
    content: mmap.mmap,
    begin: int,
    end: int,
    kind: str,
    domains: frozenset[bytes],
    depth: int,
) -> None:
    if depth > _MAX_DEPTH:
        raise NotReadError("has graphs within graphs, too deeply")
    inner = _INNER[kind]
    for number, at, to in _read_fields(content, begin, end):
        if number in inner:
            _check_message(content, at, to, inner[number], domains, depth + 1)
        elif kind == "tensor":
            _check_tensor_field(number, bytes(content[at : min(to, at + 2)]))
        elif kind == "node" and number in (_NODE_OPERATOR, _NODE_DOMAIN):
            _check_node_field(number, bytes(content[at:to]), domains)


def _check_tensor_field(number: int, first_bytes: bytes) -> None:
    is_elsewhere = number == _DATA_LOCATION and first_bytes != b"\0"
    if number == _EXTERNAL_DATA or is_elsewhere:
        raise NotReadError("keeps a tensor in another file, which is not read")


def _check_node_field(number: int, value: bytes, domains: frozenset[bytes]) -> None:
    if number == _NODE_OPERATOR and value in _LOOPS:
        raise NotReadError(
            "holds a loop, which may go on for ever; export the model as a torch program"
        )
    if number == _NODE_DOMAIN and value not in domains:
        raise NotReadError(f"uses operators of {value[:50]!r}, which are not run")


def _read_fields(
    content: mmap.mmap,
    begin: int,
    end: int,
) -> Iterator[tuple[int, int, int]]:
    """The fields of a message: number, and where the value begins and ends."""
    at = begin
    while at < end:
        key, at = _read_varint(content, at, end)
        number = key >> 3
        wire = key & 7
        if wire == 0:
            _, to = _read_varint(content, at, end)
        elif wire == 2:
            size, at = _read_varint(content, at, end)
            to = at + size
        elif wire in (1, 5):
            to = at + (8 if wire == 1 else 4)
        else:
            raise NotReadError("is no ONNX graph")
        if to > end or number == 0:
            raise NotReadError("is no ONNX graph")
        yield number, at, to
        at = to


def _read_varint(content: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise NotReadError("is no ONNX graph")
