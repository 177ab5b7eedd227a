"""Exported models: ``model.pt2``, ``model.onnx`` and what ``model.json`` says of them."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from typing import Any

from tests.security.foreign.audit import RAN
from tests.security.foreign.box import SECRET, Box
from tests.security.foreign.inputs.base import Input, product
from tests.security.foreign.inputs.configs import ESCAPE
from tests.security.foreign.inputs.payloads import pickled, rewrite, torch_pickled

PREDICT = ("predict", "exported", "digit.npy")
GRAPH = "models/model.json"


def _reseal(box: Box) -> None:
    """Have model.json name the digests of the files as they are."""

    def change(spec: Any) -> None:
        for name in list(spec["files"]):
            path = box.work / "exported" / name
            spec["files"][name] = (
                hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "0" * 64
            )

    box.edit_json(box.work / "exported/model.json", change)


def program(
    change: Callable[[dict[str, bytes]], Any], compression: int = zipfile.ZIP_STORED
) -> Callable[[Box], None]:
    """Changes the members of model.pt2."""

    def make(box: Box) -> None:
        box.write_module()
        path = box.work / "exported/model.pt2"
        with zipfile.ZipFile(path) as file:
            top = file.namelist()[0].split("/")[0]
        rewrite(path, lambda members: change(_Below(members, top)), compression)
        _reseal(box)

    return make


class _Below(dict):  # type: ignore[type-arg]
    """The members of an archive by their names below its one folder."""

    def __init__(self, members: dict[str, bytes], top: str) -> None:
        super().__init__(members)
        self._members, self._top = members, top

    def __getitem__(self, name: str) -> bytes:
        return self._members[f"{self._top}/{name}"]

    def __setitem__(self, name: str, data: bytes) -> None:
        self._members[name if name.startswith("!") else f"{self._top}/{name}"] = data


def graph(change: Callable[[dict[str, Any]], Any]) -> Callable[[Box], None]:
    """Changes the document of the graph in model.pt2."""

    def edit(members: dict[str, bytes]) -> None:
        document = json.loads(members[GRAPH])
        change(document)
        members[GRAPH] = json.dumps(document).encode()

    return program(edit)


def _expressions(node: Any, text: str) -> int:
    """Put `text` wherever an expression stands; how often."""
    count = 0
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "expr_str":
                node[key] = text
                count += 1
            else:
                count += _expressions(value, text)
    elif isinstance(node, list):
        count += sum(_expressions(each, text) for each in node)
    return count


def _expression(text: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        assert _expressions(document, text), "the program has no expression any more"

    return change


_LAST = -1


def _node(**given: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        document["graph_module"]["graph"]["nodes"][_LAST].update(given)

    return change


def _call(target: str, *arguments: str) -> Callable[[dict[str, Any]], None]:
    """A node that calls a function of Python's with texts."""
    return _node(
        target=target,
        inputs=[
            {"name": f"x{i}", "arg": {"as_string": text}, "kind": 1}
            for i, text in enumerate(arguments)
        ],
    )


def _hint(text: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for sizes in document["graph_module"]["graph"]["tensor_values"].values():
            sizes["sizes"] = [
                {"as_expr": {"expr_str": text, "hint": {"as_int": 2}}} for _ in sizes["sizes"]
            ]

    return change


_GRAPHS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "an expression that is code": _expression(RAN),
    "an expression that calls": _expression(f"Symbol('s0', {RAN})"),
    "an expression with an attribute": _expression("Symbol('s0').__class__.__init__.__globals__"),
    "an expression with a comprehension": _expression(f"[{RAN} for x in [1]][0]"),
    "an expression with a lambda": _expression(f"(lambda: {RAN})()"),
    "an expression with a text": _expression(f"sympify('{RAN.replace(chr(39), chr(34))}')"),
    "an expression that is a power": _expression("9**9**9**9"),
    "an expression that is a large product": _expression("factorial(100000000)"),
    "an expression of a megabyte": _expression("+".join(["s0"] * 400_000)),
    "an expression that is deep": _expression("(" * 20_000 + "s0" + ")" * 20_000),
    "sizes that are code": _hint(RAN),
    "a range that is code": lambda document: document.update(
        range_constraints={RAN: {"min_val": 0, "max_val": 9}}
    ),
    "guards that are code": lambda document: document.update(guards_code=[RAN]),
    "a node that loads a file": _call("torch.load", "foreign/evil.pkl"),
    "a node that loads a library": _call("torch.ops.load_library", "foreign/evil.so"),
    "a node of the hub": _call("torch.hub.load", "foreign", "x", "local"),
    "a node of the system": _call("os.system", "touch ../outside/ran"),
    "a node of operator": _call("_operator.methodcaller", "touch"),
    "a node that opens a file": _call("torch.ops.aten.from_file.default", "../outside/secret.txt"),
    "a node that is no name": _call(RAN, "x"),
    "a module stack that is code": _node(
        metadata={"nn_module_stack": f"{RAN},{RAN},foreign_module.Net", "torch_fn": RAN}
    ),
    "a custom class": _node(
        inputs=[
            {
                "name": "x",
                "arg": {"as_custom_obj": {"name": "x", "class_fqn": "foreign_module.Net"}},
                "kind": 1,
            }
        ]
    ),
    "an operator's default": _node(
        inputs=[{"name": "x", "arg": {"as_operator": "os.system"}, "kind": 1}]
    ),
    "a graph that is deep": lambda document: document.update(
        range_constraints=json.loads("[" * 900 + "]" * 900)
    ),
    "another version": lambda document: document.update(schema_version={"major": 99, "minor": 0}),
    "verifiers that are code": lambda document: document.update(verifiers=["foreign_module.Net"]),
    "a module call that is code": lambda document: document["graph_module"].update(
        module_call_graph=[
            {
                "fqn": RAN,
                "signature": {
                    "inputs": [],
                    "outputs": [],
                    "in_spec": RAN,
                    "out_spec": RAN,
                    "forward_arg_names": None,
                },
            }
        ]
    ),
}


def _config(members: dict[str, bytes], **fields: Any) -> None:
    name = "data/weights/model_weights_config.json"
    document = json.loads(members[name])
    for each in document["config"].values():
        each.update(fields)
    members[name] = json.dumps(document).encode()


def _member(name: str, data: bytes) -> Callable[[dict[str, bytes]], None]:
    return lambda members: members.__setitem__(name, data)


def _tensor(document: Any) -> None:
    for each in document["config"].values():
        each["tensor_meta"]["sizes"] = [{"as_int": 400_000}, {"as_int": 400_000}]
        each["tensor_meta"]["strides"] = [{"as_int": 0}, {"as_int": 0}]


def _sizes(members: dict[str, bytes]) -> None:
    name = "data/weights/model_weights_config.json"
    document = json.loads(members[name])
    _tensor(document)
    members[name] = json.dumps(document).encode()


_MEMBERS: dict[str, Callable[[dict[str, bytes]], Any]] = {
    "weights that are a pickle": lambda members: (
        _config(members, use_pickle=True),
        _member("data/weights/weight_0", torch_pickled())(members),
    ),
    "weights with a path upwards": lambda members: _config(
        members, path_name="../../../../outside/secret.txt"
    ),
    "weights with an absolute path": lambda members: _config(members, path_name="/etc/passwd"),
    "weights of terabytes": _sizes,
    "sample inputs that are a pickle": _member("data/sample_inputs/model.pt", torch_pickled()),
    "constants that are a pickle": lambda members: (
        members.__setitem__(
            "data/constants/model_constants_config.json",
            json.dumps(
                {
                    "config": {
                        "x": {
                            "path_name": "custom_obj_0",
                            "is_param": False,
                            "use_pickle": True,
                            "tensor_meta": None,
                        }
                    }
                }
            ).encode(),
        ),
        _member("data/constants/custom_obj_0", pickled())(members),
    ),
    "a compiled library": _member("data/aotinductor/model/x.so", b"\x7fELF" + RAN.encode()),
    "an extra member upwards": _member("extra/../../../../outside/ran", b"x"),
    "an extra folder": _member("!../../outside/ran", b"x"),
    "a graph that is a pickle": _member(GRAPH, pickled()),
    "a graph that is no text": _member(GRAPH, b"\xff" * 100),
    "a graph that is very deep": _member(GRAPH, b"[" * 200_000 + b"]" * 200_000),
    "an old archive": lambda members: (
        _member("archive_version", b"0")(members),
        _member("serialized_exported_program.json", pickled())(members),
    ),
    "no version": _member("archive_version", RAN.encode()),
}


def _bomb(name: str, gigabytes: int) -> Callable[[Box], None]:
    """A member of zeros that the archive holds in a few megabytes."""

    def make(box: Box) -> None:
        path = box.work / "exported/model.pt2"
        with zipfile.ZipFile(path) as file:
            members = {each: file.read(each) for each in file.namelist()}
        top = next(iter(members)).split("/")[0]
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
            for each, data in members.items():
                if each != f"{top}/{name}":
                    file.writestr(each, data)
            with file.open(f"{top}/{name}", "w", force_zip64=True) as member:
                for _ in range(gigabytes * 32):
                    member.write(bytes(1 << 25))
        _reseal(box)

    return make


def spec(change: Callable[[Any], Any]) -> Callable[[Box], None]:
    """Changes model.json."""
    return lambda box: box.edit_json(box.work / "exported/model.json", change)


def _put(key: str, value: Any) -> Callable[[Box], None]:
    from tests.security.foreign.inputs.stores import put

    return spec(lambda node: put(node, key, value))


def _other(name: str, digest: str = "sha256") -> Callable[[Box], None]:
    """model.json names another file as the program."""

    def make(box: Box) -> None:
        path = box.work / "exported" / name
        data = path.read_bytes() if path.is_file() else b""
        box.edit_json(
            box.work / "exported/model.json",
            lambda node: {**node, "files": {name: hashlib.sha256(data).hexdigest()}},
        )

    return make


#: Parts that nothing reads when a program is loaded to predict.
_NOT_READ = ("a module stack that is code",)

programs = product(
    (
        Input(
            f"a program with {what}",
            4,
            "exported model",
            PREDICT,
            lambda box, change=change: (
                box.write("foreign/evil.pkl", pickled()),
                box.write("foreign/hubconf.py", f"{RAN}\ndef x():\n    pass\n"),
                graph(change)(box),
            ),
            harmless=what in _NOT_READ,
        )
        for what, change in _GRAPHS.items()
    ),
    (
        Input(
            f"a program with {what}",
            4,
            "exported model",
            PREDICT,
            program(change),
            harmless=what in _NOT_READ,
        )
        for what, change in _MEMBERS.items()
    ),
    [
        Input(
            "a program that is a pickle",
            4,
            "exported model",
            PREDICT,
            lambda box: ((box.work / "exported/model.pt2").write_bytes(pickled()), _reseal(box)),
        ),
        Input(
            "a program that is a pickle in an archive",
            4,
            "exported model",
            PREDICT,
            lambda box: (
                (box.work / "exported/model.pt2").write_bytes(torch_pickled()),
                _reseal(box),
            ),
        ),
        Input(
            "a program that is nothing",
            4,
            "exported model",
            PREDICT,
            lambda box: ((box.work / "exported/model.pt2").write_bytes(b""), _reseal(box)),
        ),
        Input(
            "a program that is a link",
            8,
            "exported model",
            PREDICT,
            lambda box: (
                box.link(box.work / "exported/model.pt2", box.outside / "secret.txt"),
                _reseal(box),
            ),
        ),
        Input(
            "a program that is not the one described",
            4,
            "exported model",
            PREDICT,
            lambda box: (box.work / "exported/model.pt2").write_bytes(torch_pickled()),
        ),
        Input(
            "weights that expand to four gigabytes",
            12,
            "exported model",
            PREDICT,
            _bomb("data/weights/weight_0", 4),
        ),
        Input(
            "a graph that expands to two gigabytes", 12, "exported model", PREDICT, _bomb(GRAPH, 2)
        ),
        Input(
            "an extra member that expands to four gigabytes",
            12,
            "exported model",
            PREDICT,
            _bomb("extra/x", 4),
        ),
        Input(
            "sample inputs that expand",
            12,
            "exported model",
            PREDICT,
            _bomb("data/sample_inputs/model.pt", 2),
        ),
    ],
)


# -- model.json ------------------------------------------------------------------------------------------------------
specs = product(
    [
        Input(
            "a description that names a file upwards",
            8,
            "exported model",
            PREDICT,
            _other("../../outside/secret.txt"),
        ),
        Input(
            "a description that names the home",
            8,
            "exported model",
            PREDICT,
            _other("../home/.bashrc"),
        ),
        Input(
            "a description that is a link",
            8,
            "exported model",
            PREDICT,
            lambda box: box.link(box.work / "exported/model.json", box.outside / "secret.txt"),
        ),
        Input(
            "a description with views that are a target",
            3,
            "exported model",
            PREDICT,
            _put("test_time", {"_target_": "os.mkdir", "path": "../outside/ran"}),
        ),
        Input(
            "a description with a billion views",
            12,
            "exported model",
            PREDICT,
            _put("test_time", {"crops": 10**9, "flip": True, "scale": 1e6, "pad": 10**6}),
        ),
        Input(
            "a description of a huge input",
            12,
            "exported model",
            PREDICT,
            _put("input.shape", [1, 300_000, 300_000]),
        ),
        Input(
            "a description of a negative input",
            12,
            "exported model",
            PREDICT,
            _put("input.shape", [1, -8, 8]),
        ),
        Input("a description of no input", 12, "exported model", PREDICT, _put("input", "x")),
        Input(
            "a description whose mean is a text",
            3,
            "exported model",
            PREDICT,
            _put("input.mean", [RAN]),
        ),
        Input(
            "a description with a million classes",
            12,
            "exported model",
            PREDICT,
            _put("output.names", ["x"] * 1_000_000),
        ),
        Input(
            "a description with escape codes in classes",
            12,
            "exported model",
            PREDICT,
            _put("output.names", [f"{ESCAPE}{i}" for i in range(10)]),
            harmless=True,
        ),
        Input(
            "a description with escape codes in a study",
            12,
            "exported model",
            (*PREDICT, "--json"),
            _put("study.name", f"x{ESCAPE}"),
            harmless=True,
        ),
        Input(
            "a description that is deep",
            12,
            "exported model",
            PREDICT,
            lambda box: (box.work / "exported/model.json").write_text(
                "[" * 200_000 + "]" * 200_000
            ),
        ),
        Input(
            "a description that is a pickle",
            4,
            "exported model",
            PREDICT,
            lambda box: (box.work / "exported/model.json").write_bytes(pickled()),
        ),
        Input(
            "a description that is a list",
            4,
            "exported model",
            PREDICT,
            lambda box: (box.work / "exported/model.json").write_text("[1]"),
        ),
    ],
)


# -- ONNX ------------------------------------------------------------------------------------------------------------
def onnx(change: Callable[[Any], Any]) -> Callable[[Box], None]:
    """Changes model.onnx, which is then the only program."""

    def make(box: Box) -> None:
        import onnx as onnx_

        path = box.work / "exported/model.onnx"
        model = onnx_.load(path)
        change(model)
        path.write_bytes(model.SerializeToString())
        (box.work / "exported/model.pt2").unlink()
        box.edit_json(
            box.work / "exported/model.json",
            lambda node: {
                **node,
                "files": {"model.onnx": hashlib.sha256(path.read_bytes()).hexdigest()},
            },
        )

    return make


def _external(location: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        import onnx as onnx_

        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
        tensor.data_location = onnx_.TensorProto.EXTERNAL
        del tensor.external_data[:]
        for key, value in (("location", location), ("offset", "0"), ("length", "20")):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value

    return change


def _huge(model: Any) -> None:
    """A tensor of terabytes that a node makes from its shape."""
    import onnx as onnx_

    shape = onnx_.helper.make_tensor("huge_shape", onnx_.TensorProto.INT64, [3], [4096, 4096, 4096])
    model.graph.initializer.append(shape)
    node = onnx_.helper.make_node("ConstantOfShape", ["huge_shape"], ["huge"])
    total = onnx_.helper.make_node("ReduceSum", ["huge"], ["huge_sum"], keepdims=0)
    output = model.graph.output[0].name
    last = next(each for each in model.graph.node if output in each.output)
    last.output[list(last.output).index(output)] = "before"
    add = onnx_.helper.make_node("Add", ["before", "huge_sum"], [output])
    for each in (node, total, add):
        model.graph.node.append(each)


def _endless(model: Any) -> None:
    """A loop of 2**62 rounds."""
    import onnx as onnx_

    helper, types = onnx_.helper, onnx_.TensorProto
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Identity", ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", types.INT64, []),
            helper.make_tensor_value_info("c", types.BOOL, []),
            helper.make_tensor_value_info("v", types.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("d", types.BOOL, []),
            helper.make_tensor_value_info("w", types.FLOAT, []),
        ],
    )
    model.graph.initializer.extend(
        [
            helper.make_tensor("rounds", types.INT64, [], [2**62]),
            helper.make_tensor("yes", types.BOOL, [], [True]),
            helper.make_tensor("zero", types.FLOAT, [], [0.0]),
        ]
    )
    output = model.graph.output[0].name
    last = next(each for each in model.graph.node if output in each.output)
    last.output[list(last.output).index(output)] = "before"
    model.graph.node.extend(
        [
            helper.make_node("Loop", ["rounds", "yes", "zero"], ["looped"], body=body),
            helper.make_node("Add", ["before", "looped"], [output]),
        ]
    )


def _foreign_operator(model: Any) -> None:
    model.graph.node[0].domain = "foreign.domain"
    model.graph.node[0].op_type = "Execute"


onnx_graphs = product(
    (
        Input(
            f"a graph in ONNX with {what}",
            kind,
            "exported model",
            PREDICT,
            onnx(change),
            check=lambda box, outcome: _unsaid(outcome),
        )
        for what, kind, change in (
            ("data upwards", 8, _external("../../outside/secret.txt")),
            ("data at an absolute path", 8, _external("/etc/passwd")),
            ("data beside it that is not there", 8, _external("none.bin")),
            ("data through a link", 8, _external("link.bin")),
            ("a tensor of terabytes", 12, _huge),
            ("an endless loop", 12, _endless),
            ("an operator of its own", 4, _foreign_operator),
        )
    ),
    [
        Input(
            "a graph in ONNX that is a pickle",
            4,
            "exported model",
            PREDICT,
            lambda box: (
                (box.work / "exported/model.pt2").unlink(),
                (box.work / "exported/model.onnx").write_bytes(pickled()),
                _reseal(box),
            ),
        ),
        Input(
            "a graph in ONNX that is a link",
            8,
            "exported model",
            PREDICT,
            lambda box: (
                (box.work / "exported/model.pt2").unlink(),
                box.link(box.work / "exported/model.onnx", box.outside / "secret.txt"),
                _reseal(box),
            ),
        ),
    ],
)


def _unsaid(outcome: Any) -> None:
    assert SECRET not in outcome.out + outcome.err


INPUTS = product(programs, specs, onnx_graphs)
NEEDS_ONNX = {each.name for each in onnx_graphs}
