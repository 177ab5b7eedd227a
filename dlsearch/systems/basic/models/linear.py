"""The linear model.

The loss makes a softmax classifier, a multiclass SVM or a linear regression of it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor, nn

from dlsearch.systems.shared.layers import check_dropout, check_outputs, initialise

if TYPE_CHECKING:
    from collections.abc import Sequence


class LinearModel(nn.Module):
    """``f(x) = W x + b``. 7,850 parameters for MNIST.

    Args:
        in_shape: Of one input, any number of dimensions.
        num_classes: Number of outputs.
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
        self.linear = nn.Linear(math.prod(in_shape), check_outputs(num_classes))
        initialise(self, init, "linear")

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, *in_shape) to (B, num_classes)."""
        return self.linear(self.dropout(x.flatten(1)))
