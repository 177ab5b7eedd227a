"""What a command's first composition, page, figure and database leave behind in a process, for those forked from it."""

from __future__ import annotations

import importlib
import io

from matplotlib.figure import Figure

from dlsearch.config.compose import compose_config
from dlsearch.core import provenance
from dlsearch.report.render import environment

#: What studies import when they come to it.
LATE = [
    "alembic.command", "cmaes", "optuna.storages", "pygments.formatters.html", "pygments.lexers.python",
    "sqlalchemy.dialects.postgresql", "sqlalchemy.dialects.sqlite", "dlsearch.app.monitor",
    "dlsearch.cli.commands.studies", "dlsearch.planning.open_study", "dlsearch.records.record",
    "dlsearch.report.checks", "dlsearch.report.facts.facts", "dlsearch.report.figures.selection",
    "dlsearch.sampling.fast_tpe.sampler", "dlsearch.tracking.destination",
]  # fmt: skip
for module in LATE:
    importlib.import_module(module)
compose_config(["experiment=quickstart"])  # Hydra's grammar is made at its first use
provenance._all_packages()
for markdown, name in ((False, "report.html.j2"), (True, "report.md.j2")):
    environment(markdown=markdown).get_template(name)
figure = Figure()
figure.subplots().set_title("fonts are found")
figure.savefig(io.StringIO(), format="svg")
