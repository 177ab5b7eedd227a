"""A new architecture is two new files: those of CONTRIBUTING.md, word for word, in a copy of the tree."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.running import FAST, ROOT

#: what keeps a study of digits to seconds
SMALL = [
    "data.train_size=64", "data.val_size=64", "trainer.max_epochs=1", "trainer.accelerator=cpu", "data.batch_size=32",
    "space.data.batch_size=null", "space.model.dropout=null", "tracking.enabled=false",
    "tracking.system_metrics_s=null", "study.n_trials=2", "study.confirm.top=1", "study.confirm.seeds=2",
    "sampler=random", "hydra.launcher.workers=2",
]  # fmt: skip

#: all in one process, so that torch is imported twice and not five times
RUN = """
import json, sys
from dlsearch.cli.main import main
for words in json.loads(sys.argv[1]):
    print("$", *words, flush=True)
    try:
        main(words)
    except SystemExit as end:
        if end.code:
            raise
import pytest
options = ["-q", "-n", "0", "--assert=plain", "-p", "no:cacheprovider", "--basetemp", sys.argv[2]]
sys.exit(pytest.main(["tests/systems/test_models.py", "tests/systems/test_families.py", "-k", "allconv", *options]))
"""


def files(folder: Path) -> dict[str, str]:
    """What is there, by digest; compiled modules apart."""
    found = [p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


@pytest.mark.storm
@pytest.mark.slow
def test_an_architecture_is_two_files(tmp_path: Path) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    blocks = dict(re.findall(r"```(python|yaml|console)\n(.*?)```", text, re.DOTALL))
    named = re.findall(r"`((?:dlsearch|conf)/[\w/]+/allconv\.\w+)`", text)
    assert named == ["dlsearch/systems/vision/models/allconv.py", "conf/model/allconv.yaml"]

    tree = tmp_path / "tree"
    for folder in ("dlsearch", "conf", "tests/systems"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "tests/conftest.py", "tests/closing.py", "tests/kinds.py"):
        shutil.copy(ROOT / file, tree / file)
    before = files(tree)
    for name, block in zip(named, ("python", "yaml"), strict=True):
        (tree / name).write_text(blocks[block])

    lines = [shlex.split(line) for line in blocks["console"].splitlines()]
    assert all(line[:2] == ["$", "dlsearch"] for line in lines)
    describe, train, search = (line[2:] for line in lines)
    plain = [w for w in SMALL if not w.startswith(("space.", "study.", "sampler", "hydra."))]
    commands = [describe, [*train, *plain], [*search, *SMALL]]
    store = tmp_path / "store"
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "DLSEARCH_"))
    }
    environment |= {
        **FAST,
        "PYTHONPATH": f"{tree}:{tree / 'dlsearch/_hydra'}",
        "DLSEARCH_STORE": str(store),
    }
    process = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(commands), str(tmp_path / "tests")], cwd=tree, env=environment,
        capture_output=True, text=True, timeout=170,
    )  # fmt: skip
    said = process.stdout + process.stderr
    assert process.returncode == 0, said

    table, trained, searched = said.split("\n$ ")[0], *said.split("\n$ ")[1:]
    assert "96×32×32" in table
    assert (
        f"{3 * 9 * 96 + 96 + 96 * 9 * 96 + 96 + 96 * 9 * 192 + 192 + 192 * 10 + 10:,} parameters"
        in table
    )
    assert "val/accuracy" in trained
    assert "2 trials" in searched or "2/2" in searched
    assert (store / "studies/allconv_digits/report/index.html").is_file()
    assert re.search(r"\d+ passed", said)
    assert "failed" not in said.rsplit("passed", 1)[-1]

    after = files(tree)
    assert set(after) - set(before) == set(named)
    assert {name: digest for name, digest in after.items() if name not in named} == before
