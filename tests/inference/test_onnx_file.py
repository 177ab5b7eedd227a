"""An ONNX graph from elsewhere: no other file is read, and it gets no more memory than a batch needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dlsearch.core.errors import ConfigError
from dlsearch.inference.model import onnx_runner
from dlsearch.inference.onnx_file import NotReadError, check_onnx

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")


def external(location: str, size: int = 8) -> Any:
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[2])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(size))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def graph(nodes: list[Any], initializers: list[Any], name: str = "g") -> Any:
    given = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, 2])
    found = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    return onnx.helper.make_graph(nodes, name, [given], [found], initializers)


def model(nodes: list[Any], initializers: Any = (), **more: Any) -> Any:
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
    return onnx.helper.make_model(
        graph(nodes, list(initializers)), opset_imports=opsets, ir_version=8, **more
    )


ADD = onnx.helper.make_node("Add", ["x", "w"], ["y"])
WEIGHT = onnx.numpy_helper.from_array(np.ones(2, dtype=np.float32), "w")


def constant(tensor: Any) -> Any:
    return onnx.helper.make_node("Constant", [], ["w"], value=tensor)


def block(tensor: Any) -> Any:
    inner = onnx.helper.make_graph(
        [constant(tensor)],
        "i",
        [],
        [onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [2])],
    )
    condition = onnx.helper.make_node(
        "Constant", [], ["c"], value=onnx.numpy_helper.from_array(np.array(True), "c")
    )
    return [
        condition,
        onnx.helper.make_node("If", ["c"], ["w"], then_branch=inner, else_branch=inner),
        ADD,
    ]


def function(tensor: Any) -> Any:
    own = onnx.helper.make_function(
        "own", "f", ["x"], ["y"], [constant(tensor), ADD], [onnx.helper.make_opsetid("", 17)]
    )
    found = model([onnx.helper.make_node("f", ["x"], ["y"], domain="own")], functions=[own])
    found.opset_import.append(onnx.helper.make_opsetid("own", 1))
    return found


def sparse(tensor: Any) -> Any:
    found = model([ADD], [WEIGHT])
    found.graph.sparse_initializer.add(values=tensor, indices=WEIGHT, dims=[2])
    return found


PLACES = {
    "weight": lambda tensor: model([ADD], [tensor]),
    "constant": lambda tensor: model([constant(tensor), ADD]),
    "block": lambda tensor: model(block(tensor)),
    "function": function,
    "sparse weight": sparse,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("location", ["/etc/passwd", "../outside", "link", "beside"])
def test_a_tensor_in_another_file_is_not_read(tmp_path: Path, place: str, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "outside").write_bytes(np.array([1, 2], dtype=np.float32).tobytes())
    (folder / "beside").write_bytes(np.array([1, 2], dtype=np.float32).tobytes())
    (folder / "link").symlink_to(tmp_path / "outside")
    path = folder / "model.onnx"
    path.write_bytes(PLACES[place](external(location)).SerializeToString())
    with pytest.raises(ConfigError, match="keeps a tensor in another file"):
        onnx_runner(path)


@pytest.mark.parametrize("place", [name for name in PLACES if name != "sparse weight"])
def test_the_same_with_the_tensor_in_it_is_run(tmp_path: Path, place: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(PLACES[place](WEIGHT).SerializeToString())
    assert torch.equal(onnx_runner(path)(torch.zeros(3, 2)), torch.ones(3, 2))


def test_operators_of_the_runtime_s_own_are_not_run(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for name, domain in (
        ("EPContext", "com.microsoft"),
        ("Gelu", "com.microsoft"),
        ("PyOp", "ai.onnx.contrib"),
    ):
        path.write_bytes(
            model([onnx.helper.make_node(name, ["x"], ["y"], domain=domain)]).SerializeToString()
        )
        with pytest.raises(NotReadError, match="which are not run"):
            check_onnx(path)


def test_a_graph_that_asks_for_more_memory_than_its_inputs_need_gets_none(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for size in (600_000_000, 2**33):
        shape = onnx.numpy_helper.from_array(np.array([size]), "s")
        full = onnx.helper.make_node(
            "ConstantOfShape",
            ["s"],
            ["v"],
            value=onnx.numpy_helper.from_array(np.ones(1, np.float32)),
        )
        least = onnx.helper.make_node("ReduceSum", ["v"], ["w"])
        path.write_bytes(model([full, least, ADD], [shape]).SerializeToString())
        with pytest.raises(ConfigError, match=r"model\.onnx: cannot be"):
            onnx_runner(path)(torch.zeros(1, 2))


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"\x3a\xff\xff\xff\xff\x0f", b"nothing", b"\x0b" * 100, b"\x3a\x02" * 999],
)
def test_what_is_no_graph_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(
        ConfigError, match=r"model\.onnx: cannot be read as an ONNX graph"
    ) as caught:
        onnx_runner(path)
    assert "\n" not in str(caught.value)
