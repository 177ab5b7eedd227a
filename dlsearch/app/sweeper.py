"""``hydra/sweeper=dlsearch``: where Hydra enters a search. Imports only Hydra."""

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


ConfigStore.instance().store(
    group="hydra/sweeper",
    name="dlsearch",
    node=DlsearchSweeperConf,
    provider="dlsearch",
)


class DlsearchSweeper(Sweeper):
    """Opens or resumes a study, and has the launcher start the workers that serve it.

    Args:
        params: Search space by config key, in the sweep grammar.
    """

    def __init__(self, params: Any = None) -> None:
        """Called by Hydra for every ``-m``."""
        plain: Any = OmegaConf.to_container(params) if OmegaConf.is_config(params) else params
        self.params: Mapping[str, Any] = plain or {}

    def setup(
        self,
        *,
        hydra_context: HydraContext,
        task_function: TaskFunction,
        config: DictConfig,
    ) -> None:
        """Instantiate the launcher, and find the session of the command."""
        from dlsearch.app.session import Session, SessionTask

        self.session = (
            task_function.session if isinstance(task_function, SessionTask) else Session()
        )
        self.loader = hydra_context.config_loader
        self.master = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Search; the outcome is in the session as well, as Hydra keeps no result of a sweep."""
        from dlsearch.app.search import search
        from dlsearch.config.compose import groups_of

        assert self.launcher is not None

        def compose(overrides: Any) -> DictConfig:
            return self.loader.load_sweep_config(self.master, list(overrides))

        groups = groups_of(self.loader)
        return search(
            compose,
            self.launcher,
            arguments,
            params=self.params,
            groups=groups,
            session=self.session,
        )
