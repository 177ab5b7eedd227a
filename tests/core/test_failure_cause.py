"""The first cause of a failure: which exception it was, and where in the user's code."""

from __future__ import annotations

import json
import os

import pytest

from dlsearch.core.errors import ConfigError
from dlsearch.core.failure_cause import FailureCause, find_cause

#: What torch raises where a process of its DataLoader has failed: the type, and this text.
IN_LOADER = """Caught {kind} in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "{library}/torch/utils/data/_utils/worker.py", line 349, in _worker_loop
    data = fetcher.fetch(index)
  File "{user}/mine.py", line 12, in __getitem__
    raise ValueError("no such image")
  File "{library}/PIL/Image.py", line 3, in open
    raise ValueError("no such image")
{kind}: no such image
"""


def caught(function, *arguments):
    try:
        function(*arguments)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.fixture
def users(tmp_path, monkeypatch):
    """A module of a user's."""
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"users_{tmp_path.name[-12:].strip('_')}"
    (tmp_path / f"{name}.py").write_text(
        "import json\n"
        "def shape():\n"
        "    raise ValueError('bad shape')\n"
        "def load():\n"
        "    try:\n"
        "        open('/nonexistent/x.csv')\n"
        "    except OSError as error:\n"
        "        raise RuntimeError('no data') from error\n"
        "def read():\n"
        "    return json.loads('{')\n"
        "class Speechless(Exception):\n"
        "    pass\n"
        "def mute():\n"
        "    raise Speechless\n"
    )  # fmt: skip
    return __import__(name)


def test_type_message_and_the_users_own_line(users):
    cause = find_cause(caught(users.shape))
    assert cause == FailureCause("ValueError", "bad shape", f"{users.__name__}.py:3")
    assert cause.line == f"ValueError: bad shape ({users.__name__}.py:3)"
    assert FailureCause.from_json(json.loads(json.dumps(cause.to_json()))) == cause


def test_an_exception_raised_of_another_names_both(users):
    cause = find_cause(caught(users.load))
    assert cause.message.startswith("no data, from FileNotFoundError: ")
    assert cause.place == f"{users.__name__}.py:8"


def test_what_a_library_raises_is_where_the_user_called_it(users):
    assert find_cause(caught(users.read)).place == f"{users.__name__}.py:10"
    assert find_cause(caught(users.mute)).line == f"Speechless ({users.__name__}.py:14)"


def test_without_a_frame_of_the_users_it_is_the_innermost():
    error = caught(json.loads, "{")
    error.__traceback__ = error.__traceback__.tb_next  # without this file's own frame
    assert find_cause(error).place.startswith("json/decoder.py:")
    assert find_cause(ConfigError("task", "expected a net", "task=mine")).line == (
        "task: expected a net (hint: task=mine)"
    )


def test_what_a_process_of_a_loader_sent_as_text(tmp_path):
    library = os.path.dirname(os.path.dirname(pytest.__file__))  # noqa: PTH120
    text = IN_LOADER.format(kind="ValueError", library=library, user=tmp_path)
    cause = find_cause(ValueError(text))
    assert cause == FailureCause(
        "ValueError", "no such image [DataLoader worker process 0]", "mine.py:12"
    )


@pytest.mark.filterwarnings("ignore")
def test_a_hook_that_fails_while_lightning_clears_up_hides_nothing(tmp_path):
    import pytorch_lightning as pl

    from tests.training.foreign_logging import Data, Plain

    class Fails(Plain):
        def training_step(self, batch, batch_idx):
            raise ValueError("the first cause")

    class Clears(pl.Callback):
        def on_exception(self, trainer, pl_module, exception):
            raise KeyError("in a hook that clears up")

    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[Clears()], default_root_dir=tmp_path, num_sanity_val_steps=0,
    )  # fmt: skip
    error = caught(trainer.fit, Fails(), Data())
    assert isinstance(error, KeyError)
    cause = find_cause(error)
    assert (cause.type, cause.message) == ("ValueError", "the first cause")
    assert cause.place.startswith("tests/core/test_failure_cause.py:")


def test_causes_are_alike_by_type_and_place_whatever_the_message_says():
    one = FailureCause("ValueError", "64 and 32 do not fit", "my.py:12")
    assert one.is_like(FailureCause("ValueError", "64 and 16 do not fit", "my.py:12"))
    assert not one.is_like(FailureCause("ValueError", "64 and 32 do not fit", "my.py:13"))
    assert not one.is_like(FailureCause("KeyError", "64 and 32 do not fit", "my.py:12"))
    bare = FailureCause("ConfigError", "task: no")
    assert bare.is_like(FailureCause("ConfigError", "task: no"))
    assert not bare.is_like(FailureCause("ConfigError", "data: no"))


@pytest.mark.parametrize("found", [None, {}, {"type": 3}, "text", {"message": "x"}])
def test_what_is_no_cause_is_none(found):
    assert FailureCause.from_json(found) is None


def test_a_file_out_of_reach_names_the_seal() -> None:
    error = PermissionError(13, "Permission denied", "notes.txt")
    plain = find_cause(error)
    assert "sealed" not in plain.message
    held = find_cause(error, is_sealed=True)
    assert held.message.startswith(plain.message)
    assert "study.seal=audit" in held.message
    assert "seal" not in find_cause(ValueError("no"), is_sealed=True).message
