"""Truth tables: what a perceptron can learn, and XOR, which it cannot (Minsky and Papert, 1969)."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from dlsearch.systems.shared.data_module import ArrayData

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from dlsearch.systems.shared.split import Indices

FUNCTIONS: dict[str, Callable[[Sequence[int]], int]] = {
    "and": lambda bits: int(all(bits)),
    "or": lambda bits: int(any(bits)),
    "xor": lambda bits: sum(bits) % 2,
}


class TruthTable(ArrayData):
    """All rows of a Boolean function of 0 and 1; the class is its value.

    There is nothing to generalise to: training, validation and test are the same rows, in training
    `copies` times.

    Args:
        cache: Folder of decoded arrays.
        function: and, or, xor (the parity, for more than two bits).
        shape: (bits,).
        num_classes: Number of classes: 2.
        copies: How often an epoch of training goes through the table.
        batch_size: Of training.
        eval_batch_size: Of validation and test.
        train_size: null: the table is not divided.
        val_size: null, likewise.
        split_seed: Changes nothing.
        seed: Of the order.
        drop_last: Leave out the last training batch where it is smaller than the others.
    """

    classes = ("0", "1")

    def __init__(
        self,
        *,
        cache: str,
        function: str = "and",
        shape: Sequence[int] = (2,),
        num_classes: int = 2,
        copies: int = 32,
        batch_size: int = 32,
        eval_batch_size: int = 512,
        train_size: float | None = None,
        val_size: float | None = None,
        split_seed: int = 0,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        if train_size is not None or val_size is not None:
            argument = "val_size" if train_size is None else "train_size"
            raise ValueError(
                f"{argument}: expected null, a truth table is not divided (hint: data.copies)"
            )
        super().__init__(
            cache=cache,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            train_size=None,
            val_size=0,
            split_seed=split_seed,
            seed=seed,
            drop_last=drop_last,
        )
        if function not in FUNCTIONS:
            raise ValueError(f"function: expected one of {', '.join(FUNCTIONS)}, got {function!r}")
        if isinstance(copies, bool) or not isinstance(copies, int) or copies < 1:
            raise ValueError(f"copies: expected a positive integer, got {copies!r}")
        if len(shape) != 1 or not 1 <= shape[0] <= 10:
            raise ValueError(f"shape: expected [bits] with 1 to 10 bits, got {list(shape)}")
        self.name = function
        self.native_shape = tuple(shape)
        self.function = function
        self.copies = copies
        self.check_shape(shape, num_classes)

    def source(self) -> Mapping[str, Any]:
        """The table, and how often it is written down."""
        return {**super().source(), "bits": self.shape[0], "copies": self.copies}

    def decode(self) -> dict[str, NDArray[Any]]:
        """The table `copies` times to train on, once to validate on, once to test on."""
        function = FUNCTIONS[self.function]
        rows = list(product((0, 1), repeat=self.shape[0]))
        inputs = np.array(rows, dtype=np.float32)
        values = np.array([function(row) for row in rows], dtype=np.int64)
        times = self.copies + 1
        return {
            "train": np.tile(inputs, (times, 1)),
            "train_labels": np.tile(values, times),
            "test": inputs,
            "test_labels": values,
        }

    def choose(self, labels: NDArray[Any]) -> dict[str, Indices]:
        """The last copy is validation."""
        n_rows = 2 ** self.shape[0]
        first = len(labels) - n_rows
        return {
            "val": np.arange(first, len(labels)),
            "train": np.arange(first),
        }

    def statistics(
        self,
        inputs: NDArray[Any],
        labels: NDArray[Any],
    ) -> dict[str, list[float]]:
        """None: inputs stay 0 and 1."""
        return {}

    def transform(self, split: str) -> None:
        """Inputs stay 0 and 1."""
        return
