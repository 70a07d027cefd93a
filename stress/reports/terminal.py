"""What a person sees in the terminal: the runs while they go on, and the closing tables. Decides nothing."""
from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from stress.reports.document import Check, Document, Run, check_names, conclude, missing

COLOURS = {"held": "green", "grows": "yellow", "interrupted": "yellow", "FAILED": "red", "broken": "red",
           "not checked": "dim", "SUCCESS": "green", "FAILURE": "red"}
EVERY_S = 0.1  # the live view is drawn again
BESIDES = 8  # lines of the live view that are not runs


def console() -> Console:
    """Wide where nobody's window folds the lines."""
    return Console(width=None if sys.stdout.isatty() else 160)


class Progress:
    """The live view. Where stdout is no terminal: one plain line for each run that has ended.

    It is drawn by the calling thread only, in tick(): a thread of its own could hold a lock while the process forks.
    """

    def __init__(self, console: Console, planned: int) -> None:
        self._console = console
        self._planned = planned
        self._ended: list[Run] = []
        self._began = self._drawn = 0.0
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.update(Text(""), refresh=True)
            self._live.stop()

    def begin(self) -> None:
        self._began = time.monotonic()
        self._drawn = 0.0

    def tick(self, title: str, share: float, ops: int, cached: int, bound: int | None) -> None:
        """The run that is on: how much of it is done (0 to 1), and its figures now."""
        now = time.monotonic()
        if self._live is not None and now >= self._drawn + EVERY_S:
            self._drawn = now
            rate = ops / max(now - self._began, EVERY_S)
            self._live.update(Group(self._so_far(), current(title, share, rate, cached, bound)), refresh=True)

    def end(self, run: Run) -> None:
        self._ended.append(run)
        if self._live is None:
            self._console.print(line(run), soft_wrap=True)

    def _so_far(self) -> RenderableType:
        room = max(3, self._console.height - BESIDES)
        hidden, shown = self._ended[:-room], self._ended[-room:]
        counts = Counter(run["verdict"] for run in hidden)
        above = [Text(f"{len(hidden)} earlier: " + ", ".join(f"{n} {what}" for what, n in counts.items()), "dim")]
        ended = Text(f"{len(self._ended)} of {self._planned} runs", "dim")
        return Group(*(above if hidden else []), *map(line, shown), ended)


def line(run: Run) -> Text:
    """A run that has ended."""
    figures = (f"  {run['title']:<34} {run['operations']:>14,} ops {run['seconds']:>7.1f} s "
               f"{run['ops_per_second']:>13,.0f} ops/s  peak cached {run['peak_cached']:>10,} {_against(run['bound'])}")
    return Text.assemble((f"{run['verdict']:<11}", COLOURS[run["verdict"]]), figures, no_wrap=True, overflow="ellipsis")


def current(title: str, share: float, rate: float, cached: int, bound: int | None) -> RenderableType:
    """The run that is on: a bar for how far it is, and one for how full the caches are."""
    grid = Table.grid(padding=(0, 1))
    for width in (34, 16, 4, 17, 16, 26):
        grid.add_column(width=width, no_wrap=True, overflow="ellipsis")
    full = ProgressBar(total=bound, completed=min(cached, bound), width=16) if bound else Text("")
    grid.add_row(
        Text(title, "bold"), ProgressBar(total=1.0, completed=share, width=16), f"{share:>4.0%}",
        f"{rate:>11,.0f} ops/s", full,
        Text(f"cached {cached:,} {_against(bound)}", "red" if bound is not None and cached > bound else ""),
    )
    return grid


def close(console: Console, document: Document) -> None:
    """The tables, what was broken, what was not checked, the verdict, and the line that runs it all again."""
    if document["runs"]:
        console.print(figures(document["runs"]))
    if any(run["checks"] for run in document["runs"]):
        console.print(checks(document["runs"]))
    for run in document["runs"]:
        for text in run["notes"]:
            _print(console, f"{run['title']}: {text}")
    for text, titles in _not_checked(document["runs"]).items():
        _print(console, f"not checked: {text} ({_listed(titles)})")
    for run in document["runs"]:
        for check in run["checks"]:
            if check["outcome"] == "broken":
                for text in check["evidence"] or [check["reason"]]:
                    _print(console, ("BROKEN", "red"), f" {run['title']}: {check['check']}: {text}")
    numbers = missing(document)
    if numbers and document["runs"]:
        _print(console, f"never run: {_listed([document['planned'][number - 1] for number in numbers])}")
    conclusion = conclude(document)
    _print(console, (conclusion["word"], COLOURS.get(conclusion["word"], "")), conclusion["sentence"])
    if document["shard"]:
        of = len(document["planned"])
        _print(console, f"shard {document['shard']}: {len(document['runs'])} of the campaign's {of} runs")
    for name, text in document["machine"].items():
        _print(console, f"{name}: {text}")
    _print(console, f"run it again: {document['rerun']}")


def figures(runs: Sequence[Run]) -> Table:
    out = Table(title="deferpool under stress", title_justify="left")
    for name in ("run", "mode"):
        out.add_column(name, no_wrap=True)
    for name in ("threads", "operations", "ops/s", "samples", "restarts", "peak cached", "bound", "checks"):
        out.add_column(name, justify="right", no_wrap=True)
    out.add_column("verdict", no_wrap=True)
    for run in runs:
        mode = run["mode"] or "-"
        outcomes = Counter(check["outcome"] for check in run["checks"])
        out.add_row(
            Text(run["title"].removesuffix(f", {mode}")), mode, f"{run['threads']:,}", f"{run['operations']:,}",
            f"{run['ops_per_second']:,.0f}", f"{run['samples']:,}",
            f"{run['restarts']:,}" if mode == "sections" else "-", f"{run['peak_cached']:,}", _bound(run["bound"]),
            f"{outcomes['held']} of {outcomes['held'] + outcomes['broken']}",
            Text(run["verdict"], COLOURS[run["verdict"]]),
        )
    return out


def checks(runs: Sequence[Run]) -> Table:
    """A row for each check, a column for each scenario: held, broken, or not checked, over its runs."""
    scenarios = list(dict.fromkeys(run["scenario"] for run in runs))
    cells: dict[str, dict[str, list[Check]]] = {}
    for run in runs:
        for check in run["checks"]:
            cells.setdefault(check["check"], {}).setdefault(run["scenario"], []).append(check)
    out = Table(title="checks by scenario (-: not checked)", title_justify="left")
    out.add_column("check", no_wrap=True)
    for scenario in scenarios:
        out.add_column(scenario)
    for name in check_names(runs):
        out.add_row(Text(name), *(_cell(cells[name].get(scenario, [])) for scenario in scenarios))
    return out


def _cell(found: Sequence[Check]) -> Text:
    counts = Counter(check["outcome"] for check in found)
    if counts["broken"]:
        return Text(f"BROKEN {counts['broken']} of {len(found)}", "red")
    if counts["held"]:
        return Text("held" if counts["held"] == len(found) else f"held {counts['held']} of {len(found)}", "green")
    return Text("-" if found else "", "dim")


def _not_checked(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The runs of which each was said."""
    out: dict[str, list[str]] = {}
    for run in runs:
        for check in run["checks"]:
            if check["outcome"] == "not checked":
                why = "; ".join(check["evidence"]) or check["reason"]
                out.setdefault(f"{check['check']}: {why}", []).append(run["title"])
    return out


def _listed(titles: Sequence[str], most: int = 4) -> str:
    return "; ".join(titles[:most]) + (f"; and {len(titles) - most} more" if len(titles) > most else "")


def _against(bound: int | None) -> str:
    return "(no bound)" if bound is None else f"of {bound:,}"


def _bound(bound: int | None) -> str:
    return "none" if bound is None else f"{bound:,}"


def _print(console: Console, *parts: str | tuple[str, str]) -> None:
    """As it stands: figures in brackets are no markup, and a line to be pasted is not wrapped."""
    console.print(Text.assemble(*parts), highlight=False, soft_wrap=True)
