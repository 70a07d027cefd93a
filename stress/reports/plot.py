"""One picture: cached items over time; the unbounded lists beside deferpool, and deferpool closer up with its bound."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from stress.plan import DEFERPOOL
from stress.reports.curves import thinned
from stress.reports.document import Document, Run

mpl.use("Agg")
from matplotlib import pyplot  # noqa: E402

COLOURS = ("tab:red", "tab:orange", "tab:blue", "tab:cyan", "tab:green", "tab:purple")
POINTS = 600  # of one curve


def write(path: Path, document: Document) -> None:
    """A row for each scenario; where a baseline ran, all designs on the left."""
    drawn = [run for run in document["runs"] if run["curve"]]
    names = list(dict.fromkeys(run["scenario"] for run in drawn))
    columns = 2 if any(run["design"] != DEFERPOOL for run in drawn) else 1
    figure, panels = pyplot.subplots(max(1, len(names)), columns, figsize=(5 * columns, 3.4 * max(1, len(names))),
                                     squeeze=False, layout="constrained")
    for name, row in zip(names, panels, strict=False):
        of_it = [(run, colour) for run, colour in zip(drawn, COLOURS * len(drawn), strict=False)
                 if run["scenario"] == name]
        ours = [(run, colour) for run, colour in of_it if run["design"] == DEFERPOOL]
        _panel(row[-1], f"{name}: deferpool and its bounds", ours, bounds=True)
        if columns == 2:
            _panel(row[0], f"{name}: every design", of_it, bounds=False)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _panel(axes: Axes, title: str, runs: Sequence[tuple[Run, str]], *, bounds: bool) -> None:
    for run, colour in runs:
        thin = thinned(run["curve"], POINTS)
        label = run["title"].removeprefix(run["scenario"]).strip(" ,")
        if run["design"] == DEFERPOOL:
            label = f"deferpool, {label}"
        axes.plot([point["seconds"] for point in thin], [point["cached"] for point in thin], color=colour, label=label,
                  linewidth=1.2)
        if bounds and run["bound"] is not None:
            axes.axhline(run["bound"], color=colour, linestyle="--", linewidth=1, label=f"its bound, {run['bound']:,}")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds")
    axes.set_ylabel("records cached")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))
    axes.set_title(title)
    axes.grid(alpha=0.3)
    if runs:
        axes.legend(loc="best", fontsize="small")
