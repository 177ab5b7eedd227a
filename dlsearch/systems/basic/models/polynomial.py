"""Linear and polynomial regression: the powers of each feature as inputs of a linear model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dlsearch.systems.shared.layers import check_dropout, check_outputs, check_positive, initialise

if TYPE_CHECKING:
    from collections.abc import Sequence


class PolynomialModel(nn.Module):
    """``f(x) = Σ_p W_p x^p + b`` with the powers p = 1 to `degree` of each feature.

    Linear in its weights.

    Features should be standardised, as the data modules do: the powers of large numbers leave no
    other feature a say.

    Args:
        in_shape: Of one input, any number of dimensions.
        num_classes: Number of outputs.
        degree: Highest power; 1 is the linear model.
        dropout: Of the powers.
        init: Initial weights: default, xavier, kaiming, normal.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        num_classes: int = 1,
        degree: int = 2,
        dropout: float = 0.0,
        init: str = "default",
    ) -> None:
        super().__init__()
        check_positive(degree=degree)
        self.degree = degree
        self.dropout = nn.Dropout(check_dropout(dropout))
        self.linear = nn.Linear(degree * math.prod(in_shape), check_outputs(num_classes))
        initialise(self, init, "linear")

    def powers(self, x: Tensor) -> Tensor:
        """x: (B, F) to (B, degree · F): all features, then all their squares, and so on."""
        return torch.cat([x**power for power in range(1, self.degree + 1)], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, *in_shape) to (B, num_classes)."""
        return self.linear(self.dropout(self.powers(x.flatten(1))))
