"""The geometry of a curve drawn by hand: what is cached over time, and the bound. The template makes SVG of it."""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stress.reports.curves import thinned
from stress.reports.document import Run

WIDTH, HEIGHT = 440, 200
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 16, 26  # around the plot: room for the figures
POINTS = 400


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Chart:
    """Coordinates in the drawing's own units, y downwards."""

    line: str  # of a path, so is area
    area: str
    bound: float | None  # its y
    over: bool  # the curve passes the bound somewhere
    across: list[Tick]
    up: list[Tick]


def chart(run: Run) -> Chart | None:
    """None: nothing was sampled."""
    curve = thinned(run["curve"], POINTS)
    if not curve:
        return None
    bound = run["bound"]
    peak = max(point["cached"] for point in curve)
    top = max(peak, bound or 0, 1) * 1.08
    begin, end = curve[0]["seconds"], max(curve[-1]["seconds"], curve[0]["seconds"] + 1e-6)

    def x(seconds: float) -> float:
        return round(LEFT + (seconds - begin) / (end - begin) * (WIDTH - LEFT - RIGHT), 1)

    def y(items: float) -> float:
        return round(HEIGHT - BOTTOM - items / top * (HEIGHT - TOP - BOTTOM), 1)

    points = [f"{x(point['seconds'])},{y(point['cached'])}" for point in curve]
    line = "M" + " L".join(points)
    return Chart(
        line=line, area=f"{line} L{x(end)},{y(0)} L{x(begin)},{y(0)} Z", bound=None if bound is None else y(bound),
        over=bound is not None and peak > bound,
        across=[Tick(x(at), f"{at:g} s") for at in steps(begin, end, 5)],
        up=[Tick(y(at), compact(at)) for at in steps(0, top, 4)],
    )


def steps(low: float, high: float, about: int) -> list[float]:
    """Round figures from `low` to `high`, some `about` of them."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * times for times in (1, 2, 5, 10) if power * times >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(at * step, 9) for at in range(first, math.floor(high / step + 1e-9) + 1)]


def compact(n: float) -> str:
    """5,440 as 5,440; 4,777,408 as 4.78 M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e5, "k")):
        if n >= size:
            return f"{n / (1e3 if letter == 'k' else size):.3g} {letter}"
    return f"{n:,.0f}" if n == int(n) else f"{n:g}"


def share(of: float, among: Sequence[float]) -> float:
    """In per cent of the largest: the length of a bar."""
    return round(100 * of / max([*among, 1e-9]), 2)
