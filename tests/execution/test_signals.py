"""What counts as Ctrl-C, and how often."""

from __future__ import annotations

import signal

import pytest

from dlsearch.execution.processes.signals import (
    Signals,
    hears_hangups,
    ignore_further_hangups,
    interrupt_on_stop,
)


@pytest.fixture(autouse=True)
def _handlers():
    before = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_scheduler_and_a_terminal_that_closes_interrupt(number):
    interrupt_on_stop()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    signal.raise_signal(signal.SIGHUP)  # the same terminal, told by somebody else
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)


def test_what_was_ignored_at_the_start_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interrupt_on_stop()
    assert not hears_hangups()
    with Signals(pytest.fail, foreground=True):
        signal.raise_signal(signal.SIGHUP)
    ignore_further_hangups()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.parametrize("foreground", [True, False])
def test_a_hangup_stops_a_service_and_is_over_after_it(foreground):
    interrupt_on_stop()
    stops = []
    with Signals(lambda: stops.append(1), foreground=foreground):
        signal.raise_signal(signal.SIGHUP)
    assert stops == [1]
    signal.raise_signal(signal.SIGHUP)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
