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
    page = yaml.safe_load((config_dir() / "hydra" / "help" / "dlsearch.yaml").read_text())
    folders = sorted(
        path for path in config_dir().iterdir() if path.is_dir() and path.name != "hydra"
    )
    options = {
        folder.name: sorted(path.stem for path in folder.glob("*.yaml")) for folder in folders
    }
    groups = "\n".join(f"{name}: {', '.join(found)}" for name, found in options.items())
    text: str = page["template"].replace("$APP_CONFIG_GROUPS", f"{groups}\n")
    for part in ("header", "footer"):
        text = text.replace(f"${{hydra.help.{part}}}", page[part])
    return text
