"""What an input of the corpus is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.security.foreign.audit import RAN
from tests.security.foreign.box import Box

if TYPE_CHECKING:
    from tests.security.foreign.runner import Outcome

#: The kinds of rules, as the tests count them.
KINDS = {
    1: "resolved once",
    2: "targets are admitted by the person",
    3: "a target is public and of a known base",
    4: "exported programs",
    5: "shipping builds nothing",
    6: "no pickle in a database",
    7: "environment and git",
    8: "paths and names out of data",
    9: "log handlers and Hydra's folders",
    10: "servers",
    11: "masking",
    12: "bombs and terminals",
}
#: What somebody else gave.
THINGS = (
    "experiment YAML",
    "config group",
    "enqueue file",
    "study store",
    "study database",
    "MLflow database",
    "journal",
    "record",
    "exported model",
    "weights",
    "checkpoint",
    "git folder",
)
#: A shell command that would leave a file outside; the current folder is the sandbox's ``work``.
SHELL = "touch ../outside/ran"
#: Calls that would leave a trace outside.
MKDIR = {"_target_": "os.mkdir", "path": "../outside/ran"}
SYMPIFY = {"_target_": "sympy.sympify", "a": RAN}


@dataclass(frozen=True)
class Input:
    """One input, and what must come of it.

    Args:
        name: What it is, in a few words; unique.
        kind: The rule that it is for, a key of `KINDS`.
        thing: What somebody else gave, one of `THINGS`.
        words: The command line.
        make: Makes it in a sandbox that holds what is good.
        harmless: Whether the command ends well, because what is bad is not touched, or is what it
            should be; else it is refused in one line, with exit code 2.
        says: A part of what the refusal, or the output, must say; masks and names, mostly.
        check: Looks at the sandbox and the outcome afterwards.
        writable: What the command may write beside the store, relative to the sandbox.
        environment: Environment variables of the person's.
        slow: Whether it takes seconds: it trains.
        code: The exit code in place of that: 1 where something is left out, and said.
        own: Modules in the working folder that the person has admitted, whose import is no act of
            the input's.
    """

    name: str
    kind: int
    thing: str
    words: tuple[str, ...]
    make: Callable[[Box], Any]
    harmless: bool = False
    says: str = ""
    check: Callable[[Box, Outcome], None] | None = None
    writable: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    slow: bool = False
    own: tuple[str, ...] = ()
    code: int | None = None

    @property
    def ends(self) -> int:
        """The exit code that the command must have."""
        return self.code if self.code is not None else 0 if self.harmless else 2

    @property
    def verb(self) -> str:
        """The verb; ``run`` and ``search`` for a plain Hydra command."""
        first = self.words[0]
        if "=" not in first and not first.startswith("-"):
            return first
        return "search" if "-m" in self.words or "--multirun" in self.words else "run"

    @property
    def id(self) -> str:
        """For pytest."""
        return (
            f"{self.kind}-{self.verb}-{self.name}".encode("ascii", "replace")
            .decode()
            .replace(" ", "_")[:90]
        )


#: What makes the good study as small as it can be.
TINY = (
    "trainer.max_epochs=1",
    "study.confirm.top=1",
    "study.confirm.seeds=1",
    "study.workers=1",
    "worker.slots=1",
    "tracking.enabled=false",
    "model.width=8",
    "model.depth=1",
    "data.batch_size=256",
)
SMALL = ("model.width=8", "model.depth=1", "trainer.max_epochs=1", "tracking.enabled=false")
CONF = ("--config-dir", "conf")
OUT = ("work/out",)


def run(*words: str) -> tuple[str, ...]:
    """A plain run with the YAMLs that came with the input."""
    return (*CONF, *words, "trainer.max_epochs=1", "tracking.enabled=false")


def search(*words: str) -> tuple[str, ...]:
    """A search with them."""
    return (*CONF, "-m", *words, "study.n_trials=1", "study.finalize=false", *run()[2:])


def plan(*words: str) -> tuple[str, ...]:
    """What a search with them would do."""
    return ("plan", *CONF, "-m", *words)


def product(*groups: Iterable[Input]) -> list[Input]:
    """All inputs of several groups."""
    return [each for group in groups for each in group]
