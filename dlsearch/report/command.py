"""The command lines that do it again: the whole study, and its winner alone."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlsearch.report.study import View

# What steers a search and means nothing to the training of one configuration.
_OF_THE_SEARCH = ("study.", "worker.", "space", "hydra/", "hydra.")
_PLAIN = re.compile(r"[A-Za-z0-9_./:+@][A-Za-z0-9_./:+@-]*")
_CONSTANTS = {"true", "false", "null", "nan", "inf", "on", "off", "yes", "no"}


def reproduce(view: View) -> dict[str, Any]:
    """The command of the study as it was given and, where there is a winner, the one that trains it alone."""
    provenance = view.study.get("provenance") or {}
    name = shlex.quote(str(view.study["name"]))
    out: dict[str, Any] = {
        "study": view.study.get("command"),
        "again": f"dlsearch reproduce {name}",
        "winner": None,
        "verify": None,
        "predict": None,
        "commit": provenance.get("commit"),
        "dirty": bool(provenance.get("dirty")),
    }
    if view.winner is not None:
        out["verify"] = f"dlsearch verify {name}/{view.winner.number}"
    final = view.finalization
    confirmed = None if final is None else final.winner
    params, seed = (None, None) if view.winner is None else (view.winner.params, view.winner.seed)
    if final is not None and confirmed is not None:
        # The model that is kept is one of the replicas: their seeds are not the trial's.
        kept = (final.kept or {}).get("replica")
        params, seed = confirmed.params, next((r.seed for r in confirmed.replicas if r.replica == kept), None)
        out["predict"] = f"dlsearch predict {name} FILE"
    if params is not None:
        words = [w for w in map(str, view.study.get("overrides") or []) if _kept(w, set(params))]
        words += [f"{key}={hydra_value(value)}" for key, value in params.items()]
        if seed is not None:
            words = [w for w in words if not w.startswith("seed=")] + [f"seed={seed}"]
        out["winner"] = "dlsearch " + " ".join(shlex.quote(w) for w in words)
    return out


def _kept(word: str, params: set[str]) -> bool:
    key = word.split("=", 1)[0].lstrip("+~")
    return key not in params and key not in ("sampler", "pruner") and not key.startswith(_OF_THE_SEARCH)


def hydra_value(value: Any) -> str:
    """A value in the grammar of Hydra's overrides, quoted where it would read as something else."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{','.join(hydra_value(v) for v in value)}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{k}:{hydra_value(v)}' for k, v in value.items())}}}"
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in _CONSTANTS and not _is_number(text):
        return text
    # A quote is escaped with a backslash, and so are the backslashes that stand before a quote or the end.
    return "'" + re.sub(r"(\\+)(?='|$)", r"\1\1", text).replace("'", "\\'") + "'"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
