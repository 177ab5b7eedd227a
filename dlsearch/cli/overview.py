"""``--help``: the page of ``conf/hydra/help/dlsearch.yaml``, which Hydra also shows, only slower.

Hydra composes the whole config and copies its search path some hundred times to list the groups;
listing our own folder says the same. With any other word on the line (``--config-dir``) Hydra's way
is taken.
"""

from __future__ import annotations

import yaml

from dlsearch.config.compose import config_dir


def page() -> str:
    """The text of ``dlsearch --help``."""
    source = config_dir() / "hydra" / "help" / "dlsearch.yaml"
    page = yaml.safe_load(source.read_text())
    lines = []
    for folder in sorted(config_dir().iterdir()):
        if folder.is_dir() and folder.name != "hydra":
            options = sorted(path.stem for path in folder.glob("*.yaml"))
            lines.append(f"{folder.name}: {', '.join(options)}\n")
    text: str = page["template"].replace("$APP_CONFIG_GROUPS", "".join(lines))
    for part in ("header", "footer"):
        text = text.replace(f"${{hydra.help.{part}}}", page[part])
    return text
