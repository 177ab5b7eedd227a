"""Runs the graph of a ``torch.export`` program, operator by operator.

It needs no more than the program's JSON and its tensors.

``torch.export.load`` evaluates the expressions of a file, compiles its guards and the names of its
nodes as Python, imports what its argument trees name, and unpickles its example inputs. None of
that is needed to compute outputs, and none of it happens here: a node is an operator of torch's
own, called with tensors, numbers and text.
"""

from __future__ import annotations

import functools
import json
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

if TYPE_CHECKING:
    import zipfile

    from torch import Tensor

#: What is computed, by its name in the graph: tensors, numbers, text, and lists of these.
Values: TypeAlias = dict[str, Any]

#: Of the format that torch 2.8 and later write.
SCHEMA_MAJOR = 8
#: A graph's description may have so many bytes, and hold so many operators.
MAX_JSON = 16_000_000
MAX_NODES = 50_000
#: Graphs within graphs: the branches of a condition within a block of another precision, say.
MAX_NESTING = 8
_BLOCK = 1 << 20
_MAX_ERROR_CHARACTERS = 200

_DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    9: torch.complex32,
    10: torch.complex64,
    11: torch.complex128,
    12: torch.bool,
    13: torch.bfloat16,
}
_LAYOUTS = {7: torch.strided}
_STRIDED = 7
_POSITIONAL = 1
_MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}

#: What torch puts into an archive of one program; the example inputs are not read.
_MEMBER = re.compile(
    r"archive_format|archive_version|byteorder|\.data/version|\.data/serialization_id"
    r"|models/model\.json|data/sample_inputs/model\.pt"
    r"|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)"
)
_ATEN = re.compile(r"torch\.ops\.(aten|torchvision)\.([A-Za-z_][A-Za-z0-9_]*)\.([A-Za-z0-9_]+)")
#: Reads and makes files; would take a tensor's memory away; has no place in a function of its
#: inputs.
_DENIED = frozenset(
    {"from_file", "set_", "set", "set_data", "resize_", "resize", "resize_as_", "record_stream"}
)
#: Operators of torch's that are private by name and stand in graphs that it exports all the same.
_PRIVATE = frozenset(
    {
        "_adaptive_avg_pool2d",
        "_adaptive_avg_pool3d",
        "_assert_scalar",
        "_assert_tensor_metadata",
        "_cdist_forward",
        "_convolution",
        "_embedding_bag",
        "_fft_c2c",
        "_fft_c2r",
        "_fft_r2c",
        "_local_scalar_dense",
        "_log_softmax",
        "_native_batch_norm_legit",
        "_native_batch_norm_legit_no_training",
        "_native_multi_head_attention",
        "_pdist_forward",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_softmax",
        "_to_copy",
        "_transformer_encoder_layer_fwd",
        "_unsafe_view",
        "_weight_norm",
        "_weight_norm_interface",
    }
)
_ARITHMETIC = ("add", "sub", "mul", "floordiv", "mod", "truediv", "neg", "pos", "and_", "or_")
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
#: What sizes are computed with.
_OPERATORS = {
    f"_operator.{name}": getattr(operator, name) for name in (*_ARITHMETIC, *_COMPARISONS)
}
_NUMBERS: dict[str, Callable[..., Any]] = {
    **_OPERATORS,
    "math.trunc": math.trunc,
    "torch.sym_int": int,
    "torch.sym_float": float,
    "torch.sym_not": operator.not_,
    "torch.sym_max": max,
    "torch.sym_min": min,
    "torch.sym_ite": lambda condition, one, other: one if condition else other,
    "torch.sym_sqrt": math.sqrt,
}
_HIGHER = "torch.ops.higher_order."
_LARGEST = 2**63


class NotRunError(ValueError):
    """A program asks for something that is not run, or its file holds no program."""


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
        members = _list_members(archive)
        document = _read_json(archive, members["models/model.json"])
        if document["schema_version"]["major"] != SCHEMA_MAJOR:
            raise NotRunError("was written by another version of torch: export the model again")
        module = document["graph_module"]
        tensors = _all_tensors(archive, members)
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


# -- the archive -----------------------------------------------------------------------------------
def _all_tensors(archive: zipfile.ZipFile, members: Mapping[str, str]) -> dict[str, Tensor]:
    """Weights and constants, by their names in the program."""
    weights = _read_tensors(
        archive,
        members,
        config="data/weights/model_weights_config.json",
        folder="data/weights/",
        prefix="weight_",
    )
    constants = _read_tensors(
        archive,
        members,
        config="data/constants/model_constants_config.json",
        folder="data/constants/",
        prefix="tensor_",
    )
    return {**weights, **constants}


def _list_members(archive: zipfile.ZipFile) -> dict[str, str]:
    """Names in the archive, by their names below its one folder."""
    found: dict[str, str] = {}
    for name in archive.namelist():
        folder, slash, inner = name.partition("/")
        if not slash or not folder or inner in found:
            raise NotRunError("its members are not those of one program")
        if _MEMBER.fullmatch(inner) is None:
            raise NotRunError(f"holds {inner[:100]!r}, which is not loaded")
        found[inner] = name
    return found


def _read_json(archive: zipfile.ZipFile, name: str) -> Any:
    if archive.getinfo(name).file_size > MAX_JSON:
        raise NotRunError(f"holds more than {MAX_JSON // 1_000_000} MB in {name}")
    try:
        return json.loads(archive.read(name))
    except RecursionError:
        raise NotRunError(f"is nested too deeply in {name}") from None


def _read_tensors(
    archive: zipfile.ZipFile,
    members: Mapping[str, str],
    config: str,
    folder: str,
    prefix: str,
) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    stores: dict[tuple[str, int], Tensor] = {}
    entries = _read_json(archive, members[config])["config"]
    for name, entry in entries.items():
        file = entry["path_name"]
        meta = entry["tensor_meta"]
        is_plain = meta is not None and re.fullmatch(rf"{prefix}\d+", file)
        if entry["use_pickle"] or not is_plain:
            raise NotRunError(f"holds {name!r} pickled, which is not loaded")
        is_on_cpu = meta["device"]["type"] == "cpu"
        if meta["layout"] != _STRIDED or not is_on_cpu:
            raise NotRunError(f"holds {name!r} in a form that is not loaded")
        key = (file, meta["dtype"])
        if key not in stores:
            stores[key] = _store(
                archive,
                members[folder + file],
                _DTYPES[meta["dtype"]],
            )
        found[name] = _view(stores[key], name, meta)
    return found


def _store(archive: zipfile.ZipFile, member: str, dtype: torch.dtype) -> Tensor:
    size = archive.getinfo(member).file_size
    if size == 0:
        return torch.empty(0, dtype=dtype)
    content = torch.empty(size, dtype=torch.uint8)
    at = 0
    buffer = content.numpy()
    with archive.open(member) as file:
        while block := file.read(_BLOCK):
            buffer[at : at + len(block)] = np.frombuffer(block, dtype=np.uint8)
            at += len(block)
    if at != size:
        raise NotRunError(f"{member} is damaged")
    return content.view(dtype)


def _view(store: Tensor, name: str, meta: Mapping[str, Any]) -> Tensor:
    sizes = [_whole(each["as_int"]) for each in meta["sizes"]]
    strides = [_whole(each["as_int"]) for each in meta["strides"]]
    offset = _whole(meta["storage_offset"]["as_int"])
    if len(sizes) != len(strides):
        raise NotRunError(f"{name!r} has no shape")
    if 0 in sizes:
        return store.new_empty(sizes)
    last = offset
    for size, stride in zip(sizes, strides, strict=True):
        last += (size - 1) * stride
    if last >= store.numel():
        raise NotRunError(f"{name!r} is larger than what is stored of it")
    return store.as_strided(sizes, strides, offset)


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _LARGEST:
        raise NotRunError(f"expected a size, found {str(value)[:50]!r}")
    return value


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
    call = _find_operator(target)
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


@functools.cache
def _known_operators() -> frozenset[str]:
    """Operators that torch's dispatcher knows.

    Those of TorchScript, which write files among others, it does not.
    """
    return frozenset(torch._C._dispatch_get_all_op_names())


def _find_operator(target: str) -> Callable[..., Any]:
    """The function that a node names.

    Raises:
        NotRunError: It is none of those that are run.
    """
    if target in _NUMBERS:
        return functools.partial(_compute_size, _NUMBERS[target])
    if target.startswith(_HIGHER) and target.removeprefix(_HIGHER) in _BLOCKS:
        return _BLOCKS[target.removeprefix(_HIGHER)]
    found = _ATEN.fullmatch(target)
    if found is None:
        raise NotRunError(f"asks for {target[:100]!r}, which is not run")
    library, name, overload = found.groups()
    if not _is_run(library, name, overload):
        raise NotRunError(f"asks for {target[:100]!r}, which is not run")
    operators = getattr(torch.ops, library)
    overloads = getattr(operators, name)
    call: Callable[..., Any] = getattr(overloads, overload)
    return call


def _is_run(library: str, name: str, overload: str) -> bool:
    """Whether an operator is among those that are run."""
    is_private = name.startswith("_") and name not in _PRIVATE
    if is_private or name in _DENIED:
        return False
    whole = f"{library}::{name}"
    if overload != "default":
        whole = f"{whole}.{overload}"
    if library == "torchvision":
        import torchvision.ops  # noqa: F401  # registers them

        if whole not in _known_operators():
            _known_operators.cache_clear()
    return whole in _known_operators()


def _compute_size(call: Callable[..., Any], *values: Any) -> Any:
    """Arithmetic of sizes; what is no size any more is refused, before it grows."""
    if not all(isinstance(value, (int, float)) for value in values):
        raise NotRunError("computes a size from something that is no number")
    found = call(*values)
    if isinstance(found, int) and abs(found) > _LARGEST:
        raise NotRunError("computes a size that is too large")
    return found


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
    "as_scalar_type": _DTYPES,
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
    is_too_large = isinstance(value, int) and abs(value) > _LARGEST
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
