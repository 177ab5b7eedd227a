"""What rounding leaves open of scores.

Metrics are means of float32, also where they count examples, so that equal differences of counts
differ in their last bits. What is decided or computed from scores takes such a difference for none.
"""

from __future__ import annotations

from collections.abc import Iterable

#: What rounding can leave in a difference of two differences, relative to the largest score: each
#: of the four scores is off by at most half a unit in the last of the 24 places of a float32.
_RELATIVE = 2.0**-22
#: Scores between this and one may be one minus a share, and so are rounded as one is.
_LEAST_SHARE = 2.0**-10


def measure_resolution(scores: Iterable[float]) -> float:
    """The largest difference between differences of such scores that rounding can make.

    Args:
        scores: At least one.
    """
    largest = max(abs(score) for score in scores)
    is_share = _LEAST_SHARE <= largest < 1.0
    return _RELATIVE * (1.0 if is_share else largest)
