"""The page for people: one file without scripts that asks nothing of any network, in the colours the reader prefers."""
from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from stress.reports.chart import HEIGHT, LEFT, RIGHT, TOP, WIDTH, chart, compact, share
from stress.reports.document import Check, Document, Run, check_names, conclude, missing

MARKS = {"held": "\N{CHECK MARK}", "broken": "\N{BALLOT X}", "not checked": "\N{EN DASH}"}


def write(path: Path, document: Document) -> None:
    path.write_text(page(document), encoding="utf-8", errors="replace")


def page(document: Document) -> str:
    environment = Environment(loader=PackageLoader("stress", "reports"), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    environment.filters["n"] = "{:,}".format
    environment.filters["rate"] = "{:,.0f}".format
    environment.filters["compact"] = compact
    runs = document["runs"]
    rates = [run["ops_per_second"] for run in runs]
    return environment.get_template("page.html.jinja").render(
        document=document, conclusion=conclude(document), names=check_names(runs), marks=MARKS,
        rows=[(run, {check["check"]: check for check in run["checks"]}) for run in runs],
        counts=Counter(check["outcome"] for run in runs for check in run["checks"]),
        broken=[(run, check) for run in runs for check in run["checks"] if check["outcome"] == "broken"],
        unchecked=_unchecked(runs), charts={run["number"]: chart(run) for run in runs},
        shares={run["number"]: share(run["ops_per_second"], rates) for run in runs},
        missing=[document["planned"][number - 1] for number in missing(document)], said=said, figures=_figures,
        size={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "top": TOP},
    )


def said(check: Check) -> str:
    """What a cell of the table says when it is pointed at."""
    return "\n".join([f"{check['check']}: {check['outcome']}", check["reason"], *check["evidence"]])


def _unchecked(runs: list[Run]) -> dict[tuple[str, str], list[str]]:
    out: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        for check in run["checks"]:
            if check["outcome"] == "not checked":
                why = "; ".join(check["evidence"]) or check["reason"]
                out.setdefault((check["check"], why), []).append(run["title"])
    return out


def _figures(run: Run) -> dict[str, Any]:
    """The books and stats() of one run side by side: (books, stats) by name, each where it is there."""
    stats = {name: value for name, value in run["stats"].items() if isinstance(value, int)}
    return {name: (run["books"].get(name), stats.get(name)) for name in dict.fromkeys([*run["books"], *stats])}
