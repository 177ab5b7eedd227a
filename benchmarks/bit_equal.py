"""Whether recorded CPU trials come out the same again, bit for bit: pruned ones and resumed ones too.

A study of LeNet-5 on MNIST (``experiment=lenet_mnist``) runs on two slots and is killed outright
several times on its way, so that trials resume from their checkpoints. Then ``dlsearch verify``
trains a sample of them again. Prints one Markdown table.

    python benchmarks/bit_equal.py                # the experiment as it is, 20 trials sampled
    python benchmarks/bit_equal.py --small        # 4,000 images and 4 epochs a trial: minutes
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine

ENTRY = [sys.executable, "-c", "from dlsearch.cli.main import main; main()"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=os.environ.get("DLSEARCH_DATA"), help="where MNIST lies")
    parser.add_argument("--small", action="store_true", help="for trying the script out")
    parser.add_argument("--trials", type=int, default=30, help="of the study")
    parser.add_argument("--sample", type=int, default=20, help="trials that are trained again")
    parser.add_argument("--kills", type=int, default=4, help="how often the search is killed")
    parser.add_argument("--out", type=Path, help="append the table to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dlsearch-bench-") as folder:
        env = {**os.environ, "DLSEARCH_STORE": folder, "DLSEARCH_DATA": str(options.data or "")}
        command = ["-m", "experiment=lenet_mnist", f"study.n_trials={options.trials}", "study.finalize=false",
                   "tracking.enabled=false", "trainer.accelerator=cpu", "hydra.launcher.workers=2"]  # fmt: skip
        if options.small:
            command += ["data.train_size=4000", "data.val_size=2000", "trainer.max_epochs=4"]
        killed = search(command, env, Path(folder), options.kills)
        started = time.monotonic()
        words = ["verify", "lenet_mnist", "--sample", str(options.sample), "--json"]
        done = subprocess.run([*ENTRY, *words], env=env, capture_output=True, text=True)
        seconds = time.monotonic() - started
    if done.returncode not in (0, 1):
        sys.exit(done.stdout + done.stderr)
    checked = json.loads(done.stdout)["checked"]
    rows = [("trials", "trained again", "bit-equal", "share")]
    kinds = {
        "complete": lambda v: v["state"] == "complete",
        "pruned": lambda v: v["state"] == "pruned",
        "failed (not finite)": lambda v: v["state"] == "failed",
        "of all these, resumed after a kill": lambda v: v["resumed"],
        "**all**": lambda _: True,
    }
    for name, belongs in kinds.items():
        of_kind = [v for v in checked if belongs(v)]
        equal = sum(v["verdict"] == "equal" for v in of_kind)
        share = f"{100 * equal / len(of_kind):.0f} %" if of_kind else "–"
        rows.append((name, str(len(of_kind)), str(equal), share))
    table = machine.table(rows[0], rows[1:])
    n = f"{options.trials} trials, the search killed {killed} times; verify took {seconds:.0f} s"
    note = machine.caption(n, ["dlsearch", "torch", "pytorch-lightning", "optuna"])
    machine.publish(f"{table}\n\n{note}", options.out)
    for v in checked:
        if v["verdict"] != "equal":
            print(json.dumps(v, indent=1))


def search(command: list[str], env: dict[str, str], store: Path, kills: int) -> int:
    """Run the study to its end, killing it outright while trials have epochs behind them; how often that was."""
    done = 0
    while True:
        process = subprocess.Popen(
            [*ENTRY, *command], env=env, stdout=subprocess.DEVNULL, start_new_session=True
        )
        if done == kills:
            if process.wait():
                sys.exit(f"the search ended with {process.returncode}")
            return done
        before = set(checkpoints(store))
        while process.poll() is None and len(set(checkpoints(store)) - before) < 5:
            time.sleep(0.05)
        if process.poll() is not None:
            return done
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        done += 1
        time.sleep(1.0)  # its children notice


def checkpoints(store: Path) -> list[Path]:
    return list(store.glob("studies/*/t*/ckpt/last.ckpt"))


if __name__ == "__main__":
    main()
