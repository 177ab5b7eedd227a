"""Maxout networks (Goodfellow, Warde-Farley, Mirza, Courville and Bengio, 2013)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor, nn

from dlsearch.systems.shared.layers import (
    Maxout,
    check_dropout,
    check_outputs,
    check_positive,
    initialise,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


class MaxoutNet(nn.Module):
    """Maxout layers with dropout and a softmax output.

    This is the paper's net for permutation-invariant MNIST (section 5.1).

    A unit is the largest of `pieces` linear maps of its inputs, max(w1·x + b1, w2·x + b2, ...): a
    convex function that is learned. Departures: the paper also limits the norm of each weight
    vector, for which there is weight decay here.

    Args:
        in_shape: Of one input, any number of dimensions.
        num_classes: Number of outputs.
        depth: Number of maxout layers.
        width: Units of each.
        pieces: Linear maps of each unit.
        dropout: After each maxout layer.
        input_dropout: Of the inputs.
        init: Initial weights: default, xavier, kaiming, normal.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        num_classes: int,
        depth: int = 2,
        width: int = 240,
        pieces: int = 5,
        dropout: float = 0.5,
        input_dropout: float = 0.2,
        init: str = "default",
    ) -> None:
        super().__init__()
        check_positive(depth=depth, width=width, pieces=pieces)
        check_dropout(dropout)
        layers: list[nn.Module] = [nn.Dropout(check_dropout(input_dropout))]
        fan_in = math.prod(in_shape)
        for _ in range(depth):
            layers += [nn.Linear(fan_in, width * pieces), Maxout(pieces), nn.Dropout(dropout)]
            fan_in = width
        self.hidden = nn.Sequential(*layers)
        self.output = nn.Linear(fan_in, check_outputs(num_classes))
        initialise(self, init, "maxout")

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, *in_shape) to (B, num_classes)."""
        return self.output(self.hidden(x.flatten(1)))
