"""What other loggers have and ours has not does nothing, and is said once."""

from __future__ import annotations

import copy

from dlsearch.tracking.journal import Journal
from dlsearch.tracking.logger import JournalLogger


def test_what_is_missing_does_nothing_and_is_said_once(tmp_path, capsys):
    logger = JournalLogger(Journal(tmp_path / "journal.jsonl"))
    board = logger.experiment
    for _ in range(2):
        board.add_histogram("w", [1, 2], 3)
    board["a/b"].append(1)
    board["a/b"] = 2
    with logger.start_span("x") as span:
        span.set(1).end()
    assert not logger.watch
    assert list(board.summary) == []
    assert str(board.log_artifact("x")) == "experiment.log_artifact"
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"logger.{name} is of another logger: here it does nothing" for name in logger.missing_calls
    ]
    assert logger.missing_calls == [
        "experiment.add_histogram", "experiment[…]", "start_span", "watch", "experiment.summary",
        "experiment.log_artifact",
    ]  # fmt: skip


def test_the_journal_and_the_folder_are_there(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    logger = JournalLogger(journal)
    assert logger.experiment.path == journal.path
    assert logger.log_dir == logger.root_dir == logger.save_dir == str(tmp_path)
    assert not hasattr(logger, "_private")
    assert not hasattr(logger.experiment, "__len__")
    assert copy.copy(logger).missing_calls == []
