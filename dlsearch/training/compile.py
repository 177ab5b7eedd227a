"""``torch.compile`` for the net of a training (Ansel et al., 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytorch_lightning as pl

if TYPE_CHECKING:
    import torch

#: torch's modes; ``reduce-overhead`` records CUDA graphs, which wants shapes that stay the same.
MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


class Compile(pl.Callback):
    """Compiles a submodule in place.

    So the names of its weights, and checkpoints, stay as they are.

    The first steps of every trial wait for the compiler, seconds to minutes; it pays off in long
    trainings on a GPU. The numbers differ from the plain net's in their last digits. Where shapes
    must not change, ``data.drop_last=true``.

    Args:
        mode: One of :data:`MODES`.
        backend: Of ``torch.compile``.
        module: The name of the submodule; empty compiles the whole module's ``forward``.

    Raises:
        ValueError: The mode is unknown.
    """

    def __init__(
        self,
        mode: str = "default",
        backend: str = "inductor",
        module: str = "net",
    ) -> None:
        """Nothing is compiled before the first step."""
        if mode not in MODES:
            raise ValueError(f"mode: expected one of {', '.join(MODES)}, got {mode!r}")
        self.mode = mode
        self.backend = backend
        self.module = module

    def setup(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        stage: str,
    ) -> None:
        """Wrap the submodule."""
        if stage == "fit":
            found: torch.nn.Module = pl_module.get_submodule(self.module)
            # torch takes a mode with its own compiler alone
            found.compile(
                backend=self.backend, **({"mode": self.mode} if self.backend == "inductor" else {})
            )

    def teardown(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        stage: str,
    ) -> None:
        """Unwrap it: what is scored and exported afterwards is the plain net."""
        if stage == "fit":
            net = pl_module.get_submodule(self.module)
            if "_compiled_call_impl" in vars(net):  # torch has no public way back
                vars(net)["_compiled_call_impl"] = None
