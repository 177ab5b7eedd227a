"""What counts as a report: values that were logged anew, by whichever hook and under any name."""

from __future__ import annotations

import functools
import json
import math

import pytest
import torch
from omegaconf import OmegaConf

from dlsearch.config.compose import compose_config
from dlsearch.core.errors import ConfigError
from dlsearch.tracking.journal import Journal, rows
from dlsearch.training import fit as fit_module
from dlsearch.training.fit import fit
from dlsearch.training.metrics.finiteness import TrainingLosses
from dlsearch.training.run import Interrupted, Run
from tests.training import foreign_logging as foreign

#: Lightning warns of much that these modules do on purpose.
pytestmark = pytest.mark.filterwarnings("ignore")


@functools.cache
def composed(store, *overrides):
    cfg = compose_config([
        f"paths.store={store}", f"paths.data={store}", "callbacks=none", "trainer.accelerator=cpu",
        "trainer.max_epochs=4", *overrides,
    ])  # fmt: skip
    return OmegaConf.merge(cfg, {"data": None})


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Trains what `make` makes for four epochs; returns the result, and the reports."""

    def run(make, *overrides, objective="val_acc", loaders=1, folder="run", **changes):
        monkeypatch.setattr(fit_module, "build_task", lambda cfg: make())
        monkeypatch.setattr(fit_module, "build_data", lambda cfg: foreign.Data(loaders))
        reported = []

        def report(position, step, metrics):
            reported.append((position, metrics))
            return False

        objectives = [objective] if isinstance(objective, str) else objective
        place = tmp_path / folder
        arguments = {"report": report, **changes}
        result = fit(
            composed(str(tmp_path), *overrides).copy(),
            Run(
                folder=place,
                journal=Journal(place / "journal.jsonl"),
                objectives=objectives,
                directions=["maximize"] * len(objectives),
                **arguments,
            ),
        )
        return result, reported

    return run


@pytest.mark.parametrize(("module", "objective", "epochs", "loaders"), [
    (foreign.Plain, "val_acc", [0, 1, 2, 3], 1),
    (foreign.EveryOther, "val_map", [1, 3], 1),
    (foreign.AtEpochEnd, "val_map", [0, 2], 1),
    (foreign.AtTrainEpochEnd, "gap", [1, 3], 1),
    (foreign.AtEpochStart, "schedule", [0, 1, 2, 3], 1),
    (foreign.Both, "val_acc", [0, 1, 2, 3], 1),
    (foreign.Both, "val_acc_epoch", [0, 1, 2, 3], 1),
    (foreign.TrainOnly, "train_loss", [0, 1, 2, 3], 1),
    (foreign.TrainOnly, "train_loss_epoch", [0, 1, 2, 3], 1),
    (foreign.TrainOnlyNow, "train_loss", [0, 1, 2, 3], 1),
    (foreign.TwoLoaders, "val_acc/dataloader_idx_1", [0, 1, 2, 3], 2),
    (foreign.SecondLoaderOnly, "val_far", [0, 1, 2, 3], 2),
    (foreign.Torchmetrics, "val_acc", [0, 2, 3], 1),
    (foreign.StateMetric, "val_count", [0, 1, 2, 3], 1),
    (foreign.RareClass, "val_acc", [0, 1, 2, 3], 1),
    (foreign.SkippedBatch, "val_acc", [0, 1, 2, 3], 1),
    (foreign.Manual, "val_acc", [0, 1, 2, 3], 1),
    (foreign.Dictionary, "by_hand", [0, 1, 2, 3], 1),
], ids=lambda value: getattr(value, "__name__", None))  # fmt: skip
def test_a_report_is_what_was_logged_anew(train, module, objective, epochs, loaders):
    result, reported = train(module, objective=objective, loaders=loaders)
    assert result.state == "complete", result.error
    assert [position for position, _ in reported] == epochs
    assert [position for position, _ in result.history] == epochs
    assert all(objective in metrics for _, metrics in reported)
    assert math.isfinite(result.values[0])
    passed_over = [note for note in result.notes if "passed over" in note]
    assert bool(passed_over) == (len(epochs) < 4)


def test_metrics_that_were_not_logged_anew_are_no_part_of_a_report(train):
    class Costly(foreign.Plain):
        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            if self.current_epoch == 0:
                self.log("val_fid", 1.0)

    _, reported = train(Costly)
    assert ["val_fid" in metrics for _, metrics in reported] == [True, False, False, False]


def test_an_epoch_without_validation_is_no_report(train):
    result, reported = train(foreign.Plain, "trainer.check_val_every_n_epoch=2")
    assert [position for position, _ in reported] == [1, 3]
    assert result.notes == []


@pytest.mark.parametrize(("module", "objective", "loaders", "said"), [
    (foreign.Plain, "val_f1", 1, "'val_f1' is not logged (hint: the module logs train_loss, val_acc, val_loss)"),
    (foreign.OnStep, "val_acc", 1, "'val_acc' is logged for steps alone, not for epochs (hint: self.log('val_acc', …"),
    (foreign.TwoLoaders, "val_acc", 2, "'val_acc' has a name for each loader: val_acc/dataloader_idx_0, "
     "val_acc/dataloader_idx_1 (hint: study.objective=val_acc/dataloader_idx_0)"),
    (foreign.TrainOnly, "val_acc", 1, "'val_acc' is not logged, and nothing is validated"),
    (foreign.NeverTogether, ["even", "odd"], 1, "no epoch logged all objectives"),
    (foreign.NeverTogether, ["even", "val_f1"], 1, "'val_f1' is not logged"),
], ids=lambda value: getattr(value, "__name__", None))  # fmt: skip
def test_an_objective_that_never_had_a_value_is_the_cause(train, module, objective, loaders, said):
    with pytest.raises(ConfigError) as caught:
        train(module, objective=objective, loaders=loaders)
    assert str(caught.value).startswith(f"study.objective: {said}")


@pytest.mark.parametrize(("module", "error"), [
    (foreign.NanObjective, "nan after epoch 2: val_acc"),
    (foreign.SilentDivergence, "nan after epoch 2: the training loss"),
    (lambda: foreign.Manual(diverges=True), "nan after epoch 2: the training loss"),
])  # fmt: skip
def test_only_the_objective_and_the_training_loss_fail_a_trial(train, module, error):
    result, _ = train(module)
    assert (result.state, result.reason, result.error) == ("failed", "nan", error)
    assert result.cause.type == "nan"


def test_an_auxiliary_metric_that_is_nan_is_stored_as_such(train, tmp_path):
    result, _ = train(foreign.RareClass)
    assert result.state == "complete"
    assert result.not_finite["final/val_loss_rare"] == "nan"
    assert result.notes == ["val_loss_rare was not finite in 3 of its reports"]
    stored = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert stored["not_finite"] == result.not_finite
    written = [row for row in rows(tmp_path / "run/journal.jsonl") if row["row"] == "metrics"]
    assert "nan" in [row["values"].get("val_loss_rare") for row in written]


@pytest.mark.parametrize(("values", "kind", "kind_of_last"), [
    ([1.0, 2.0], None, None), ([1.0, float("inf"), 2.0], "inf", None), ([1.0, float("-inf")], "inf", "inf"),
    ([float("nan"), float("inf")], "nan", "inf"), ([], None, None), ([float("nan"), *[1.0] * 2_500], "nan", None),
])  # fmt: skip
def test_losses_are_looked_at_once(values, kind, kind_of_last):
    for last_alone, expected in ((False, kind), (True, kind_of_last)):
        losses = TrainingLosses()
        for value in values:
            losses.note_outputs({"loss": torch.tensor(value, requires_grad=True)})
        for outputs in (None, {}, {"loss": "none"}, {"loss": torch.zeros(2)}):
            losses.note_outputs(outputs)
        found = losses.take(last_alone=last_alone)
        assert (found and found.kind) == expected
        assert losses.take(last_alone=last_alone) is None


def test_a_resumption_keeps_count_and_never_takes_a_later_epoch_for_the_best_one(train):
    whole, seen = train(foreign.EveryOther, objective="val_map")
    told = []

    def die(position, step, metrics):
        told.append(position)
        return False

    def is_time():
        return bool(told)  # in the epoch after the first report

    with pytest.raises(Interrupted):
        train(foreign.EveryOther, objective="val_map", folder="a", report=die, stop=is_time)
    again, reported = train(foreign.EveryOther, objective="val_map", folder="a")
    assert [position for position, _ in reported] == [1, 3]
    assert (again.values, again.best_epoch, again.notes) == (
        whole.values, whole.best_epoch, whole.notes,
    )  # fmt: skip
    assert again.metrics_sha256 == whole.metrics_sha256
    assert again.state_sha256 == whole.state_sha256
    assert [position for position, _ in seen] == [1, 3]


def test_steps_are_reported_where_the_goal_is_new(train):
    steps = ("trainer.max_epochs=null", "trainer.max_steps=12", "trainer.log_every_n_steps=1")
    result, reported = train(foreign.CountsSteps, *steps, objective="reward")
    assert [metrics["reward"] for _, metrics in reported] == [2.0, 5.0, 8.0, 11.0]
    assert result.values == [11.0]
    result, reported = train(
        foreign.CountsStepsAndValidates,
        "trainer.max_epochs=null",
        "trainer.max_steps=8",
        objective="val_map",
        folder="b",
    )
    assert [position for position, _ in reported] == [3, 7]


@pytest.mark.parametrize(("words", "prune_at", "state"), [
    ((), 3, "complete"),
    ((), 2, "pruned"),
    (("callbacks=default", "callbacks.early_stopping.patience=1"), 1, "complete"),
    (("callbacks=default", "callbacks.early_stopping.patience=1", "+trainer.min_epochs=4"), 1, "pruned"),
])  # fmt: skip
def test_what_reached_its_last_epoch_is_complete(train, words, prune_at, state):
    class Constant(foreign.Plain):
        def validation_step(self, batch, batch_idx):
            self.log("val_acc", 0.5)

    def report(position, step, metrics):
        return position == prune_at

    result, _ = train(Constant, *words, report=report)
    assert (result.state, result.epochs) == (state, prune_at + 1)


def test_early_stopping_counts_the_epochs_that_logged_its_metric(train):
    class Constant(foreign.Plain):
        def validation_step(self, batch, batch_idx):
            if self.current_epoch % 2 == 1:
                self.log("val_map", 0.5)

    words = ("callbacks=default", "callbacks.early_stopping.patience=1", "trainer.max_epochs=9")
    result, reported = train(Constant, *words, objective="val_map")
    assert (result.state, result.epochs) == ("complete", 4)
    assert [position for position, _ in reported] == [1, 3]
    result, _ = train(
        lambda: foreign.TrainOnly(lr=0.0),
        *words,
        "+callbacks.early_stopping.monitor=val_loss",
        "+callbacks.early_stopping.strict=false",
        objective="train_loss",
        folder="b",
    )
    assert (result.state, result.epochs) == ("complete", 9), "nothing to watch"
