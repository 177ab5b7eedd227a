"""Weights on disk: checkpoints, state dicts, and what torchvision publishes.

Nothing is unpickled.
"""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, suppress
from typing import TYPE_CHECKING, Any

import torch

from dlsearch.core.errors import ConfigError
from dlsearch.core.files.stored import check_stored
from dlsearch.training.fingerprint import state_digest
from dlsearch.training.state import weights_file
from dlsearch.training.state.loading import StateDict, load_plain

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

#: Seconds that a server may keep silent.
PATIENCE_S = 20.0


def read(path: Path, key: str = "transfer.weights") -> StateDict:
    """The state dict in a file: a Lightning checkpoint's, or the file itself.

    Args:
        path: What safetensors, ``torch.save`` or Lightning wrote.
        key: The config key that complaints name.

    Raises:
        ConfigError: There is no such file, it needs unpickling, or holds no state dict.
    """
    try:
        check_stored(path)
        saved = weights_file.read(path).state if _is_tensors(path) else load_plain(path)
    except FileNotFoundError:
        raise ConfigError(key, f"{path} does not exist") from None
    except Exception as error:  # torch has many ways to say that a file is none of its own
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise ConfigError(key, f"{path} cannot be read as weights alone: {line}") from error
    state = saved.get("state_dict", saved) if isinstance(saved, Mapping) else None
    if not isinstance(state, Mapping) or not any(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise ConfigError(
            key,
            f"{path} holds no state dict",
            "torch.save(net.state_dict(), path)",
        )
    return {str(name): value for name, value in state.items()}


def _is_tensors(path: Path) -> bool:
    """Whether a file is one of safetensors, whatever its name: a study keeps copies by digest."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def digest(state: Mapping[str, Any]) -> str:
    """SHA-256 of weights; of a trial's it is what its record calls ``state_sha256``."""
    return state_digest(state)


def of_net(state: Mapping[str, Any], prefix: str | None = None) -> dict[str, Tensor]:
    """The tensors of the net in a state dict, by their names in the net.

    Args:
        state: As :func:`read` gives it.
        prefix: Of the net's names; None takes ``net.``, where a name begins so, as tasks call their
            net.

    Raises:
        ConfigError: No name begins with `prefix`.
    """
    if prefix is None:
        prefix = "net." if any(name.startswith("net.") for name in state) else ""
    found = {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if name.startswith(prefix) and isinstance(value, torch.Tensor)
    }
    if not found:
        some = ", ".join(list(state)[:3])
        raise ConfigError(
            "transfer.prefix",
            f"no tensor of the source begins with {prefix!r}",
            f"there is {some}",
        )
    return found


def published(name: str, folder: Path) -> Path:
    """The file of weights that torchvision publishes, downloaded where it is not there.

    Args:
        name: Of the weights (``ResNet18_Weights.IMAGENET1K_V1``), or of the model (``resnet18``:
            its default ones).
        folder: Where the file lies, or is put.

    Raises:
        ConfigError: There are no such weights, or they are not here and cannot be downloaded.
    """
    from torchvision import models

    try:
        weights: Any = (
            models.get_weight(name) if "." in name else models.get_model_weights(name)["DEFAULT"]
        )
    except (ValueError, KeyError, AttributeError) as error:
        hint = "torchvision:resnet18, torchvision:ResNet18_Weights.IMAGENET1K_V1"
        raise ConfigError(
            "transfer.weights",
            f"torchvision publishes no weights {name!r}",
            hint,
        ) from error
    path = folder / str(weights.url).rsplit("/", 1)[-1]
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    if not path.is_file():
        try:
            with _impatient(), redirect_stderr(io.StringIO()):  # torch names the address there
                weights.get_state_dict(
                    model_dir=str(folder),
                    progress=False,
                    check_hash=True,
                    weights_only=True,
                )
        except (
            OSError,
            RuntimeError,
        ) as error:  # URLError is an OSError; a wrong hash a RuntimeError
            path.unlink(missing_ok=True)
            with suppress(OSError):  # whatever is not empty stays
                for each in made:
                    each.rmdir()
            why = f"{name}: {path.name} is neither in {folder} nor could it be downloaded"
            raise ConfigError(
                "transfer.weights",
                why,
                "put it there, or transfer.weights=file:PATH",
            ) from error
    return path


@contextmanager
def _impatient() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
