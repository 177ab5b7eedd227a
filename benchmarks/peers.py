"""Environments of tools that cannot share dlsearch's: made by uv, with the same torch, Lightning and MLflow.

    python benchmarks/peers.py DIR

makes them all. What is pinned here is printed with the tables.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

#: what all of them share with the environment that runs this, in its versions
SHARED = ("torch", "torchvision", "pytorch-lightning", "mlflow", "numpy", "sqlalchemy")
#: what each is made for
PINS: dict[str, tuple[str, ...]] = {
    "ray": ("ray[tune]==2.60.0",),
    # the sweeper needs Optuna 2, dlsearch Optuna 5
    "hydra": (
        "hydra-core==1.3.8",
        "hydra-optuna-sweeper==1.3.0",
        "hydra-joblib-launcher==1.2.0",
        "optuna==2.10.1",
    ),
}
IMPORTS = {
    "ray": "import mlflow, pytorch_lightning, ray.tune, torchvision",
    "hydra": "import hydra_plugins.hydra_optuna_sweeper._impl, joblib, mlflow, optuna, pytorch_lightning, torchvision",
}


class Unavailable(Exception):
    """An environment cannot be made; its one line says why."""


def pins(peer: str) -> list[str]:
    """Requirements of a peer's environment."""
    return [*PINS[peer], *(f"{name}=={importlib.metadata.version(name)}" for name in SHARED)]


def shown(peer: str) -> str:
    """Its versions, for a caption."""
    return ", ".join(pin.replace("==", " ") for pin in PINS[peer])


def make(peer: str, folder: Path) -> Path:
    """The Python of a peer's environment in `folder`, made where it is missing or differs from the pins.

    Raises:
        Unavailable: uv is not here, or cannot install it.
    """
    place = (folder / peer).resolve()
    python, note, wanted = place / "bin" / "python", place / "pins.txt", "\n".join(pins(peer))
    if python.exists() and note.is_file() and note.read_text() == wanted:
        return python
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is None:
        raise Unavailable("no uv here: make env installs it")
    print(f"making the environment {peer} in {place}", file=sys.stderr, flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    environment = {
        k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")
    }
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(place)],
        [uv, "pip", "install", "--quiet", "--python", str(python), *wanted.splitlines()],
        # that it works, and its byte code is written
        [str(python), "-W", "ignore", "-c", IMPORTS[peer]],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            said = [line.strip() for line in done.stderr.splitlines() if line.strip()] or [
                f"exit {done.returncode}"
            ]
            raise Unavailable(f"{' '.join(command[:3])} …: {said[-1]}")
    note.write_text(wanted)
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    for peer in PINS:
        print(f"{peer}: {make(peer, given.folder)}")


if __name__ == "__main__":
    main()
