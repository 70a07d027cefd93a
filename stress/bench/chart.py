"""One picture: the ratio of each row, with its quartiles and its target."""
from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

from stress.bench.report import Report

mpl.use("Agg")
from matplotlib import pyplot  # noqa: E402


def write(path: Path, report: Report) -> None:
    rows = [each for each in reversed(report.judged) if each.ratio is not None]
    figure, axes = pyplot.subplots(figsize=(8, 1.2 + 0.24 * len(rows)), layout="constrained")
    for at, each in enumerate(rows):
        assert each.ratio is not None
        assert each.quartiles is not None
        colour = "tab:green" if each.reached else "tab:red"
        axes.barh(at, each.ratio, color=colour, height=0.7)
        axes.plot(each.quartiles, (at, at), color="black", linewidth=1)
        axes.plot((each.row.target, each.row.target), (at - 0.4, at + 0.4), color="tab:blue", linewidth=2)
    axes.axvline(1.0, color="grey", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(rows)), [f"{each.row.title}, {each.row.threads}" for each in rows], fontsize="small")
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel("CPU time a pair, ratio to the best peer (bar: least, line: quartiles, blue: target)")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
