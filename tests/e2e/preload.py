"""What a command's first composition, page and figure leave behind in a process, for those that are forked from it."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

from dlsearch.config.compose import compose_config
from dlsearch.report.render import environment

compose_config(["experiment=quickstart"])  # Hydra's grammar is made at its first use
for markdown, name in ((False, "report.html.j2"), (True, "report.md.j2")):
    environment(markdown=markdown).get_template(name)
figure = Figure()
figure.subplots().set_title("fonts are found")
figure.savefig(io.StringIO(), format="svg")
