"""What of a checkpoint goes into the file of weights beside it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.model_helpers import is_overridden

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlsearch.core.types import JsonObject


def kept_state(module: pl.LightningModule, saved: Mapping[str, Any]) -> Mapping[str, Any]:
    """The whole state of a module, as a checkpoint has it.

    A checkpoint may have fewer weights, or others by name, where its module completes it when it is
    loaded: a frozen part that is left out, say. Then the names are the module's own, and so are the
    values that the checkpoint does not have.

    Args:
        module: As it was when the checkpoint was written.
        saved: The checkpoint's ``state_dict``, after all hooks.
    """
    if not _completes_checkpoints(module):
        return saved
    own = module.state_dict()
    if own.keys() == saved.keys():
        return saved
    return {name: saved.get(name, value) for name, value in own.items()}


def _completes_checkpoints(module: pl.LightningModule) -> bool:
    is_hooked = is_overridden("on_load_checkpoint", module, pl.LightningModule)
    return is_hooked or not module.strict_loading


def plain_json(found: JsonObject | None) -> JsonObject | None:
    """What a data module says of inputs, where JSON can say it."""
    try:
        plain: JsonObject | None = json.loads(json.dumps(found, default=_to_plain))
    except (TypeError, ValueError):
        return None
    return plain


def _to_plain(value: Any) -> Any:
    """A tensor, an array or a number of a library as lists and numbers."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no plain data")
