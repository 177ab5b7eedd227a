"""``trainer.deterministic``: what is noted, and whether the list in the documentation is torch's own."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import torch

from dlsearch.training.determinism import noted

ROOT = Path(__file__).resolve().parents[2]


def refusing(text: str) -> set[str]:
    """The operations that refuse on CUDA (or anywhere), as torch's documentation lists them."""
    listed = text.split("operations will throw a", 1)[1].split("In addition,", 1)[0]
    found = set()
    for entry in re.split(r"\n +\* ", listed)[1:]:
        head = entry.split("\n\n")[0]
        if "MPS" not in head or "CUDA" in head:
            found.add(re.findall(r":(?:class|func):`([^`]+)`", head)[0].rsplit(".", 1)[-1])
    return found


def documented() -> tuple[str, set[str]]:
    """Of which version the list in docs/reproducibility.md is, and what it names as an operation."""
    text = (ROOT / "docs/reproducibility.md").read_text("utf-8")
    match = re.search(r"in torch ([\d.]+), these refuse on CUDA:\n\n(.*?)\n\n", text, re.DOTALL)
    assert match is not None
    return match[1], {name for name in re.findall(r"`([^`]+)`", match[2]) if "=" not in name}


def test_the_documented_operations_are_torchs_own() -> None:
    version, names = documented()
    assert torch.__version__.startswith(f"{version}."), (
        "look at the list again, and name the version"
    )
    expected = refusing(torch.use_deterministic_algorithms.__doc__ or "")
    assert len(expected) > 20
    assert names == expected


def test_the_list_is_read_as_torch_writes_it() -> None:
    text = """
    The following normally-nondeterministic operations will throw a
    :class:`RuntimeError` when ``mode=True``:

        * :class:`torch.nn.A` when called on a CUDA tensor
        * :func:`torch.b` when called on CUDA or MPS tensor
        * :func:`torch.nn.functional.c` and one of the following modes is used on CUDA:

          - ``linear``

        * :func:`torch.d` when called on an MPS tensor
        * :func:`torch.Tensor.e_` when called with a quantized tensor

    In addition, :func:`torch.f`
    """
    assert refusing(text) == {"A", "b", "c", "e_"}


def test_an_operation_is_noted_by_the_name_in_torchs_warning() -> None:
    with warnings.catch_warnings(record=True), noted() as found:
        for _ in range(2):
            warnings.warn(
                "avg_pool3d_backward_cuda does not have a deterministic implementation, but you set"
                " 'torch.use_deterministic_algorithms(True, warn_only=True)'.",
                UserWarning,
                stacklevel=1,
            )
    assert found == ["avg_pool3d_backward_cuda"]
