"""Where Hydra finds our sweeper and launcher.

It takes plugins from the namespace ``hydra_plugins`` alone.

Hydra imports this module at every start, so it may import nothing heavy; and it instantiates only
classes that were defined here, so each is a subclass that adds nothing.
"""

from dlsearch.app import sweeper
from dlsearch.launch import local, ray


class DlsearchSweeper(sweeper.DlsearchSweeper):
    """``hydra/sweeper=dlsearch``."""


class LocalLauncher(local.LocalLauncher):
    """``hydra/launcher=local``."""


class RayLauncher(ray.RayLauncher):
    """``hydra/launcher=ray``."""
