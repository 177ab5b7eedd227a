"""Which way an objective is better, by the words in its name."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dlsearch.core.errors import ConfigError

MAXIMIZE = "maximize"
MINIMIZE = "minimize"
DIRECTIONS = (MAXIMIZE, MINIMIZE)

#: Words of metrics of which less is better.
_LESS = """
loss error err mse rmse mae mape smape msle rmsle nll perplexity ppl bpc bpb wer cer ter eer
fid kid lpips brier ece crps bce deviance distance divergence regret cost latency seconds params
flops
"""
#: Words of metrics of which more is better.
_MORE = """
acc accuracy f1 f2 fbeta auc auroc auprc ap map r2 precision recall sensitivity specificity dice
iou miou jaccard bleu rouge kappa mcc ndcg mrr psnr ssim reward return elbo likelihood spearman
pearson top1 top5
"""
_LESS_IS_BETTER = frozenset(_LESS.split())
_MORE_IS_BETTER = frozenset(_MORE.split())
_NEGATES = frozenset({"neg", "negative", "minus"})
_WORD = re.compile(r"[^\W_]+")
_CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def direction_of(name: str) -> str | None:
    """``maximize`` or ``minimize``, where the words of a metric's name say so; None where not.

    Args:
        name: As it is logged: ``val/loss``, ``valid_acc``, ``Recall@5``.
    """
    words = _words_of(name)
    less = bool(words & _LESS_IS_BETTER)
    more = bool(words & _MORE_IS_BETTER)
    if less == more:
        return None
    if words & _NEGATES:
        more = not more
    return MAXIMIZE if more else MINIMIZE


def _words_of(name: str) -> set[str]:
    """The words in a name, each with and without digits or ``score`` at its end."""
    found: set[str] = set()
    for part in _WORD.findall(name):
        for word in (part, *_CAPITAL.split(part)):
            small = word.lower()
            found |= {small, small.rstrip("0123456789"), small.removesuffix("score")}
    return found


def settle_directions(given: str | Sequence[str] | None, objectives: Sequence[str]) -> list[str]:
    """The direction of each objective.

    Args:
        given: ``study.direction``; None has the names say, and where they do not, maximizes.
        objectives: Metrics.

    Raises:
        ConfigError: What is given is no direction, or not one for each.
    """
    if given is None:
        return [direction_of(name) or MAXIMIZE for name in objectives]
    is_list = isinstance(given, (list, tuple))
    directions = list(given) if is_list else [str(given)] * len(objectives)
    is_known = all(each in DIRECTIONS for each in directions)
    if not is_known or len(directions) != len(objectives):
        raise ConfigError(
            "study.direction",
            f"expected maximize or minimize for each objective, got {given!r}",
            "null: as their names say",
        )
    return directions


def list_contradictions(directions: Sequence[str], objectives: Sequence[str]) -> list[str]:
    """A line for each objective whose name says the opposite of its direction."""
    lines = []
    for name, direction in zip(objectives, directions, strict=True):
        named = direction_of(name)
        if named is not None and named != direction:
            lines.append(
                f"study.direction: the study {direction}s {name!r},"
                f" which by its name is better the {_way_of(named)}"
            )
    return lines


def _way_of(direction: str) -> str:
    return "higher" if direction == MAXIMIZE else "lower"
