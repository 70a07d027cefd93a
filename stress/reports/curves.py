"""A curve of many samples in few points, for pictures. What stands out stays: peaks are what a bound is about."""
from __future__ import annotations

from collections.abc import Sequence

from stress.reports.document import Point


def thinned(curve: Sequence[Point], most: int) -> list[Point]:
    """At most `most` points (from 4): the first, the last, and the lowest and the highest of each stretch between."""
    if len(curve) <= most:
        return list(curve)
    stretches, inner = (most - 2) // 2, len(curve) - 2
    kept = [0]
    for at in range(stretches):
        stretch = range(1 + at * inner // stretches, 1 + (at + 1) * inner // stretches)
        if stretch:
            by_height = sorted(stretch, key=lambda i: curve[i]["cached"])
            kept += sorted({by_height[0], by_height[-1]})
    return [curve[at] for at in [*kept, len(curve) - 1]]
