"""Times the same work done in two ways, in turns, and says how many times as fast the second one is."""
from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from time import perf_counter


def arguments(what: str, *, count: int) -> argparse.Namespace:
    """--rounds and --count, which every example has."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--rounds", type=int, default=7, help="how often both ways are timed (default: %(default)s)")
    parser.add_argument("--count", type=int, default=count, help="operations in a round (default: %(default)s)")
    options = parser.parse_args()
    if options.rounds < 1 or options.count < 1:
        parser.error("--rounds and --count must be at least 1")
    return options


def heading(unit: str) -> None:
    print(f"{f'us of {unit}':42} {'without':>9} {'with':>9}   times as fast: median (least to most)", flush=True)


def compare(name: str, without: Callable[[], object], pooled: Callable[[], object], *, rounds: int,
            operations: int) -> None:
    """Prints one line. Each call does `operations` of them; one of each comes first and is not timed."""
    ways = [without, pooled]
    for way in ways:
        way()
    seconds: dict[Callable[[], object], list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in ways if number % 2 == 0 else reversed(ways):
            began = perf_counter()
            way()
            seconds[way].append(perf_counter() - began)
    ratios = [slow / fast for slow, fast in zip(seconds[without], seconds[pooled], strict=True)]
    before, after = (min(seconds[way]) / operations * 1e6 for way in ways)
    said = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    if sum(ratio < 1 for ratio in ratios) >= 0.75 * rounds:
        said += ": pooling does not pay here"
    elif sum(ratio > 1.05 for ratio in ratios) < 0.75 * rounds:
        said += ": no clear gain"
    print(f"{name:42} {before:9.2f} {after:9.2f}   {said}", flush=True)
