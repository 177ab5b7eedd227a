"""Every argument of Lightning's Trainer: a key, or refused with the reason; and how long a training is."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest

from dlsearch.config.compose import compose_config
from dlsearch.config.trainer_arguments import (
    DEFAULTS,
    OWNED,
    TrainerConfig,
    check_trainer,
    refusal_of,
    without_fast_dev_run,
)
from dlsearch.core.errors import ConfigError

KEYS = {each.name for each in fields(TrainerConfig)}


def test_the_table_is_the_signature_of_the_installed_trainer():
    import pytorch_lightning as pl

    parameters = dict(inspect.signature(pl.Trainer.__init__).parameters)
    del parameters["self"]
    assert {name: each.default for name, each in parameters.items()} == DEFAULTS


def test_each_argument_is_a_key_or_refused():
    assert set(DEFAULTS) == KEYS | set(OWNED)
    assert not KEYS & set(OWNED)
    for refusal in OWNED.values():
        assert refusal.reason
        assert refusal.hint


def test_what_the_built_in_config_leaves_out_is_null():
    """So that a study of an earlier version is not another config."""
    earlier = {"max_epochs", "accelerator", "devices", "precision", "accumulate_grad_batches",
               "log_every_n_steps", "deterministic", "check_val_every_n_epoch", "overfit_batches"}  # fmt: skip
    for each in fields(TrainerConfig):
        assert each.name in earlier or each.default is None, each.name


@pytest.mark.parametrize("name", sorted(OWNED))
def test_an_argument_of_our_own_is_refused_with_its_reason(name):
    with pytest.raises(ConfigError) as refused:
        compose_config([f"trainer.{name}=1"])
    assert refused.value.key == f"trainer.{name}"
    assert OWNED[name].reason in refused.value.expected
    with pytest.raises(ConfigError) as added:
        check_trainer({name: 1})
    assert str(added.value) == str(refused.value)


@pytest.mark.parametrize(
    ("trainer", "said"),
    [
        ({"strategy": "ddp"}, r"trainer\.strategy: a trial owns one device.*'ddp'"),
        (
            {"strategy": {"_target_": "pytorch_lightning.strategies.FSDPStrategy"}},
            r"trainer\.strategy\._target_: a trial owns one device, and FSDPStrategy",
        ),
        ({"devices": 2}, r"trainer\.devices: a trial owns one device, got 2"),
        ({"devices": [0, 1]}, r"trainer\.devices: a trial owns one device"),
        ({"devices": -1}, r"trainer\.devices: a trial owns one device"),
        ({"fast_dev_run": "often"}, r"trainer\.fast_dev_run: expected true or a number"),
        ({"fast_dev_run": -2}, r"trainer\.fast_dev_run: expected true or a number"),
        ({"_target_": "lightning.Trainer"}, r"trainer\._target_: is not for a config to say"),
        ({"max_stepz": 3}, r"trainer\.max_stepz: .*no such argument.*trainer\.max_steps"),
    ],
)
def test_what_no_trial_can_have_is_refused(trainer, said):
    with pytest.raises(ConfigError, match=said):
        check_trainer(trainer)


def test_what_a_trial_can_have():
    for devices in (1, "1", "auto", [0], None):
        check_trainer({"devices": devices})
    check_trainer({"strategy": "auto", "fast_dev_run": True})
    check_trainer({"strategy": {"_target_": "mine.Strategy"}, "fast_dev_run": 3})


def test_refusals_are_of_the_section_alone():
    assert refusal_of("callbacks") is None
    assert refusal_of("mine.logger") is None
    assert refusal_of("trainer.max_epochs") is None


def test_fast_dev_run_is_a_few_batches_of_one_epoch():
    given = {"max_epochs": 9, "max_steps": 100, "precision": "32-true", "fast_dev_run": 2}
    found = without_fast_dev_run(given)
    assert "fast_dev_run" not in found
    assert (found["max_epochs"], found["max_steps"], found["precision"]) == (1, None, "32-true")
    assert found["limit_train_batches"] == found["limit_val_batches"] == 2
    assert without_fast_dev_run({"max_epochs": 9, "fast_dev_run": False}) == {"max_epochs": 9}
