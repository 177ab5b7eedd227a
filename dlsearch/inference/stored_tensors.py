"""The members of a ``torch.export`` archive, and the tensors among them: nothing is unpickled."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dlsearch.inference.reading import NotRunError

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Mapping

    from torch import Tensor

#: Bytes of a graph's description.
MAX_JSON = 16_000_000
#: Numbers and sizes are smaller than this.
LARGEST = 2**63
_BLOCK = 1 << 20

#: Types of numbers, as programs number them.
DTYPES = {
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
_STRIDED = 7

#: What torch puts into an archive of one program; the example inputs are not read.
_MEMBER = re.compile(
    r"archive_format|archive_version|byteorder|\.data/version|\.data/serialization_id"
    r"|models/model\.json|data/sample_inputs/model\.pt"
    r"|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)"
)


def read_tensors(archive: zipfile.ZipFile, members: Mapping[str, str]) -> dict[str, Tensor]:
    """Weights and constants, by their names in the program."""
    weights = _read_group(
        archive,
        members,
        config="data/weights/model_weights_config.json",
        folder="data/weights/",
        prefix="weight_",
    )
    constants = _read_group(
        archive,
        members,
        config="data/constants/model_constants_config.json",
        folder="data/constants/",
        prefix="tensor_",
    )
    return {**weights, **constants}


def list_members(archive: zipfile.ZipFile) -> dict[str, str]:
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


def read_json(archive: zipfile.ZipFile, name: str) -> Any:
    """A JSON member of an archive.

    Raises:
        NotRunError: It is too large, or nested too deeply.
    """
    if archive.getinfo(name).file_size > MAX_JSON:
        raise NotRunError(f"holds more than {MAX_JSON // 1_000_000} MB in {name}")
    try:
        return json.loads(archive.read(name))
    except RecursionError:
        raise NotRunError(f"is nested too deeply in {name}") from None


def _read_group(
    archive: zipfile.ZipFile,
    members: Mapping[str, str],
    config: str,
    folder: str,
    prefix: str,
) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    stores: dict[tuple[str, int], Tensor] = {}
    entries = read_json(archive, members[config])["config"]
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
                DTYPES[meta["dtype"]],
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
    if type(value) is not int or not 0 <= value < LARGEST:
        raise NotRunError(f"expected a size, found {str(value)[:50]!r}")
    return value
