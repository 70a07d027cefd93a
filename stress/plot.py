"""One picture: cached items over time; the unbounded lists beside deferpool, and deferpool closer up with its bound."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from stress.plan import DEFERPOOL, Result

mpl.use("Agg")
from matplotlib import pyplot  # noqa: E402

COLOURS = ("tab:red", "tab:orange", "tab:blue", "tab:cyan", "tab:green", "tab:purple")
POINTS = 600  # of one curve


def draw(path: Path, results: Sequence[Result]) -> None:
    """A row for each scenario; where a baseline ran, all designs on the left."""
    drawn = [result for result in results if result.curve]
    names = list(dict.fromkeys(result.plan.scenario for result in drawn))
    columns = 2 if any(result.plan.design != DEFERPOOL for result in drawn) else 1
    figure, panels = pyplot.subplots(max(1, len(names)), columns, figsize=(5 * columns, 3.4 * max(1, len(names))),
                                     squeeze=False, layout="constrained")
    for name, row in zip(names, panels, strict=False):
        of_it = [(result, colour) for result, colour in zip(drawn, COLOURS * len(drawn), strict=False)
                 if result.plan.scenario == name]
        ours = [(result, colour) for result, colour in of_it if result.plan.design == DEFERPOOL]
        _panel(row[-1], f"{name}: deferpool and its bounds", ours, bounds=True)
        if columns == 2:
            _panel(row[0], f"{name}: every design", of_it, bounds=False)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _panel(axes: Axes, title: str, results: Sequence[tuple[Result, str]], *, bounds: bool) -> None:
    for result, colour in results:
        thin = result.curve[:: max(1, len(result.curve) // POINTS)]
        label = result.plan.title.removeprefix(result.plan.scenario).strip(" ,")
        if result.plan.design == DEFERPOOL:
            label = f"deferpool, {label}"
        seconds, cached = [at for at, _, _ in thin], [n for _, n, _ in thin]
        axes.plot(seconds, cached, color=colour, label=label, linewidth=1.2)
        if bounds and result.bound is not None:
            axes.axhline(result.bound, color=colour, linestyle="--", linewidth=1, label=f"its bound, {result.bound:,}")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds")
    axes.set_ylabel("records cached")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))
    axes.set_title(title)
    axes.grid(alpha=0.3)
    if results:
        axes.legend(loc="best", fontsize="small")
