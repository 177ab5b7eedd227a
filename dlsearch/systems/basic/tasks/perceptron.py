"""The perceptron's own learning rule, as Rosenblatt wrote it.

Nothing changes unless a unit is wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from dlsearch.systems.shared.supervised import Batch, Classification

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch.optim import Optimizer


class PerceptronLearning(Classification):
    """Rosenblatt's rule: ``w ← w + lr · (t − y) · x``.

    The target t and the output y of each unit are both 0 or 1.

    Optimisation is manual: the step is (t − y) · x, no gradient of a loss. It is handed to the
    optimiser as a gradient with its sign turned, so plain SGD without momentum or weight decay
    (``optimizer=sgd``) is the rule itself and its learning rate the rule's. ``data.batch_size=1``
    is the original; larger batches add the steps of their samples.

    The loss that is logged is the number of wrong units of a sample. Logs loss, accuracy and macro
    F1.

    Args:
        net: A linear map of its inputs: takes (B, *in_shape), gives weighted sums (B, num_classes),
            of which a constant one stands for a class without a unit.
        optimizer: From parameters to an optimiser.
        num_classes: Number of classes.
        in_shape: Of one input, for the example that exports need.

    Raises:
        ValueError: The optimiser is another than SGD.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: Callable[..., Optimizer],
        num_classes: int,
        in_shape: Sequence[int] | None = None,
    ) -> None:
        made = getattr(optimizer, "func", optimizer)
        if isinstance(made, type) and made is not SGD:
            raise ValueError(
                f"optimizer: Rosenblatt's rule takes stochastic gradient descent, got"
                f" {made.__name__} (hint: optimizer=sgd)"
            )
        super().__init__(net, optimizer, num_classes, in_shape=in_shape)
        self.automatic_optimization = False
        self.averages_probabilities = False  # sums are no logits
        self._loss = wrong_units
        self._eval_loss = wrong_units

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Apply the rule to a batch."""
        x, y = batch
        sums = self.net(x)
        loss = wrong_units(sums, y)
        steps = errors(sums, y) * sums
        optimizer = self.optimizers()
        optimizer.zero_grad()  # type: ignore[union-attr]  # there is one
        # d(w · x)/dw is x: this is the rule for any linear net, with the bias as the weight of an
        # input fixed at 1
        self.manual_backward(-steps.sum())
        step = self.trainer.global_step
        optimizer.step()  # type: ignore[union-attr]
        self._seen += len(x)
        self._add("loss", loss * len(x))
        self.count_training(sums.detach(), y)
        if step % self._log_every == 0:
            self._log_step(loss, step)
        return loss


def errors(sums: Tensor, y: Tensor) -> Tensor:
    """What each unit lacks, t − y, −1, 0 or 1: (B, K) weighted sums and (B,) classes to (B, K).

    With two classes the first has no unit: its sum is a constant 0, and the target of the other is
    the class.
    """
    num_classes = sums.shape[1]
    output = (sums > 0).to(sums.dtype)
    target = F.one_hot(y, num_classes).to(sums.dtype)
    error = (target - output).detach()
    if num_classes == 2:
        error[:, 0] = 0
    return error


def wrong_units(sums: Tensor, y: Tensor) -> Tensor:
    """How many units of a sample are wrong, mean over the batch: (B, K) sums and (B,) classes."""
    is_wrong = errors(sums, y).abs()
    return is_wrong.sum(1).mean()
