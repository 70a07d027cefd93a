"""One picture: cached items over time, the unbounded lists beside deferpool and its bound."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes

from stress.plan import DEFERPOOL, Result

mpl.use("Agg")
from matplotlib import pyplot  # noqa: E402

COLOURS = ("tab:red", "tab:orange", "tab:blue", "tab:cyan", "tab:green", "tab:purple")
POINTS = 2_000  # of one curve


def draw(path: Path, results: Sequence[Result]) -> None:
    """A panel for each scenario. Logarithmic: the two designs are some orders of magnitude apart."""
    drawn = [result for result in results if result.curve]
    names = list(dict.fromkeys(result.plan.scenario for result in drawn)) or ["nothing was run"]
    figure, panels = pyplot.subplots(len(names), 1, figsize=(8, 4 * len(names)), squeeze=False, layout="constrained")
    for name, axes in zip(names, panels[:, 0], strict=True):
        _panel(axes, name, [result for result in drawn if result.plan.scenario == name])
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _panel(axes: Axes, name: str, results: Sequence[Result]) -> None:
    for result, colour in zip(results, COLOURS * len(results), strict=False):
        thin = result.curve[:: max(1, len(result.curve) // POINTS)]
        label = result.plan.title.removeprefix(name).strip(" ,")
        if result.plan.design == DEFERPOOL:
            label = f"deferpool, {label}"
        seconds, cached = [at for at, _, _ in thin], [n for _, n, _ in thin]
        axes.plot(seconds, cached, color=colour, label=label, linewidth=1.2)
    bounds = sorted({result.bound for result in results if result.bound is not None})
    for bound in bounds:
        axes.axhline(bound, color="black", linestyle="--", linewidth=0.8, label=f"bound: {bound:,}")
    axes.set_yscale("log")
    axes.set_ylim(bottom=1)
    axes.set_xlabel("seconds")
    axes.set_ylabel("records cached")
    axes.set_title(f"{name}: records cached while threads run")
    axes.grid(alpha=0.3)
    if results:
        axes.legend(loc="best", fontsize="small")
