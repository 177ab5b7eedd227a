"""Runs the graph of a ``torch.export`` program, operator by operator.

It needs no more than the program's JSON and its tensors.

``torch.export.load`` evaluates the expressions of a file, compiles its guards and the names of its
nodes as Python, imports what its argument trees name, and unpickles its example inputs. None of
that is needed to compute outputs, and none of it happens here: a node is an operator of torch's
own, called with tensors, numbers and text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from dlsearch.inference.operators import find_operator
from dlsearch.inference.reading import NotRunError
from dlsearch.inference.stored_tensors import (
    DTYPES,
    LARGEST,
    list_members,
    read_json,
    read_tensors,
)

if TYPE_CHECKING:
    import zipfile

    from torch import Tensor

#: What is computed, by its name in the graph: tensors, numbers, text, and lists of these.
Values: TypeAlias = dict[str, Any]

#: Of the format that torch 2.8 and later write.
SCHEMA_MAJOR = 8
#: A graph may hold so many operators.
MAX_NODES = 50_000
#: Graphs within graphs: the branches of a condition within a block of another precision, say.
MAX_NESTING = 8
_MAX_ERROR_CHARACTERS = 200

_LAYOUTS = {7: torch.strided}
_POSITIONAL = 1
_MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}

_HIGHER = "torch.ops.higher_order."


@dataclass(frozen=True)
class _Name:
    """Stands for the value of that name."""

    name: str


@dataclass(frozen=True)
class _Node:
    """One call. `outputs` are names, None for what is unused, and sequences of these."""

    target: str
    call: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    outputs: Any
    last_uses: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """What is called, in order.

    Args:
        inputs: Names of the inputs.
        nodes: The calls.
        outputs: What is returned.
    """

    inputs: tuple[str, ...]
    nodes: tuple[_Node, ...]
    outputs: tuple[Any, ...]

    def __call__(self, *values: Any) -> tuple[Any, ...]:
        """Run it."""
        expected = len(self.inputs)
        if len(values) != expected:
            raise NotRunError(f"a graph takes {expected} values and gets {len(values)}")
        known: Values = dict(zip(self.inputs, values, strict=True))
        for node in self.nodes:
            arguments = _fill_names(node.arguments, known)
            keywords = _fill_names(node.keywords, known)
            result = node.call(*arguments, **keywords)
            _bind_outputs(node.outputs, result, known)
            for name in node.last_uses:
                known.pop(name, None)
        return tuple(_fill_names(self.outputs, known))


class Program:
    """A program: from a batch of inputs to a batch of outputs.

    Args:
        archive: Whose members are as they were stored, see
            :func:`dlsearch.core.files.stored.open_stored`.

    Raises:
        NotRunError: It is no such program, or asks for something that is not run.
        KeyError, TypeError, ValueError, IndexError, AttributeError: It does not even look like one.
    """

    def __init__(self, archive: zipfile.ZipFile) -> None:
        """Read it."""
        members = list_members(archive)
        document = read_json(archive, members["models/model.json"])
        if document["schema_version"]["major"] != SCHEMA_MAJOR:
            raise NotRunError("was written by another version of torch: export the model again")
        module = document["graph_module"]
        tensors = read_tensors(archive, members)
        graph = module["graph"]
        input_specs = module["signature"]["input_specs"]
        output_specs = module["signature"]["output_specs"]
        if len(input_specs) != len(graph["inputs"]):
            raise NotRunError("its signature is not that of its graph")
        #: what the graph is given; None for the batch
        self._given = [_given_value(spec, tensors) for spec in input_specs]
        self._shape = _shape_of_batch(graph, self._given)
        #: what its outputs are written into; None for the one that is returned
        self._written = [_written_buffer(spec, tensors) for spec in output_specs]
        if sum(each is None for each in self._written) != 1:
            raise NotRunError("does not give exactly one tensor")
        self._graph = _read_graph(graph, _Count())

    def __call__(self, x: Tensor) -> Tensor:
        """Outputs for a batch.

        Raises:
            NotRunError: The batch is of another shape than the program's, or one of its calls
                fails.
        """
        self._check_shape(x)
        values = [x if each is None else each for each in self._given]
        try:
            outputs = self._graph(*values)
        except NotRunError:
            raise
        except Exception as error:  # operators raise what their many authors chose
            text = str(error).strip() or type(error).__name__
            line = text.splitlines()[0][:_MAX_ERROR_CHARACTERS]
            raise NotRunError(f"cannot be run: {line}") from error
        found = self._take_outputs(outputs)
        if not isinstance(found, torch.Tensor):
            raise NotRunError("does not give exactly one tensor")
        return found

    def _check_shape(self, x: Tensor) -> None:
        if not self._fits(x):
            sizes = ["any" if size is None else str(size) for size in self._shape]
            shown = ", ".join(sizes)
            raise NotRunError(f"takes inputs of the shape ({shown}), not {tuple(x.shape)}")

    def _fits(self, x: Tensor) -> bool:
        if len(x.shape) != len(self._shape):
            return False
        pairs = zip(x.shape, self._shape, strict=True)
        return all(wanted is None or size == wanted for size, wanted in pairs)

    def _take_outputs(self, outputs: tuple[Any, ...]) -> Any:
        """The one output that is returned; the others are written into buffers."""
        returned: Any = None
        for buffer, value in zip(self._written, outputs, strict=True):
            if buffer is None:
                returned = value
            else:
                buffer.copy_(value)
        return returned


# -- the signature ---------------------------------------------------------------------------------
_INPUTS = {
    "parameter": "parameter_name",
    "buffer": "buffer_name",
    "tensor_constant": "tensor_constant_name",
}


def _shape_of_batch(graph: Mapping[str, Any], given: Sequence[Tensor | None]) -> list[int | None]:
    """Sizes of the one input that the caller gives; None for one that is free.

    Args:
        graph: The program's.
        given: What its inputs are; None for the caller's.
    """
    places = [number for number, each in enumerate(given) if each is None]
    if len(places) != 1:
        raise NotRunError("does not take exactly one tensor")
    name = graph["inputs"][places[0]]["as_tensor"]["name"]
    sizes = graph["tensor_values"][name]["sizes"]
    return [size.get("as_int") for size in sizes]


def _given_value(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Tensor | None:
    """The tensor that an input is; None for the one that the caller gives."""
    ((kind, about),) = spec.items()
    if kind == "user_input":
        if list(about["arg"]) != ["as_tensor"]:
            raise NotRunError("takes an input that is no tensor")
        return None
    if kind not in _INPUTS:
        raise NotRunError(f"has an input of the kind {kind!r}, which is not run")
    return tensors[about[_INPUTS[kind]]]


def _written_buffer(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Tensor | None:
    """The buffer that an output is written into; None for the one that the caller gets."""
    ((kind, about),) = spec.items()
    if kind == "user_output":
        return None
    if kind != "buffer_mutation":
        raise NotRunError(f"has an output of the kind {kind!r}, which is not run")
    return tensors[about["buffer_name"]]


# -- the graph -------------------------------------------------------------------------------------
class _Count:
    """Nodes so far, and how deep the graph is that is being read."""

    nodes = 0
    depth = 0


def _read_graph(graph: Mapping[str, Any], count: _Count) -> Graph:
    count.nodes += len(graph["nodes"])
    if count.nodes > MAX_NODES or count.depth > MAX_NESTING:
        raise NotRunError(
            f"has more than {MAX_NODES:,} operators, or graphs within graphs within graphs"
        )
    inputs = [
        _name_of_kind(
            each,
            "as_tensor",
            "as_sym_int",
        )
        for each in graph["inputs"]
    ]
    outputs = [_read_argument(each, count) for each in graph["outputs"]]
    nodes = [_read_node(each, count) for each in graph["nodes"]]
    return Graph(
        tuple(_check_text(name) for name in inputs),
        tuple(_free_values(nodes, outputs)),
        tuple(outputs),
    )


def _free_values(nodes: Sequence[_Node], outputs: Sequence[Any]) -> list[_Node]:
    """The nodes, which release values after their last use, as torch's own graphs do."""
    needed_later = set(_names_in(outputs))
    done: list[_Node] = []
    for node in reversed(nodes):
        names = {
            *_names_in(node.arguments),
            *_names_in(node.keywords),
            *_names_in(node.outputs),
        }
        last_uses = names - needed_later
        needed_later |= last_uses
        done.append(replace(node, last_uses=tuple(sorted(last_uses))))
    done.reverse()
    return done


def _name_of_kind(argument: Mapping[str, Any], *kinds: str) -> Any:
    ((kind, value),) = argument.items()
    if kind not in kinds:
        raise NotRunError(f"holds a value of the kind {kind!r}, which is not run")
    return value["as_name"] if kind == "as_sym_int" else value["name"]


def _check_text(value: Any) -> str:
    if not isinstance(value, str):
        raise NotRunError(f"expected a name, found {str(value)[:50]!r}")
    return value


def _read_node(node: Mapping[str, Any], count: _Count) -> _Node:
    target = _check_text(node["target"])
    arguments: list[Any] = []
    keywords: Values = {}
    call = _find_call(target)
    for given in node["inputs"]:
        name = _check_text(given["name"])
        value = _read_argument(given["arg"], count)
        if given.get("kind") == _POSITIONAL or not name:
            arguments.append(value)
        else:
            keywords[name] = value
    outputs = _read_outputs(node, target)
    return _Node(target, call, tuple(arguments), keywords, outputs, ())


def _read_outputs(node: Mapping[str, Any], target: str) -> Any:
    """Names of what a call gives: one of them alone, several as a list, None for none."""
    outputs = [_read_output(each) for each in node["outputs"]]
    if not outputs:
        return None
    # a block says whether it gives a tensor, or a list of one
    gives_list = target.startswith(_HIGHER) and node.get("is_hop_single_tensor_return") is False
    if len(outputs) == 1 and not gives_list:
        return outputs[0]
    return outputs


def _find_call(target: str) -> Callable[..., Any]:
    """The block or the operator that a node names.

    Raises:
        NotRunError: It is none of those that are run.
    """
    block = target.removeprefix(_HIGHER)
    if target.startswith(_HIGHER) and block in _BLOCKS:
        return _BLOCKS[block]
    return find_operator(target)


def _read_output(output: Mapping[str, Any]) -> Any:
    """Names of what a call gives."""
    ((kind, value),) = output.items()
    if kind == "as_none":
        return None
    if kind in ("as_tensors", "as_optional_tensors", "as_sym_ints"):
        return [_read_element(each) for each in value]
    if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
        return _Name(_check_text(value["as_name"]))
    if kind == "as_tensor":
        return _Name(_check_text(value["name"]))
    raise NotRunError(f"gives a value of the kind {kind!r}, which is not run")


def _read_element(value: Mapping[str, Any]) -> _Name | None:
    if "as_none" in value:
        return None
    inner = value.get("as_tensor", value)
    name = inner["as_name"] if "as_name" in inner else inner["name"]
    return _Name(_check_text(name))


def _bind_outputs(outputs: Any, result: Any, known: Values) -> None:
    if outputs is None:
        return
    if isinstance(outputs, _Name):
        known[outputs.name] = result
        return
    if not isinstance(result, (list, tuple)) or len(result) < len(outputs):
        raise NotRunError("a call gives fewer values than its program takes")
    for each, value in zip(outputs, result, strict=False):
        _bind_outputs(each, value, known)


_PLAIN: dict[str, tuple[type, ...]] = {
    "as_int": (int,),
    "as_float": (float, int, str),
    "as_bool": (bool,),
    "as_string": (str,),
}
_TABLES: dict[str, Mapping[int, Any]] = {
    "as_scalar_type": DTYPES,
    "as_memory_format": _MEMORY_FORMATS,
    "as_layout": _LAYOUTS,
}
_LISTS = {
    "as_ints": "as_int",
    "as_floats": "as_float",
    "as_bools": "as_bool",
    "as_strings": "as_string",
}


def _read_argument(argument: Mapping[str, Any], count: _Count) -> Any:
    """A value of a call: a number, a text, the name of a tensor, or lists of these."""
    ((kind, value),) = argument.items()
    if kind in _PLAIN:
        return _read_plain(kind, value)
    if kind in _LISTS:
        return [_read_plain(_LISTS[kind], each) for each in value]
    if kind in _TABLES:
        return _TABLES[kind][value]
    if kind in _SINGLE:
        return _SINGLE[kind](value)
    if kind in _SEVERAL:
        return [_SEVERAL[kind](each) for each in value]
    if kind == "as_graph":
        return _inner_graph(value, count)
    raise NotRunError(f"holds a value of the kind {str(kind)[:50]!r}, which is not run")


def _inner_graph(value: Mapping[str, Any], count: _Count) -> Graph:
    """A graph within a graph: the block of a condition, say."""
    count.depth += 1
    found = _read_graph(value["graph"], count)
    count.depth -= 1
    return found


def _tensor_name(value: Mapping[str, Any]) -> _Name:
    return _Name(_check_text(value["name"]))


def _read_device(value: Mapping[str, Any]) -> torch.device:
    if value["type"] != "cpu":
        raise NotRunError(f"asks for the device {str(value['type'])[:50]!r}, and is run on the CPU")
    return torch.device("cpu")


def _complex_number(value: Mapping[str, Any]) -> complex:
    real = _read_plain("as_float", value["real"])
    imaginary = _read_plain("as_float", value["imag"])
    return complex(real, imaginary)


def _read_plain(kind: str, value: Any) -> Any:
    if kind == "as_float" and isinstance(value, (int, float, str)):
        return float(value)  # JSON has no word for infinities, and torch writes them as text
    is_too_large = isinstance(value, int) and abs(value) > LARGEST
    if is_too_large or not isinstance(value, _PLAIN[kind]):
        raise NotRunError(f"expected {kind}, found {str(value)[:50]!r}")
    return value


def _read_symbolic(value: Mapping[str, Any]) -> Any:
    ((kind, inner),) = value.items()
    if kind == "as_name":
        return _Name(_check_text(inner))
    return _read_plain(kind, inner)


#: How a value of a call is read, by its kind; of the others, each element of a list.
_SINGLE: dict[str, Callable[[Any], Any]] = {
    "as_none": lambda _: None,
    "as_tensor": _tensor_name,
    "as_optional_tensor": _read_element,
    "as_sym_int": _read_symbolic,
    "as_sym_float": _read_symbolic,
    "as_sym_bool": _read_symbolic,
    "as_device": _read_device,
    "as_complex": _complex_number,
}
_SEVERAL: dict[str, Callable[[Any], Any]] = {
    "as_tensors": _tensor_name,
    "as_optional_tensors": _read_element,
    "as_sym_ints": _read_symbolic,
    "as_sym_floats": _read_symbolic,
    "as_sym_bools": _read_symbolic,
}


def _fill_names(value: Any, known: Mapping[str, Any]) -> Any:
    """`value` with names replaced by what they stand for."""
    if isinstance(value, _Name):
        try:
            return known[value.name]
        except KeyError:
            raise NotRunError(f"uses {value.name[:50]!r} before it is computed") from None
    if isinstance(value, (list, tuple)):
        return [_fill_names(each, known) for each in value]
    if isinstance(value, Mapping):
        return {key: _fill_names(each, known) for key, each in value.items()}
    return value


def _names_in(value: Any) -> Iterator[str]:
    if isinstance(value, _Name):
        yield value.name
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _names_in(each)
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _names_in(each)


# -- blocks: operators that hold graphs ------------------------------------------------------------
def _of_graph(graph: Any) -> Graph:
    if not isinstance(graph, Graph):
        raise NotRunError("a block holds no graph")
    return graph


def _with_gradients(_: bool, graph: Graph, *values: Any) -> tuple[Any, ...]:
    return _of_graph(graph)(*values)  # no gradients are needed here


def _with_autocast(
    device: str,
    dtype: Any,
    enabled: bool,
    cached: Any,
    graph: Graph,
    *values: Any,
) -> tuple[Any, ...]:
    if device != "cpu":
        return _of_graph(graph)(*values)  # of a device on which nothing runs here
    with torch.autocast(
        "cpu",
        dtype,
        enabled=bool(enabled),
        cache_enabled=cached,
    ):
        return _of_graph(graph)(*values)


def _cond(
    condition: Any,
    graph: Graph,
    other: Graph,
    values: Sequence[Any] = (),
) -> tuple[Any, ...]:
    branch = graph if condition else other
    return _of_graph(branch)(*values)


_BLOCKS: dict[str, Callable[..., Any]] = {
    "wrap_with_set_grad_enabled": _with_gradients,
    "wrap_with_autocast": _with_autocast,
    "cond": _cond,
}
