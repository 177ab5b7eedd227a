from __future__ import annotations

from pathlib import Path

import pytest

from dlsearch.tracking.journal import Journal, rows

pl = pytest.importorskip("pytorch_lightning")


def test_lightning_writes_into_the_journal(tmp_path: Path) -> None:
    import torch

    from dlsearch.tracking.logger import JournalLogger

    class Module(pl.LightningModule):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.save_hyperparameters({"lr": 0.1})
            self.net = torch.nn.Linear(2, 1)

        def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
            loss = self.net(batch[0]).square().mean()
            self.log("train/loss", loss, on_step=True, on_epoch=False)
            return loss

        def validation_step(self, batch: list[torch.Tensor], _: int) -> None:
            self.log("val/loss", self.net(batch[0]).square().mean())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    path = tmp_path / "journal.a1.jsonl"
    journal = Journal(path)
    seen_at_epoch_end: list[int] = []

    class Look(pl.Callback):  # type: ignore[name-defined,misc]
        def on_train_epoch_start(self, *_: object) -> None:
            seen_at_epoch_end.append(sum("val/loss" in row["values"] for row in rows(path)))

    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.ones(6, 2)), batch_size=2
    )
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=JournalLogger(journal),
        callbacks=[Look()],
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
    )
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(Module(), loader, loader)
    journal.close()
    found = list(rows(path))
    # no params, no status: those are the owner's
    assert {row["row"] for row in found} == {"metrics"}
    train = [
        (row["step"], row["values"]["train/loss"]) for row in found if "train/loss" in row["values"]
    ]
    assert len(train) == trainer.global_step == 6
    assert [step for step, _ in train] == sorted({step for step, _ in train})
    assert seen_at_epoch_end == [0, 1]  # what an epoch logged is on disk when the next one begins
    assert not (tmp_path / "lightning_logs").exists()
