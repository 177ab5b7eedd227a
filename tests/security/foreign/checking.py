"""What must come of an input, and whether it did."""

from __future__ import annotations

import json
from dataclasses import replace

from tests.security.foreign.inputs.base import Input
from tests.security.foreign.runner import MEMORY_MB, SECONDS, Outcome, Runner


def check(given: Input, runner: Runner) -> None:
    """Make the input, run its command, and look."""
    runner.box.renew(runner.good)
    given.make(runner.box)
    words = [word.replace("BOX", str(runner.box.root)) for word in given.words]
    outcome = runner.run(
        words,
        writable=[*given.writable],
        environment=dict(given.environment),
        seconds=bound(given),
    )
    own = tuple(f"{runner.box.work}/{name}.py" for name in given.own)
    own += tuple(f"{runner.box.work}/__pycache__/{name}." for name in given.own)
    outcome = replace(
        outcome,
        acts=[act for act in outcome.acts if not act["detail"].startswith(own)]
        if own
        else outcome.acts,
    )
    wrong = faults(given, outcome)
    if given.check is not None:
        given.check(runner.box, outcome)
    assert not wrong, (
        f"{given.thing}, {' '.join(given.words)[:200]}: {'; '.join(wrong)}\n{told(outcome)}"
    )


def bound(given: Input) -> float:
    """How long an input may take: what trains, because its command is right to, has the time of a training."""
    return 3 * SECONDS if given.slow else SECONDS


def faults(given: Input, outcome: Outcome) -> list[str]:
    """What of an outcome is not as it must be."""
    found = [f"it did outside: {what}" for what in sorted(outcome.what())]
    if outcome.killed is not None:
        return [*found, f"it took too much {outcome.killed}"]
    if outcome.seconds > bound(given):
        found.append(f"it took {outcome.seconds} s")
    if outcome.memory_mb > MEMORY_MB:
        found.append(f"it took {outcome.memory_mb} MB")
    if any(not (each.isprintable() or each in "\n\t") for each in outcome.out + outcome.err):
        found.append("it wrote control characters")
    if "Traceback" in outcome.err:
        found.append("it ended with a traceback")
    if given.ends != 2:
        if outcome.code != given.ends:
            found.append(f"it ended with {outcome.code} instead of {given.ends}")
        if given.says not in outcome.out + outcome.err:
            found.append(f"it did not say {given.says!r}")
        return found
    if outcome.code != 2:
        found.append(f"it ended with {outcome.code} instead of 2")
    if (
        outcome.err.count("\n") != 1
        or not outcome.err.startswith("dlsearch: ")
        or len(outcome.err) > 1500
    ):
        found.append("it was not refused in one line")
    if given.says not in outcome.err:
        found.append(f"it did not say {given.says!r}")
    return found


def told(outcome: Outcome) -> str:
    acts = "\n".join(f"  {json.dumps(act)[:400]}" for act in outcome.acts[:8])
    return (
        f"exit {outcome.code}, {outcome.seconds} s, {outcome.memory_mb} MB, killed: {outcome.killed}\n"
        f"out: {outcome.out[-600:]!r}\nerr: {outcome.err[-1200:]!r}\n{acts}"
    )
