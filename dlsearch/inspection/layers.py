"""The layers of a net that compute something themselves, and a run with hooks on some."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle


def leaf_layers(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Names and layers of those that have no children."""
    for name, module in net.named_modules():
        first_child = next(module.children(), None)
        if first_child is None:
            yield name, module


def run_hooked(
    net: nn.Module,
    x: Tensor,
    hooks: Iterable[RemovableHandle],
) -> None:
    """Run a net for what its hooks take, and remove these, also where it fails."""
    try:
        net(x)
    finally:
        for hook in hooks:
            hook.remove()
