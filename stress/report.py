"""What a person sees of the runs, and the same for machines: progress, table, JSON. Decides nothing."""
from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from stress import machine
from stress.plan import Result

COLOURS = {"held": "green", "grows": "yellow", "interrupted": "yellow", "FAILED": "red"}


def live(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<34}"), BarColumn(bar_width=24), TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(), console=console, transient=False,
    )


def show(progress: Progress, task: TaskID, share: float, ops: int, cached: int, bound: int | None) -> None:
    against = "no bound" if bound is None else f"bound {bound:,}"
    progress.update(task, completed=share, figures=f"{ops:>13,} ops  cached {cached:>10,} ({against})")


def table(results: Sequence[Result]) -> Table:
    out = Table(title="deferpool under stress", title_justify="left")
    for name in ("run", "mode"):
        out.add_column(name, no_wrap=True)
    for name in ("threads", "operations", "ops/s", "samples", "restarts", "peak cached", "bound", "violations"):
        out.add_column(name, justify="right", no_wrap=True)
    out.add_column("verdict", no_wrap=True)
    for result in results:
        plan, books = result.plan, result.books
        bad = len(result.broken) + max(0, books["violations"] - len(result.evidence))
        out.add_row(
            plan.name, result.mode_at_start or "-", f"{plan.threads:,}", f"{result.operations:,}",
            f"{result.operations / max(result.seconds, 1e-9):,.0f}", f"{books['samples']:,}",
            f"{result.restarts:,}" if result.mode_at_start == "sections" else "-",
            f"{books['peak_cached']:,}", "none" if result.bound is None else f"{result.bound:,}",
            f"{bad:,}", f"[{COLOURS[result.verdict]}]{result.verdict}[/]",
        )
    return out


def close(console: Console, results: Sequence[Result], rerun: str) -> None:
    """The table, what was broken, what each verdict rests on, and the line that runs it all again."""
    console.print(table(results))
    for result in results:
        for text in result.notes:
            console.print(f"{result.plan.title}: {text}", highlight=False)
    for result in results:
        for text in result.broken:
            console.print(f"[red]BROKEN[/] {result.plan.title}: {text}", highlight=False, soft_wrap=True)
    failed = sum(result.verdict == "FAILED" for result in results)
    cut = any(result.interrupted for result in results)
    if not results:
        console.print("nothing was run")
    elif failed:
        console.print(f"[red]FAILURE[/]: {failed} of {len(results)} runs did not hold")
    elif cut:
        console.print(f"interrupted after {len(results)} runs; nothing was broken so far")
    else:
        console.print(f"[green]SUCCESS[/]: {len(results)} runs, every invariant held in deferpool; only the "
                      "unbounded lists grew" if any(result.verdict == "grows" for result in results) else
                      f"[green]SUCCESS[/]: {len(results)} runs, every invariant held")
    for name, text in machine.describe().items():
        console.print(f"{name}: {text}", highlight=False)
    console.print(f"run it again: {rerun}", highlight=False, soft_wrap=True)


def write_json(path: Path, results: Sequence[Result], rerun: str) -> None:
    document = {
        "rerun": rerun,
        "machine": machine.describe(),
        "runs": [
            {
                "scenario": result.plan.scenario, "title": result.plan.title, "design": result.plan.design,
                "mode": result.mode_at_start, "calls": result.plan.calls, "threads": result.plan.threads,
                "procs": result.procs, "cap": result.plan.options.cap, "seed": result.plan.options.seed,
                "seconds": result.seconds, "operations": result.operations, "bound": result.bound,
                "restarts": result.restarts, "verdict": result.verdict, "broken": result.broken,
                "notes": result.notes, "books": result.books, "stats": result.stats,
                "curve": [{"seconds": s, "cached": c, "given_back": g} for s, c, g in result.curve],
            }
            for result in results
        ],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
