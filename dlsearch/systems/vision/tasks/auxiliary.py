"""Classification with auxiliary classifiers inside of the net (Szegedy et al., 2014)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.systems.shared.supervised import Batch, Classification

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn
    from torch.optim import Optimizer

    from dlsearch.systems.shared.schedules import Schedule
    from dlsearch.systems.shared.views import Views


class AuxiliaryClassification(Classification):
    """Classification that adds the losses of auxiliary classifiers in training.

    The net leaves their logits in ``auxiliary_logits`` whenever it is called in training. The loss
    that is logged is the main one, so that it compares with other nets'; the auxiliary one is
    ``train/auxiliary``.

    Args:
        net: Takes (B, *in_shape), gives logits (B, num_classes), and has ``auxiliary_logits``.
        optimizer: From parameters to an optimiser.
        num_classes: Number of classes.
        scheduler: Of the learning rate; None keeps it.
        auxiliary_weight: Factor of each auxiliary loss; 0.3 in the paper.
        loss: cross_entropy or hinge.
        label_smoothing: Of the cross-entropy in training.
        l1: Factor of the weights' absolute values in the loss.
        l2: Factor of their squares.
        top_k: Also log how often the right class is among the first k; null for not.
        in_shape: Of one input, for the example that exports need.
        test_time: Views of each image to average over in validation and test; None for the image
            alone.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: Callable[..., Optimizer],
        num_classes: int,
        scheduler: Schedule | None = None,
        auxiliary_weight: float = 0.3,
        loss: str = "cross_entropy",
        label_smoothing: float = 0.0,
        l1: float = 0.0,
        l2: float = 0.0,
        top_k: int | None = None,
        in_shape: Sequence[int] | None = None,
        test_time: Views | None = None,
    ) -> None:
        if auxiliary_weight < 0:
            raise ValueError(f"auxiliary_weight: expected 0 or more, got {auxiliary_weight}")
        super().__init__(
            net,
            optimizer,
            num_classes,
            scheduler,
            loss,
            label_smoothing,
            l1,
            l2,
            top_k,
            in_shape,
            test_time,
        )
        self.auxiliary_weight = auxiliary_weight

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss to minimise."""
        loss = super().training_step(batch, batch_idx)
        heads: list[Tensor] = getattr(self.net, "auxiliary_logits", [])
        for logits in heads:
            extra = self._loss(logits, batch[1])
            self._add("auxiliary", extra.detach() * len(logits))
            loss = loss + self.auxiliary_weight * extra
        heads.clear()  # their graph ends with this step
        return loss
