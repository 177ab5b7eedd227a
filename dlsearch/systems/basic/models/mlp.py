"""The multilayer perceptron (Rumelhart, Hinton and Williams, 1986)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor, nn

from dlsearch.systems.shared.layers import activation as make_activation
from dlsearch.systems.shared.layers import check_dropout, check_outputs, expansion, initialise

if TYPE_CHECKING:
    from collections.abc import Sequence


class MLP(nn.Module):
    """Hidden layers of any number and widths, and a linear output.

    Args:
        in_shape: Of one input, any number of dimensions.
        num_classes: Number of outputs.
        widths: Units of each hidden layer; where given, `depth` and `width` say nothing.
        depth: Number of hidden layers, 0 for none.
        width: Units of each.
        activation: Of the hidden layers.
        dropout: After each hidden layer.
        batch_norm: Batch normalisation before each activation (Ioffe and Szegedy, 2015).
        init: Initial weights: default, xavier, kaiming, normal.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        num_classes: int,
        widths: Sequence[int] | None = None,
        depth: int = 2,
        width: int = 256,
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        init: str = "default",
    ) -> None:
        super().__init__()
        if widths is None and (depth < 0 or width < 1):
            raise ValueError(
                "depth: expected 0 or more layers of 1 or more units,"
                f" got depth {depth} and width {width}"
            )
        widths = [width] * depth if widths is None else list(widths)
        if any(not isinstance(units, int) or units < 1 for units in widths):
            raise ValueError(f"widths: expected positive integers, got {widths}")
        check_dropout(dropout)
        layers: list[nn.Module] = []
        fan_in = math.prod(in_shape)
        for units in widths:
            pre = units * expansion(activation)
            layers.append(nn.Linear(fan_in, pre))
            if batch_norm:
                layers.append(nn.BatchNorm1d(pre))
            layers.append(make_activation(activation))
            layers.append(nn.Dropout(dropout))
            fan_in = units
        self.hidden = nn.Sequential(*layers)
        self.output = nn.Linear(fan_in, check_outputs(num_classes))
        initialise(self, init, activation)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, *in_shape) to (B, num_classes)."""
        return self.output(self.hidden(x.flatten(1)))
