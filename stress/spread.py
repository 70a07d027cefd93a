"""How far the rounds of a timing lie apart."""
from __future__ import annotations

import statistics
from collections.abc import Sequence


def quartiles(figures: Sequence[float]) -> tuple[float, float, float]:
    """The lower one, the median and the upper one."""
    if len(figures) == 1:
        return figures[0], figures[0], figures[0]
    low, middle, high = statistics.quantiles(figures, n=4, method="inclusive")
    return low, middle, high
