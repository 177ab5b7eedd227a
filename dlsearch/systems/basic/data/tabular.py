"""A regression on real measurements: the diabetes data that come with scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dlsearch.systems.shared.bundled import packaged
from dlsearch.systems.shared.data_module import ArrayData
from dlsearch.systems.shared.split import check_size, count, take

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from dlsearch.systems.shared.descriptions import InputSpec, TargetSpec


class Diabetes(ArrayData):
    """Ten measurements of 442 patients, and their disease a year later (Efron et al., 2004).

    Args:
        cache: Folder of decoded arrays.
        shape: (features,).
        num_classes: Number of outputs: 1.
        batch_size: Of training.
        eval_batch_size: Of validation and test.
        train_size: Limit on the training samples: a count, a fraction, or null for all.
        val_size: Validation samples: a count, or a fraction of what is not test.
        test_size: Test samples: a count or a fraction.
        split_seed: Of the split alone.
        seed: Of the order.
        standardise_target: Scale the target too, so that errors are in units of its deviation in
            training.
        drop_last: Leave out the last training batch where it is smaller than the others.
    """

    name = "diabetes"
    native_shape = (10,)
    columns = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")
    target = "disease progression"

    def __init__(
        self,
        *,
        cache: str,
        shape: Sequence[int] = (10,),
        num_classes: int = 1,
        batch_size: int = 32,
        eval_batch_size: int = 512,
        train_size: float | None = None,
        val_size: float = 0.25,
        test_size: float = 0.2,
        split_seed: int = 0,
        seed: int = 0,
        standardise_target: bool = True,
        drop_last: bool = False,
    ) -> None:
        super().__init__(
            cache=cache,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            train_size=train_size,
            val_size=val_size,
            split_seed=split_seed,
            seed=seed,
            drop_last=drop_last,
        )
        self.check_shape(shape, num_classes)
        check_size(test_size, "test_size")
        self.test_size = test_size
        self.standardise_target = standardise_target

    def source(self) -> Mapping[str, Any]:
        """There is no official test set: the arrays depend on the split too."""
        return {**super().source(), "test_size": self.test_size, "split_seed": self.split_seed}

    def source_test_files(self) -> list[Path]:
        """All patients are in one table."""
        return packaged("diabetes_data_raw.csv.gz", "diabetes_target.csv.gz")

    def decode(self) -> dict[str, NDArray[Any]]:
        """As measured; targets are (N, 1)."""
        from sklearn.datasets import load_diabetes

        features, target = load_diabetes(return_X_y=True, scaled=False)
        inputs = features.astype(np.float32)
        targets = target.astype(np.float32)[:, None]
        rng = np.random.default_rng(self.split_seed)
        number = count(self.test_size, len(inputs), "test_size")
        test, rest = take(None, np.arange(len(inputs)), number, rng)
        return {
            "train": inputs[rest],
            "train_labels": targets[rest],
            "test": inputs[test],
            "test_labels": targets[test],
        }

    def statistics(
        self,
        inputs: NDArray[Any],
        labels: NDArray[Any],
    ) -> dict[str, list[float]]:
        """Mean and deviation of each feature, and of the target."""
        return {
            "mean": inputs.mean(0, dtype=np.float64).tolist(),
            "std": inputs.std(0, dtype=np.float64).tolist(),
            "target_mean": labels.mean(0, dtype=np.float64).tolist(),
            "target_std": labels.std(0, dtype=np.float64).tolist(),
        }

    def input_spec(self) -> InputSpec:
        """The columns of a row, and the statistics that standardise them and the target."""
        found = self.record()["statistics"]
        target: TargetSpec = {"name": self.target}
        if self.standardise_target:
            target["mean"] = found["target_mean"][0]
            target["std"] = found["target_std"][0]
        return {
            "kind": "table",
            "shape": list(self.shape),
            "columns": list(self.columns),
            "mean": found["mean"],
            "std": found["std"],
            "targets": [target],
            "classes": [],
        }

    def arrays(self, part: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Standardised by what the training split says."""
        inputs, targets = super().arrays(part)
        statistics = self.record()["statistics"]
        mean = torch.tensor(statistics["mean"])
        std = torch.tensor(statistics["std"])
        inputs = (inputs - mean) / std
        if self.standardise_target:
            target_mean = torch.tensor(statistics["target_mean"])
            target_std = torch.tensor(statistics["target_std"])
            targets = (targets - target_mean) / target_std
        return inputs, targets

    def transform(self, split: str) -> None:
        """All is done when the arrays are opened: they are small."""
        return
