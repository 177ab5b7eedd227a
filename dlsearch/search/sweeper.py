"""``hydra/sweeper=dlsearch``: Hydra's door to a search. Imports nothing but Hydra."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hydra.types import HydraContext, TaskFunction


@dataclass
class DlsearchSweeperConf:
    """The sweeper's config: ``params`` as the official Optuna sweeper has them."""

    _target_: str = "hydra_plugins.dlsearch_plugins.DlsearchSweeper"
    params: Any = field(default_factory=dict)


ConfigStore.instance().store(group="hydra/sweeper", name="dlsearch", node=DlsearchSweeperConf, provider="dlsearch")


class DlsearchSweeper(Sweeper):
    """Opens or resumes a study, and has the launcher start the workers that serve it.

    Args:
        params: Search space by config key, in the sweep grammar.
    """

    def __init__(self, params: Any = None) -> None:
        """Called by Hydra for every ``-m``."""
        self.params: Mapping[str, Any] = OmegaConf.to_container(params) if OmegaConf.is_config(params) else params or {}  # type: ignore[assignment]

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Instantiate the launcher."""
        self.loader, self.master = hydra_context.config_loader, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Search. What came of it is in :func:`dlsearch.search.driver.outcome`."""
        from dlsearch.search.driver import search

        def compose(overrides: Any) -> DictConfig:
            return self.loader.load_sweep_config(self.master, list(overrides))

        groups = set(self.loader.list_groups(""))
        return search(compose, self.launcher, arguments, params=self.params, groups=groups)
