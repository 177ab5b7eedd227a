"""An exported program that somebody changed: nothing of it runs. One real export, altered in many places."""

from __future__ import annotations

import copy
import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dlsearch.core.errors import ConfigError
from dlsearch.core.files.stored import NotStoredError, check_stored
from dlsearch.inference.archive import load_program, make_program, save_program

Change = Callable[[dict[str, Any]], object]


class Net(nn.Module):
    """With what graphs are made of: sizes that are computed, blocks, lists, constants, several outputs of a call."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.lstm = nn.LSTM(6, 5, batch_first=True)
        self.register_buffer("shift", torch.ones(1), persistent=False)
        self.constant = torch.ones(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = torch.relu(self.norm(self.conv(x)))
        b = y.shape[0]
        rows = y.float().reshape(b, y.shape[1] * 6, 6)
        z, _ = self.lstm(rows)
        one, other = torch.split(z, [2, 3], dim=2)
        best = torch.max(rows, dim=1).values
        return (
            best
            + self.shift
            + self.constant.sum()
            + one.mean((1, 2))[:, None]
            + torch.zeros(b, 6)
            + other.sum()
        )


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    torch.manual_seed(0)
    net = Net().eval()
    path = tmp_path_factory.mktemp("program") / "model.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about the list in which an LSTM has its weights
        save_program(make_program(net, torch.randn(2, 1, 8, 8)), path)
    return path, net


def altered(
    good: Path,
    path: Path,
    changes: dict[str, Change | bytes],
    *,
    compress: int = zipfile.ZIP_STORED,
) -> Path:
    """A copy of the program; each change is of a JSON in place, or another content, or one more member."""
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(path, "w", compress) as new:
        root = old.namelist()[0].split("/")[0]
        for name in old.namelist():
            change, content = changes.get(name.split("/", 1)[1]), old.read(name)
            if callable(change):
                document = json.loads(content)
                change(document)
                content = json.dumps(document).encode()
            new.writestr(name, change if isinstance(change, bytes) else content)
        for name, content in changes.items():
            if f"{root}/{name}" not in old.namelist():
                assert isinstance(content, bytes)
                new.writestr(f"{root}/{name}", content)
    return path


def graph_of(document: dict[str, Any]) -> dict[str, Any]:
    return document["graph_module"]["graph"]


def ran(program: Path, x: torch.Tensor | None = None) -> None:
    run = load_program(program)
    with torch.inference_mode():
        run(torch.randn(2, 1, 8, 8) if x is None else x)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_program_computes_what_torch_computes_with_it(
    good: tuple[Path, nn.Module], size: int
) -> None:
    path, _ = good
    x = torch.randn(size, 1, 8, 8, generator=torch.Generator().manual_seed(size))
    with torch.inference_mode():
        found = load_program(path)(x)
    with torch.no_grad():
        expected = torch.export.load(path).module()(x)
    assert torch.equal(found, expected)


def test_a_batch_of_another_shape_is_one_line(good: tuple[Path, nn.Module]) -> None:
    with pytest.raises(
        ConfigError, match=r"takes inputs of the shape \(any, 1, 8, 8\), not \(2, 1, 9, 8\)"
    ):
        ran(good[0], torch.zeros(2, 1, 9, 8))


def at(*keys: Any, value: Any) -> Change:
    """Sets one place of a document."""

    def change(document: dict[str, Any]) -> None:
        node: Any = document
        for key in keys[:-1]:
            node = node[key]
        node[keys[-1]] = value(node[keys[-1]]) if callable(value) else value

    return change


def first_node(document: dict[str, Any], target: str) -> dict[str, Any]:
    return next(node for node in graph_of(document)["nodes"] if node["target"].startswith(target))


def node(target: str, /, **change: Any) -> Change:
    def alter(document: dict[str, Any]) -> None:
        found = first_node(document, target)
        for key, value in change.items():
            found[key] = value(found[key]) if callable(value) else value

    return alter


#: What would be run, were it run. `{trace}` is the file that it would leave behind.
CODE = "__import__('pathlib').Path({trace!r}).touch()"
SNEAKY = "(lambda: [c for c in ().__class__.__base__.__subclasses__()])()"


def expressions(text: str) -> Change:
    """Every expression of the graph."""

    def alter(value: Any) -> None:
        for inner in (
            value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        ):
            alter(inner)
        if isinstance(value, dict) and "expr_str" in value:
            value["expr_str"] = text

    return alter


def hints(text: str) -> Change:
    def alter(value: Any) -> None:
        for inner in (
            value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        ):
            alter(inner)
        if isinstance(value, dict) and isinstance(value.get("hint"), dict):
            value["hint"] = {"as_int": text}

    return alter


def range_names(text: str) -> Change:
    def alter(document: dict[str, Any]) -> None:
        document["range_constraints"] = {text: {"min_val": 1, "max_val": None}}

    return alter


def rename(text: str) -> Change:
    """The input of the graph, wherever it is named."""

    def alter(document: dict[str, Any]) -> None:
        name = graph_of(document)["inputs"][-1]["as_tensor"]["name"]
        whole = json.dumps(document).replace(f'"{name}"', json.dumps(text))
        document.clear()
        document.update(json.loads(whole))

    return alter


def spec(**tree: Any) -> Change:
    """Argument trees that name types, modules and enums."""

    def alter(document: dict[str, Any]) -> None:
        for entry in document["graph_module"]["module_call_graph"]:
            if entry["signature"]:
                entry["signature"]["in_spec"] = entry["signature"]["out_spec"] = json.dumps(
                    [1, tree]
                )

    return alter


#: Read by torch, and not by us: the program still computes the same, and nothing is run.
HARMLESS: dict[str, Callable[[str], Change]] = {
    "expression": expressions,
    "expression, deep": lambda code: expressions(f"Mul(Integer(2), Max(1, {code}))"),
    "expression, attribute": lambda code: expressions(SNEAKY),
    "expression, pickle": lambda code: expressions("sympify('1').__reduce_ex__(2)"),
    "hint": hints,
    "range": range_names,
    "range of nothing": lambda code: at(
        "range_constraints", value={code: {"min_val": 1, "max_val": None}}
    ),
    "guards": lambda code: at("guards_code", value=[code, f"L['x'].size()[0] > 0 and {code}"]),
    "guards, lines": lambda code: at("guards_code", value=[f"True\nimport os\n{code}"]),
    "name of the input": rename,
    "name of a node": lambda code: node("torch.ops.aten.lstm", name=code),
    "argument names": lambda code: at(
        "graph_module",
        "module_call_graph",
        0,
        "signature",
        "forward_arg_names",
        value=[f"x={code}"],
    ),
    "tree of a dict": lambda code: spec(
        type="builtins.dict", context=json.dumps([code]), children_spec=[]
    ),
    "tree of a defaultdict": lambda code: spec(
        type="collections.defaultdict",
        context=json.dumps(
            {
                "default_factory_module": "antigravity",
                "default_factory_name": "fly",
                "dict_context": [],
            }
        ),
        children_spec=[],
    ),
    "tree of an enum": lambda code: spec(
        type="builtins.tuple",
        context=json.dumps({"__enum__": True, "fqn": "antigravity:fly", "name": code}),
        children_spec=[],
    ),
    "trees": lambda code: at(
        "graph_module", "module_call_graph", 0, "signature", "in_spec", value=code
    ),
    "stack trace": lambda code: node(
        "torch.ops.aten.lstm", metadata={"stack_trace": f"\n{code}\n"}
    ),
    "stack of modules": lambda code: node(
        "torch.ops.aten.lstm", metadata={"nn_module_stack": f"a,b,{code}"}
    ),
    "stack of sources": lambda code: node(
        "torch.ops.aten.lstm", metadata={"source_fn_stack": "a,torch.os.system"}
    ),
    "from node": lambda code: node(
        "torch.ops.aten.lstm", metadata={"from_node": json.dumps([{"name": code}])}
    ),
    "custom": lambda code: at(
        "graph_module", "metadata", value={"custom": json.dumps({"x": code})}
    ),
    "named tuples": lambda code: at(
        "graph_module",
        "treespec_namedtuple_fields",
        value={"pathlib.Path": {"field_names": [code]}},
    ),
    "verifiers": lambda code: at("verifiers", value=["torch.os.system", code]),
    "names of values": lambda code: at(
        "graph_module", "graph", "sym_bool_values", value={code: {"as_bool": True}}
    ),
    "custom objects' names": lambda code: at(
        "graph_module", "graph", "custom_obj_values", value={"x": {"name": "x", "class_fqn": code}}
    ),
}


@pytest.mark.parametrize("where", HARMLESS)
def test_what_torch_would_evaluate_is_not_even_read(
    good: tuple[Path, nn.Module], tmp_path: Path, where: str
) -> None:
    trace = tmp_path / "ran"
    change = HARMLESS[where](CODE.format(trace=str(trace)))
    path = altered(good[0], tmp_path / "model.pt2", {"models/model.json": change})
    x = torch.randn(2, 1, 8, 8)
    with torch.inference_mode():
        found, expected = load_program(path)(x), load_program(good[0])(x)
    assert torch.equal(found, expected)
    assert not trace.exists()


def nested(depth: int) -> Change:
    def alter(document: dict[str, Any]) -> None:
        block = first_node(document, "torch.ops.higher_order")
        argument = next(each["arg"] for each in block["inputs"] if "as_graph" in each["arg"])
        for _ in range(depth):
            inner = copy.deepcopy(block)
            argument["as_graph"]["graph"]["nodes"] = [inner]
            argument = next(each["arg"] for each in inner["inputs"] if "as_graph" in each["arg"])

    return alter


def first_input(value: Any) -> Callable[[list[Any]], list[Any]]:
    return lambda inputs: [{**inputs[0], "arg": value}, *inputs[1:]]


OPERATORS = (
    "torch.os.system",
    "torch.load",
    "torch.hub.load",
    "torch.serialization.pickle.loads",
    "torch.ops.load_library",
    "torch.ops.aten.__class__",
    "torch.ops.aten.from_file.default",
    "torch.ops.aten.from_file.out",
    "torch.ops.aten.save.default",
    "torch.ops.aten.set_.source_Tensor",
    "torch.ops.aten.resize_.default",
    "torch.ops.aten._print.default",
    "torch.ops.aten.lstm.__call__",
    "torch.ops.aten.lstm.input.decompose",
    "torch.ops.image.read_file.default",
    "torch.ops.prim.Print.default",
    "torch.ops.higher_order.triton_kernel_wrapper_functional",
    "torch.ops.higher_order.call_torchbind",
    "torch.ops.higher_order.print",
    "_operator.methodcaller",
    "_operator.attrgetter",
    "_operator.pow",
    "_operator.lshift",
    "math.factorial",
    "builtins.eval",
    "os.system",
    "eval",
    "#triton:kernel",
    "torch",
    "",
)

REFUSED: dict[str, dict[str, Change | bytes]] = {
    **{f"operator {name}": {"models/model.json": node("torch.ops.aten.lstm", target=name)} for name in OPERATORS},
    "operator that is no text": {"models/model.json": node("torch.ops.aten.lstm", target=["torch"])},
    "operator as an argument": {
        "models/model.json": node("torch.ops.aten.lstm", inputs=first_input({"as_operator": "torch.os.system"}))
    },
    "object as an argument": {
        "models/model.json": node(
            "torch.ops.aten.lstm", inputs=first_input({"as_custom_obj": {"name": "x", "class_fqn": "y"}})
        )
    },
    "device": {
        "models/model.json": node("torch.ops.aten.zeros", inputs=first_input({"as_device": {"type": "cuda"}}))
    },
    "nothing as an argument": {"models/model.json": node("torch.ops.aten.lstm", inputs=first_input({}))},
    "huge number": {"models/model.json": node("torch.ops.aten.zeros", inputs=first_input({"as_ints": [2**80]}))},
    "value that is not computed": {
        "models/model.json": node("torch.ops.aten.lstm", inputs=first_input({"as_tensor": {"name": "nobody"}}))
    },
    "object as an input": {
        "models/model.json": at(
            "graph_module", "signature", "input_specs", 0,
            value={"custom_obj": {"arg": {"name": "x"}, "custom_obj_name": "y"}},
        )
    },
    "token as an input": {
        "models/model.json": at("graph_module", "signature", "input_specs", 0, value={"token": {"arg": {"name": "x"}}})
    },
    "weight that is not there": {
        "models/model.json": at(
            "graph_module", "signature", "input_specs", 0,
            value={"parameter": {"arg": {"name": "x"}, "parameter_name": "__class__"}},
        )
    },
    "version": {"models/model.json": at("schema_version", value={"major": 99, "minor": 0})},
    "graphs within graphs": {"models/model.json": nested(12)},
    "depth": {"models/model.json": b"[" * 200_000 + b"]" * 200_000},
    "no JSON": {"models/model.json": b"nothing"},
    "another JSON": {"models/model.json": b"[]"},
    "long JSON": {"models/model.json": b'{"x": "' + b"x" * 17_000_000 + b'"}'},
    "pickled weight": {"data/weights/model_weights_config.json": at("config", "conv.bias", "use_pickle", value=True)},
    "weight from elsewhere": {
        "data/weights/model_weights_config.json": at(
            "config", "conv.bias", "path_name", value="../sample_inputs/model.pt"
        )
    },
    "weight that is an object": {
        "data/weights/model_weights_config.json": at("config", "conv.bias", "path_name", value="opaque_obj_0")
    },
    "weight that is larger than stored": {
        "data/weights/model_weights_config.json": at(
            "config", "conv.bias", "tensor_meta", "sizes", value=[{"as_int": 10**12}]
        )
    },
    "weight with a stride that leaves it": {
        "data/weights/model_weights_config.json": at(
            "config", "conv.bias", "tensor_meta", "strides", value=[{"as_int": 10**9}]
        )
    },
    "weight with a negative stride": {
        "data/weights/model_weights_config.json": at(
            "config", "conv.bias", "tensor_meta", "strides", value=[{"as_int": -1}]
        )
    },
    "weight of an expression": {
        "data/weights/model_weights_config.json": at(
            "config", "conv.bias", "tensor_meta", "sizes", value=[{"as_expr": {"expr_str": CODE, "hint": None}}]
        )
    },
    "constant that is an object": {
        "data/constants/model_constants_config.json": at("config", "constant", "path_name", value="custom_obj_0")
    },
    "code": {"data/aotinductor/model/model.so": b"\x7fELF"},
    "another program": {"models/other.json": b"{}"},
    "another folder": {"extra/../../x": b""},
    "files of an earlier format": {"serialized_state_dict.pt": pickle.dumps({})},
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_run_is_refused_in_one_line(
    good: tuple[Path, nn.Module], tmp_path: Path, what: str
) -> None:
    path = altered(good[0], tmp_path / "model.pt2", REFUSED[what])
    with pytest.raises(ConfigError) as caught:
        ran(path)
    assert "\n" not in str(caught.value)


def test_example_inputs_are_not_unpickled(good: tuple[Path, nn.Module], tmp_path: Path) -> None:
    trace = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (trace,))

    buffer = io.BytesIO()
    torch.save((Evil(),), buffer)
    for content in (buffer.getvalue(), pickle.dumps(Evil())):
        ran(altered(good[0], tmp_path / "model.pt2", {"data/sample_inputs/model.pt": content}))
    assert not trace.exists()


def test_an_archive_that_expands_is_refused_before_it_does(
    good: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    path = altered(
        good[0],
        tmp_path / "model.pt2",
        {"data/weights/weight_0": bytes(100_000_000)},
        compress=zipfile.ZIP_DEFLATED,
    )
    assert path.stat().st_size < 1_000_000
    with pytest.raises(ConfigError, match="compressed, which torch never writes"):
        load_program(path)
    with pytest.raises(NotStoredError, match="compressed"):
        check_stored(path)
    # the directory says that each of two members is nearly the whole file
    lying = tmp_path / "lying.pt2"
    content = bytearray(good[0].read_bytes())
    with zipfile.ZipFile(good[0]) as archive:
        largest = max(archive.infolist(), key=lambda each: each.file_size)
    for size in (largest.file_size,):
        old, new = size.to_bytes(4, "little") * 2, len(content).to_bytes(4, "little") * 2
        content = content.replace(old, new)
    lying.write_bytes(content)
    with pytest.raises(ConfigError):
        load_program(lying)


@pytest.mark.parametrize("sizes", [[2**40], [2**32, 1], [2**31], [600_000_000]])
def test_a_program_that_asks_for_more_memory_than_its_inputs_need_gets_none(
    good: tuple[Path, nn.Module], tmp_path: Path, sizes: list[int]
) -> None:
    def alter(document: dict[str, Any]) -> None:
        found = first_node(document, "torch.ops.aten.zeros")
        found["target"] = "torch.ops.aten.ones.default"
        found["inputs"][0]["arg"] = {"as_ints": sizes}

    path = altered(good[0], tmp_path / "model.pt2", {"models/model.json": alter})
    with pytest.raises(ConfigError, match=r"cannot be run: .*memory"):
        ran(path)
    ran(good[0])


def test_nothing_is_read_from_a_file_that_is_no_archive(tmp_path: Path) -> None:
    for content in (b"", b"PK\x05\x06", b"PK\x05\x06" + bytes(18), pickle.dumps(1), bytes(1000)):
        path = tmp_path / "model.pt2"
        path.write_bytes(content)
        with pytest.raises(ConfigError):
            load_program(path)
