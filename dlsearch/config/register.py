"""What Hydra and OmegaConf must know before they compose: the frame, and our resolvers."""

from __future__ import annotations

from hydra.core.config_store import ConfigStore

from dlsearch.config.schema import Frame


def register() -> None:
    """Register the typed frame. Calling it again changes nothing."""
    ConfigStore.instance().store(
        name="frame",
        node=Frame,
        provider="dlsearch",
    )
