"""The perceptron: a probabilistic model for information storage and organization in the brain.

After Rosenblatt (1958).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dlsearch.systems.shared.layers import check_dropout, check_outputs, initialise

if TYPE_CHECKING:
    from collections.abc import Sequence


class Perceptron(nn.Module):
    """Threshold units on weighted inputs: a unit gives 1 where ``w · x + b > 0``, else 0.

    The bias is the weight of one more input that is fixed at 1. Two classes need one unit, which
    stands for the second; more have a unit each, and the one with the largest sum decides.
    ``task=perceptron`` trains it by Rosenblatt's rule.

    Args:
        in_shape: Of one input, any number of dimensions.
        num_classes: Number of classes.
        dropout: Of the inputs.
        init: Initial weights: default, xavier, kaiming, normal.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        num_classes: int,
        dropout: float = 0.0,
        init: str = "default",
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(check_dropout(dropout))
        n_units = 1 if check_outputs(num_classes) == 2 else num_classes
        self.units = nn.Linear(math.prod(in_shape) + 1, n_units, bias=False)
        initialise(self, init, "linear")
        self.num_classes = num_classes

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, *in_shape) to weighted sums (B, num_classes).

        Of two classes the first has the sum 0, so that the larger of the two is what the threshold
        of the unit says.
        """
        x = self.dropout(x.flatten(1))
        ones = torch.ones_like(x[:, :1])
        sums = self.units(torch.cat([x, ones], dim=1))  # (B, units)
        if self.num_classes != 2:
            return sums
        return torch.cat([torch.zeros_like(sums), sums], dim=1)

    def fires(self, x: Tensor) -> Tensor:
        """x: (B, *in_shape) to 0 or 1 of each unit, (B, units)."""
        sums = self(x)
        of_units = sums[:, -self.units.out_features :]
        is_firing = of_units > 0
        return is_firing.to(sums.dtype)
