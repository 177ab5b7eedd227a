"""One batch of a module tells what would otherwise fail every trial."""

from __future__ import annotations

import copy
import re
import signal
import time
from pathlib import Path

import pytest

from dlsearch.config.compose import compose_config
from dlsearch.core.errors import ConfigError
from dlsearch.execution.processes.forkserver import ForkServer
from dlsearch.execution.rehearsal.judging import judge
from dlsearch.execution.rehearsal.listening import listen_to
from dlsearch.execution.rehearsal.messages import RehearsalPayload
from dlsearch.planning.draft import Draft, make_draft
from dlsearch.planning.variations import Variation, VariationKind, list_variations

FOREIGN = "tests.foreign.rehearsed"
STOPPING = "pytorch_lightning.callbacks.EarlyStopping"


@pytest.fixture(scope="module")
def server():
    """A warm server, which has the modules imported."""
    from dlsearch.core import permission

    permission.grant(["tests"])
    server = ForkServer.start(
        ["dlsearch.training.fit", "dlsearch.execution.rehearsal.trying", FOREIGN]
    )
    yield server
    server.stop()


@pytest.fixture(scope="module")
def base():
    """A config with neither task nor data."""
    from omegaconf import OmegaConf

    cfg = compose_config(["callbacks=none", "trainer.accelerator=cpu"])
    plain = OmegaConf.to_container(cfg, resolve=False)
    plain.pop("hydra", None)
    nothing = dict.fromkeys(("model", "optimizer", "scheduler"))
    return {**plain, **nothing, "allow_targets": ["tests"]}


class Rehearsals:
    """Rehearses modules in children of a warm server.

    Args:
        server: The warm server.
        base: The config that all of them share.
        folder: Where a child may write.
    """

    def __init__(self, server: ForkServer, base: dict, folder: Path) -> None:
        self.server, self.base, self.folder = server, base, folder

    def config(self, module: str, data=None, trainer=None, callbacks=None, **task):
        config = copy.deepcopy(self.base)
        config["task"] = {"_target_": f"{FOREIGN}.{module}", **task}
        config["data"] = {"_target_": f"{FOREIGN}.Numbers", **(data or {})}
        config["trainer"] |= {"max_epochs": 3, **(trainer or {})}
        config["callbacks"] = callbacks or {}
        return config

    def start(self, candidates, objectives):
        directions = ["maximize"] * len(objectives)
        payload = RehearsalPayload(candidates, objectives, directions, str(self.folder), 1)
        given = {
            "configs": [candidates[0].config], "weights": {}, "objectives": objectives, "directions": directions,
            "rehearsal": payload.to_json(),
        }  # fmt: skip
        child = self.server.spawn(
            "dlsearch.execution.trial_main:preflight", given, env={}, log=self.folder / "log"
        )
        built = child.channel.receive()
        if "error" in built:
            child.reap()
            child.close()
            raise ConfigError(*built["error"])
        return child

    def sights(self, candidates, *objectives):
        child = self.start(candidates, list(objectives or ["val_acc"]))
        found = listen_to(child, 60)
        assert child.reap() == 0, (self.folder / "log").read_text()
        child.close()
        return found

    def judged(self, module: str, *objectives: str, **given):
        config = self.config(module, **given)
        default = Variation(VariationKind.DEFAULT, "the default configuration", config)
        sights = self.sights([default], *objectives)
        return judge(sights, objectives or ["val_acc"], trainer=config["trainer"])


@pytest.fixture
def rehearse(server, base, tmp_path):
    return Rehearsals(server, base, tmp_path)


@pytest.mark.parametrize(("module", "typed", "taken", "given"), [
    ("Plain", "val_acc", "val_acc", {}),
    ("Plain", "val_acc_epoch", "val_acc", {}),
    ("Plain", "val_acc/dataloader_idx_0", "val_acc", {}),
    ("Plain", "model/n_params", "model/n_params", {}),
    ("PerLoader", "val_acc/dataloader_idx_1", "val_acc/dataloader_idx_1", {"data": {"val_loaders": 2}}),
    ("OneAmongLoaders", "val_acc", "val_acc/dataloader_idx_1", {"data": {"val_loaders": 2}}),
    ("OfBoth", "val_acc", "val_acc", {}),
    ("OfBoth", "val_acc_step", "val_acc", {}),
    ("OfBoth", "val_acc_epoch", "val_acc_epoch", {}),
    ("NoValidationByEpoch", "train_loss", "train_loss", {}),
    ("EveryThird", "val_map", "val_map", {}),
    ("NeedsTwoClasses", "val_auc", "val_auc", {}),
    ("CountsSteps", "val_acc", "val_acc", {}),
    ("RealTensors", "val_acc", "val_acc", {}),
    ("LazyLayers", "val_acc", "val_acc", {}),
    ("ByHand", "val_acc", "val_acc", {}),
    ("Prints", "val_acc", "val_acc", {}),
    ("Plain", "val_acc", "val_acc", {"data": {"stream": True}}),
    ("Plain", "val_acc", "val_acc", {"trainer": {"max_epochs": None, "max_steps": 5}}),
    ("Plain", "val_acc", "val_acc", {"trainer": {"val_check_interval": 2}}),
    ("Plain", "val_acc", "val_acc", {"trainer": {"precision": "bf16-mixed", "accumulate_grad_batches": 3}}),
])  # fmt: skip
def test_what_trains_is_taken_as_it_is_logged(rehearse, capfd, module, typed, taken, given):
    judged = rehearse.judged(module, typed, **given)
    assert judged.objectives == [taken]
    if typed == taken:
        assert judged.notices == []
    else:
        assert judged.notices == [f"study.objective: {typed!r} is logged as {taken!r}"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("module", "objective", "given", "said"), [
    ("Plain", "val/accuracy", {},
     r"study\.objective: 'val/accuracy' is not logged: the module logs train_loss, val_acc, val_loss"
     r" \(hint: study\.objective=val_acc\)"),
    ("Plain", "valid_loss", {}, r"hint: study\.objective=val_loss\)"),
    ("PerLoader", "val_acc", {"data": {"val_loaders": 2}},
     r"logged once for each loader: val_acc/dataloader_idx_0, val_acc/dataloader_idx_1"
     r" \(hint: study\.objective=val_acc/dataloader_idx_0\)"),
    ("OfSteps", "val_acc", {}, r"for single batches of the validation alone \(hint: self\.log\('val_acc'"),
    ("NoValidation", "train_loss", {}, r"single batches alone, and NoValidation has no validation_step"),
    ("NoValidation", "val_acc", {}, r"'val_acc' is not logged: .*, and NoValidation has no validation_step"),
    ("Plain", "val_acc", {"data": {"val": False}}, r"Numbers\.val_dataloader gives no batch"),
    ("Plain", "val_acc", {"trainer": {"limit_val_batches": 0}}, r"trainer\.limit_val_batches is 0"),
    ("LoggerAlone", "val_acc", {}, r"given to the logger alone.*hint: self\.log\('val_acc'"),
    ("Plain", "val_acc", {"trainer": {"check_val_every_n_epoch": 10}},
     r"trainer\.check_val_every_n_epoch: 10 is more than the 3 epochs of a trial"),
    ("Plain", "val_acc", {"trainer": {"val_check_interval": 100}},
     r"trainer\.val_check_interval: 100 is more than the 4 batches of an epoch"),
    ("Plain", "val_acc", {"callbacks": {
        "one": {"_target_": STOPPING, "monitor": "val_loss"},
        "two": {"_target_": STOPPING, "monitor": "val_loss", "patience": 9}}},
     r"callbacks\.two: a checkpoint cannot tell it from callbacks\.one: both are EarlyStopping"),
    ("Plain", "val_acc", {"callbacks": {"one": {"_target_": STOPPING, "monitor": "val/loss"}}},
     r"`val/loss` which is not available.*`val_loss`"),
    ("WrongShape", "val_acc", {}, r"task: RuntimeError: .*mat1 and mat2 .*\(tests/foreign/rehearsed\.py:\d+\)"),
    ("Halves", "val_acc", {"width": 8.0}, r"task: .* type float"),
    ("NeedsPackage", "val_acc", {}, r"hint: pip install cv2_that_is_not_there"),
    ("NeedsPackageLater", "val_acc", {}, r"ModuleNotFoundError: .*hint: pip install scikit-image"),
    ("KeepsFunction", "val_acc", {}, r"task: .*pickle.*<lambda>"),
    ("ReadsTest", "val_acc", {}, r"the test set is sealed during a search"),
    ("Leaves", "val_acc", {}, r"task: SystemExit: 3 \(tests/foreign/rehearsed\.py:\d+\)"),
])  # fmt: skip
def test_what_fails_every_trial_is_one_line(rehearse, module, objective, given, said):
    with pytest.raises(ConfigError, match=said) as refused:
        rehearse.judged(module, objective, **given)
    assert "\n" not in str(refused.value)


def test_a_metric_that_the_code_names_may_come_later(rehearse):
    judged = rehearse.judged("EveryTwentieth", "val_map", trainer={"max_epochs": 40})
    (notice,) = judged.notices
    assert "'val_map' was not logged in the first 12 epochs" in notice
    with pytest.raises(ConfigError, match="'val_map' is not logged"):  # a trial is over by then
        rehearse.judged("EveryTwentieth", "val_map", trainer={"max_epochs": 5})


def test_a_checkpoint_that_does_not_fit_its_module_is_a_note(rehearse):
    (notice,) = rehearse.judged("LeavesOut").notices
    assert "no winner can be scored: the weights do not fit LeavesOut" in notice
    assert "net.2.bias" in notice


def test_calls_of_another_logger_do_nothing_and_are_said_once(rehearse, tmp_path):
    judged = rehearse.judged("Draws")
    (notice,) = judged.notices
    found = re.findall(r"[\w.]+", notice.partition(" asks its logger for ")[2].partition(":")[0])
    assert found == [
        "experiment.add_histogram",
        "experiment.log",
        "experiment",
        "watch",
        "experiment.train",
    ]
    assert (tmp_path / "notes.txt").read_text() == "seen"  # its folder is the rehearsal's


def test_callbacks_write_into_the_rehearsals_folder(rehearse, tmp_path):
    checkpoint = "pytorch_lightning.callbacks.ModelCheckpoint"
    node = {"_target_": checkpoint, "dirpath": "kept-by-a-callback", "monitor": "val_acc"}
    rehearse.judged("Plain", callbacks={"keep": node})
    assert not Path("kept-by-a-callback").exists()
    assert list(tmp_path.rglob("epoch*.ckpt"))


def test_what_never_ends_is_killed_and_not_judged(rehearse):
    config = rehearse.config("Waits")
    default = Variation(VariationKind.DEFAULT, "the default configuration", config)
    child = rehearse.start([default], ["val_acc"])
    assert listen_to(child, 0.2) == []
    assert child.reap() == -signal.SIGKILL
    child.close()
    judged = judge([], ["val_acc"], trainer={}, candidates=[default.said])
    (notice,) = judged.notices
    assert "it ended before the default configuration could be tried" in notice


def test_shapes_and_types_that_are_searched_are_tried(rehearse):
    widths = {"8": 8, "12": 12, "8 again": 8, "a word": "x"}
    variations = [
        Variation("default" if not place else "choice", said, rehearse.config("Plain", width=width),
                  "task.width" if place else "", trains=not place)
        for place, (said, width) in enumerate(widths.items())
    ]  # fmt: skip
    seen = {sight.said: sight for sight in rehearse.sights(variations)}
    assert {said: sight.was_trained for said, sight in seen.items()} == {
        "8": True, "12": True, "8 again": False, "a word": False,
    }  # fmt: skip
    assert seen["a word"].fault is not None
    judged = judge(list(seen.values()), ["val_acc"], trainer={})
    assert [notice.partition(" fails: ")[0] for notice in judged.notices] == ["rehearsal: a word"]


def test_others_are_tried_where_the_default_fails(rehearse):
    variations = [
        Variation("default", "Plain", rehearse.config("WrongShape")),
        Variation("choice", "other", rehearse.config("Plain"), "task._target_", trains=False),
    ]
    sights = rehearse.sights(variations)
    assert [(sight.was_trained, sight.fault is None) for sight in sights] == [
        (True, False), (True, True),
    ]  # fmt: skip
    assert judge(sights, ["val_acc"], trainer={}).notices[0].startswith("rehearsal: Plain fails: ")


def test_a_draft_is_varied_once_along_each_dimension():
    from dlsearch.config.compose import hydra_groups

    words = [
        "model=mlp,linear", "model.width=choice(1e2,2e2)", "optimizer.lr=interval(0.1,1)",
        "data.batch_size=range(16,65,16)", "space=none",
    ]  # fmt: skip

    def compose(overrides):
        return compose_config(list(overrides), with_hydra=True)

    draft: Draft = make_draft(compose, words, params=None, groups=hydra_groups())
    found = {each.said: each for each in list_variations(draft)}
    # what lies outside of the space is moved into it, and then no other value
    assert list(found) == [
        "the default configuration", "model=linear", "model.width=200",
        "optimizer.lr=1.0", "data.batch_size=16",
    ]  # fmt: skip
    # 128, the default, is no choice, and whole numbers are integers where that is one
    assert found["the default configuration"].config["model"]["width"] == 100
    assert isinstance(found["model.width=200"].config["model"]["width"], int)
    assert found["model=linear"].trains
    assert not found["optimizer.lr=1.0"].trains


def test_where_time_is_short_the_default_is_trained_and_others_are_only_built(rehearse, tmp_path):
    from dlsearch.execution.rehearsal import trying

    config = rehearse.config("Plain")
    payload = RehearsalPayload([], ["val_acc"], ["maximize"], str(tmp_path))
    now = time.monotonic()
    attempts = trying._Attempts(payload, now - 1000)
    default = Variation("default", "default", config)
    option = Variation("option", "option", config, "task")
    choice = Variation("choice", "choice", config, "task.lr", trains=False)
    assert attempts.is_over
    assert attempts.may_begin(default)
    attempts.note(trying.Sight("default", "default", was_trained=True))
    attempts.built_from = now + 1000
    assert (attempts.may_begin(option), attempts.may_begin(choice)) == (False, True)
    attempts.built_from = now - 1000
    assert (attempts.may_begin(option), attempts.may_begin(choice)) == (False, False)
