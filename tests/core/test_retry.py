from __future__ import annotations

import time

import pytest

from dlsearch.core.retry import Backoff, retry, wait_until

NO_PAUSE = Backoff(0.0, 0.0)


def failing(times: int, error: type[Exception] = BlockingIOError):
    """An action that fails so many times, and a list that grows with each call."""
    calls: list[int] = []

    def action() -> str:
        calls.append(len(calls))
        if len(calls) <= times:
            raise error
        return "done"

    return action, calls


def test_pauses_double_up_to_the_cap() -> None:
    backoff = Backoff(0.5, 10.0)
    assert [backoff.pause_after(n) for n in (0, 1, 2, 3, 5, 6, 10_000)] == [0, 0.5, 1, 2, 8, 10, 10]


def test_jitter_only_shortens_a_pause() -> None:
    pauses = {Backoff(1.0, 8.0, jitter=0.5).pause_after(3) for _ in range(50)}
    assert len(pauses) > 1
    assert all(2.0 <= pause <= 4.0 for pause in pauses)


def test_what_fails_is_called_again_so_many_times() -> None:
    action, calls = failing(2)
    assert retry(action, on=BlockingIOError, tries=3, backoff=NO_PAUSE) == "done"
    assert len(calls) == 3


def test_the_last_error_is_raised() -> None:
    action, calls = failing(5)
    with pytest.raises(BlockingIOError):
        retry(action, on=BlockingIOError, tries=3, backoff=NO_PAUSE)
    assert len(calls) == 3


def test_an_error_of_another_kind_is_raised_at_once() -> None:
    action, calls = failing(5, KeyError)
    with pytest.raises(KeyError):
        retry(action, on=(BlockingIOError, ConnectionError), tries=3, backoff=NO_PAUSE)
    assert len(calls) == 1


def test_between_two_calls_there_is_a_pause() -> None:
    action, _ = failing(1)
    started = time.monotonic()
    retry(action, on=BlockingIOError, tries=2, backoff=Backoff(0.05, 0.05))
    assert time.monotonic() - started >= 0.05


def test_a_wait_ends_when_it_is_so_or_when_time_is_up() -> None:
    answers = iter([False, False, True])
    assert wait_until(lambda: next(answers), timeout_s=10, poll_s=0.0)
    assert wait_until(lambda: True, timeout_s=0, poll_s=60)
    assert not wait_until(lambda: False, timeout_s=0.02, poll_s=0.001)
