"""A small training, whatever the version of Lightning; what came of it.

    python tests/training/other_version.py FOLDER PARTS [VERSION]

Given a version, Lightning says that it is that one, and every name that it promises to nobody is
gone for our code.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from tests.versions import is_private, take_away_attributes, take_away_imports


def outcome(folder: Path, parts: int) -> dict[str, Any]:
    """Train, with each batch in so many parts."""
    from dlsearch.config.compose import compose_config
    from dlsearch.tracking.journal import Journal, rows
    from dlsearch.training.building import (
        build_callbacks,
        build_data,
        build_task,
        build_trainer,
        seed_everything,
    )
    from dlsearch.training.callbacks import RunCallback
    from dlsearch.training.fingerprint import state_digest
    from dlsearch.training.micro_batches import MicroBatches
    from dlsearch.training.run import Run

    cfg = compose_config([
        f"paths.store={folder}", f"paths.data={folder}", "data=digits", "data.batch_size=32", "model=mlp",
        "model.width=16", "model.depth=1", "model.dropout=0", "trainer.accelerator=cpu", "trainer.max_epochs=2",
    ])  # fmt: skip
    run = Run(folder, Journal(folder / "journal.jsonl"), ["val/accuracy"], ["maximize"])
    seed_everything(cfg.seed)
    callbacks = [*build_callbacks(cfg, run), RunCallback(run)] + (
        [MicroBatches(parts)] if parts > 1 else []
    )
    trainer = build_trainer(cfg, run, callbacks)
    task = build_task(cfg)
    trainer.fit(task, datamodule=build_data(cfg))
    run.journal.close()
    written = [row["values"] for row in rows(folder / "journal.jsonl") if row["row"] == "metrics"]
    return {
        "weights": state_digest(task.state_dict()),
        "loop": type(trainer.fit_loop.epoch_loop).__name__,
        "rows": [
            {k: v for k, v in values.items() if k.startswith(("train/", "val/"))}
            for values in written
        ],
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if len(sys.argv) > 3:
        pl.__version__ = sys.argv[3]
        own = {
            name
            for name in (*vars(pl.LightningModule()), *dir(pl.LightningModule))
            if is_private(name)
        }
        lightnings = own - set(dir(torch.nn.Module())) - set(vars(torch.nn.Module()))
        take_away_imports("pytorch_lightning")
        take_away_attributes(pl.LightningModule, lightnings.__contains__)
        take_away_attributes(pl.Trainer)
    sys.stdout.write(json.dumps(outcome(Path(sys.argv[1]), int(sys.argv[2]))))
