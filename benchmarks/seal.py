"""What the kernel's seal on the test set costs: a trial's process, and a training step, with and without it.

    python benchmarks/seal.py [--forks 40] [--steps 300] [--json FILE]

Two fork servers stand side by side, one whose children have given up the test set of scikit-learn's
digits and one whose children have not. They fork in turn, and each child says how long it took from
the request to its first line. Then each kind of process trains the same linear net, in turn, and
the time of a step is compared; so is the time to open and read a file that stays in reach.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from dlsearch.config.compose import compose_config
from dlsearch.core.machine import landlock
from dlsearch.execution.processes.forkserver import Child, ForkServer, SealedServer

MODULES = [
    "dlsearch.training.fit",
    "dlsearch.execution.trial_main",
    "dlsearch.systems.vision.data.image",
]
TARGET = "benchmarks.seal:child"
#: Forks and repetitions that are not counted.
WARM_UP = 5


def child(channel: Any, payload: dict[str, Any]) -> None:
    """In a child: say that it runs, then measure what is asked for.

    Args:
        channel: To the script.
        payload: ``steps`` of training, and a ``file`` that is read as often.
    """
    channel.send({"began": time.monotonic()})
    if payload["steps"]:
        channel.send({"step": _time_steps(payload["steps"]), "read": _time_reads(payload)})


def _time_steps(count: int) -> float:
    """Seconds that a step takes: the median."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    inputs = torch.rand(64, 64)
    labels = torch.randint(10, (64,))
    took: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        optimizer.zero_grad()
        functional.cross_entropy(net(inputs), labels).backward()
        optimizer.step()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def _time_reads(payload: dict[str, Any]) -> float:
    """Seconds that opening and reading a small file takes: the median."""
    took: list[float] = []
    for _ in range(payload["steps"]):
        began = time.perf_counter()
        Path(payload["file"]).read_bytes()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def fork(server: ForkServer, file: Path, steps: int = 0) -> tuple[float, dict[str, float]]:
    """Seconds from the request to the first line of a child, and what that measured."""
    began = time.monotonic()
    forked: Child = server.spawn(
        TARGET,
        {"steps": steps, "file": str(file)},
        env={},
        log=None,
    )
    first = forked.channel.receive()
    assert first is not None, "the child died"
    measured = forked.channel.receive() if steps else {}
    forked.reap()
    forked.close()
    return first["began"] - began, measured or {}


def start_sealed(server: ForkServer, folder: Path) -> tuple[SealedServer, float]:
    """A server whose children have given up the test set of the digits, and the seconds it took."""
    words = ["data=digits", f"paths.store={folder / 'store'}"]
    from omegaconf import OmegaConf

    config = OmegaConf.to_container(compose_config(words), resolve=False)
    assert isinstance(config, dict)
    began = time.monotonic()
    sealed = SealedServer.start_from(server, config, [])
    while sealed.importing:
        time.sleep(0.001)
    if sealed.has_failed:
        raise SystemExit("the sealed server could not be started")
    return sealed, time.monotonic() - began


def measure(forks: int, steps: int, rounds: int = 6) -> dict[str, Any]:
    """All figures, in milliseconds."""
    path = os.pathsep.join(
        [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    )
    server = ForkServer.start(MODULES, env={"PYTHONPATH": path})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "small"
        file.write_bytes(bytes(4096))
        while server.importing:
            time.sleep(0.05)
        prepared, _ = start_sealed(server, folder)
        prepared.stop()
        sealed, start_s = start_sealed(server, folder)
        servers = {"without": server, "with": sealed}
        began: dict[str, list[float]] = {kind: [] for kind in servers}
        for number in range(WARM_UP + forks):
            for kind, each in servers.items():
                took, _ = fork(each, file)
                if number >= WARM_UP:
                    began[kind].append(took)
        trained: dict[str, list[dict[str, float]]] = {kind: [] for kind in servers}
        for _ in range(rounds):
            for kind, each in servers.items():
                _, measured = fork(each, file, steps)
                trained[kind].append(measured)
        sealed.stop()
        server.stop()
    found: dict[str, Any] = {"start_of_the_sealed_server_ms": 1e3 * start_s}
    for kind in servers:
        found[kind] = {
            "process_ms": 1e3 * statistics.median(began[kind]),
            "step_ms": 1e3 * statistics.median(each["step"] for each in trained[kind]),
            "read_ms": 1e3 * statistics.median(each["read"] for each in trained[kind]),
        }
    found["of_a_trial_ms"] = found["with"]["process_ms"] - found["without"]["process_ms"]
    found["step_ratio"] = found["with"]["step_ms"] / found["without"]["step_ms"]
    return found


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--forks", type=int, default=40, help="processes of each kind")
    parser.add_argument("--steps", type=int, default=300, help="training steps of each process")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    if not landlock.abi():
        raise SystemExit(f"nothing to measure: {landlock.why_not()}")
    found = measure(options.forks, options.steps)
    found["machine"] = {
        "kernel": platform.release(),
        "landlock": landlock.abi(),
        "cores": os.cpu_count(),
        "forks": options.forks,
        "steps": options.steps,
    }
    print(f"{'':24}{'without':>10}{'with':>10}")
    for key, words in (
        ("process_ms", "a trial's process, ms"),
        ("step_ms", "a step, ms"),
        ("read_ms", "a file, ms"),
    ):
        print(f"{words:24}{found['without'][key]:10.3f}{found['with'][key]:10.3f}")
    print(
        f"the seal of a trial: {found['of_a_trial_ms']:.2f} ms; of a step: factor {found['step_ratio']:.3f}"
    )
    print(f"once a worker: {found['start_of_the_sealed_server_ms']:.0f} ms")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
