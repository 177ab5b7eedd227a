"""The commands that docs, README and messages print, and how each is tried."""

from __future__ import annotations

import ast
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from dlsearch.cli.commands import VERBS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "experiments/README.md")),
    ROOT / "mlruns/README.md",
]
#: What a reader writes instead of these.
DOTS = ("...", "…")
PLACEHOLDER = "NAME"
#: What a command needs that no test has, by a word of it.
NEEDS = {
    "ui": "a browser, and ports of its own",
    "hydra/launcher=slurm": "Slurm",
    "hydra/launcher=ray": "a Ray cluster",
    "transfer.weights=torchvision:resnet18": "torchvision's weights",
    "transfer.weights=study:pretrained": "a study of CIFAR-10",
    "transfer.weights=study:pretrained/42": "a study of CIFAR-10",
    "transfer.weights=file:net.pt": "a file of weights",
    "patients.csv": "a study of a table",
    "onnx": "the packages of dlsearch[onnx]",
    "lr-range": "MNIST or CIFAR-10",
    "model=allconv": "the files of CONTRIBUTING.md: tests/e2e/test_two_files.py",
    "mlruns/runs/lenet_mnist-…": "MNIST",
    "tracking.uri=sqlite:///…": "an address",
    "study.storage=…": "an address",
    "study.storage=$DLSEARCH_STORAGE": "PostgreSQL",
    "study.storage=${oc.env:DLSEARCH_STORAGE}": "PostgreSQL",
    "worker": "a study that waits for workers",
    "--config-dir": "the files of docs/own-model.md: tests/e2e/test_own_model.py",
    "--top-k": "checkpoints that it may remove",
}
#: The same of verbs alone: a search is composed without its data.
NEEDS_OF_VERBS = {"data=mnist": "MNIST", "data=fashion_mnist": "Fashion-MNIST"}
#: Verbs that are typed without an argument; of others a page then only names the verb.
WHOLE = ("doctor", "studies", "sync", "plan", "ui", "worker")
#: The report's own commands; tests/e2e/test_printed_command.py runs them whole.
OF_REPORTS = "dlsearch/report/facts/command.py"


@dataclass(frozen=True)
class Printed:
    """A command as it is printed.

    Args:
        where: The file.
        words: After ``dlsearch``.
    """

    where: str
    words: tuple[str, ...]

    @property
    def needs(self) -> str | None:
        """What it needs that no test has; None where it can be tried."""
        needs = NEEDS if self.verb is None else NEEDS | NEEDS_OF_VERBS
        for word in self.words:
            for part in (word, *word.split(",")):
                if part in needs:
                    return needs[part]
        return None

    @property
    def verb(self) -> str | None:
        """The verb; None of a search or a single run."""
        return self.words[0] if self.words[0] in VERBS else None


def collect() -> list[Printed]:
    """All commands with an argument at least, each once, by page and then by module."""
    found: dict[Printed, None] = {}
    for path in PAGES:
        for line in _commands_of_page(path.read_text("utf-8")):
            _add(found, path, line)
    for path in sorted((ROOT / "dlsearch").rglob("*.py")):
        if path == ROOT / OF_REPORTS:
            continue
        for line in _commands_of_module(path.read_text("utf-8")):
            _add(found, path, line)
    return list(found)


def _add(found: dict[Printed, None], path: Path, line: str) -> None:
    try:
        words = tuple(shlex.split(line, comments=True)[1:])
    except ValueError:  # prose with an apostrophe
        return
    is_whole = len(words) > 1 or words[0] in WHOLE or "=" in words[0]
    if is_whole and words[0] != "--help":
        found.setdefault(Printed(path.relative_to(ROOT).as_posix(), words))


def _commands_of_page(text: str) -> list[str]:
    joined = re.sub(r" *\\\n *", " ", text)
    lines = re.findall(r"^(?:    |\$ |> )?(dlsearch .+)$", joined, re.MULTILINE)
    commands = [line for line in lines if _is_command(line)]
    commands += re.findall(r"`(dlsearch [^`]+)`", " ".join(joined.split()))
    return [command for command in commands if "|" not in command]


def _commands_of_module(text: str) -> list[str]:
    """Commands in the hints and messages of a module: a verb, and words that are typed after it."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.JoinedStr):
            parts = [
                str(part.value) if isinstance(part, ast.Constant) else PLACEHOLDER
                for part in node.values
            ]
            said = "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            said = node.value
        else:
            continue
        commands = re.findall(r"dlsearch [a-z-]+ NAME(?:/[A-Z0-9]+)?(?: FILE)?", said)
        found += filter(_is_command, commands)
    return found


def _is_command(line: str) -> bool:
    second = line.split()[1]
    return second in VERBS or second == "-m" or "=" in second or second.startswith("--")
