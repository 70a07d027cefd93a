"""The figures of a bench, as a table for people and as JSON. Rows that we lose stand like those that we win."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stress import machine
from stress.bench import turns
from stress.bench.cells import Row
from stress.bench.peers import Peer
from stress.bench.race import Figures
from stress.reports import outputs
from stress.spread import quartiles

ORIGIN = "2015 design"
KIB, MIB = 1 << 10, 1 << 20
FLAT_WITHIN = 0.10


@dataclass(frozen=True)
class Judged:
    """One row beside the best of its peers."""

    row: Row
    ours: Figures
    best: Figures | None
    ratio: float | None = None  # least to least
    median: float | None = None
    quartiles: tuple[float, float] | None = None
    smallest: Figures | None = None  # whose peak is least
    why_not: str = ""

    @property
    def reached(self) -> bool:
        return self.ratio is not None and self.ratio <= self.row.target

    @property
    def small(self) -> bool | None:
        """Whether our peak of memory is at most the smallest of the allocators'."""
        if self.smallest is None or self.ours.peak is None or self.smallest.peak is None:
            return None
        return self.ours.peak <= self.smallest.peak


@dataclass(frozen=True)
class Endings:
    """What was timed of functions that end."""

    rows: Sequence[turns.Row] = ()
    at_once: Sequence[turns.AtOnce] = ()


@dataclass(frozen=True)
class Report:
    rows: Sequence[Row]
    raced: dict[tuple[str, int], list[Figures]]
    flat: Sequence[tuple[str, int, float]]
    bound: Sequence[tuple[int, Figures]]
    python: Sequence[tuple[int, Figures]]
    endings: Endings
    pools: Sequence[turns.Row]
    allocators: Sequence[Peer]
    go: Peer
    rounds: int
    seconds: float

    @property
    def judged(self) -> list[Judged]:
        return [self._judge(row) for row in self.rows]

    @property
    def ours(self) -> list[Figures]:
        """deferpool's own, of all cells and of what stands beside them; a row that could not begin is among them."""
        of_rows = {id(found): found for row in self.rows if (found := self.figures(row, row.ours.name))}
        return [*of_rows.values(), *(figures for _, figures in (*self.bound, *self.python))]

    @property
    def ran(self) -> bool:
        """Whether deferpool came to the end of everything; a peer that cannot run says why, and no more."""
        return all(figures.ns and not figures.error for figures in self.ours)

    @property
    def bound_held(self) -> bool:
        """At each sample; and at rest, by the allocator's own count, where one counts."""
        return (all(figures.bound is not None and not figures.past for figures in self.ours)
                and all(figures.outstanding is not None and figures.outstanding <= (figures.bound or 0)
                        for _, figures in self.bound))

    def figures(self, row: Row, name: str) -> Figures | None:
        return next((each for each in self.raced[row.work, row.threads] if each.name == name), None)

    def _judge(self, row: Row) -> Judged:
        ours = self.figures(row, row.ours.name)
        assert ours is not None
        allocators = [found for peer in self.allocators if (found := self.figures(row, peer.name)) and found.ns]
        go = self.figures(row, self.go.name)
        against = allocators if row.against == "allocators" else [go] if go is not None and go.ns else []
        if not ours.ns or not against:
            return Judged(row, ours, None, why_not=ours.error or (go.error if go else "") or self.go.why_not)
        best = min(against, key=lambda each: min(each.ns))
        ratios = [mine / other for mine, other in zip(ours.ns, best.ns, strict=True)]
        smallest = min((each for each in allocators if each.peak is not None), key=lambda each: each.peak or 0,
                       default=None)
        low, middle, high = quartiles(ratios)
        return Judged(row, ours, best, min(ours.ns) / min(best.ns), middle, (low, high), smallest)


# ---- for people --------------------------------------------------------------------------------------------------

def show(console: Console, report: Report) -> None:
    if report.rows:
        console.print(_table(report))
    _say_flat(console, report)
    _say_bound(console, report)
    _say_python(console, report)
    _say_endings(console, report.endings)
    _say_turns(console, report.pools, "ns to have an object of a pool for a moment, least of all rounds")
    for peer in (*report.allocators, report.go):
        if peer.why_not:
            console.print(f"not run: {peer.name}: {peer.why_not}", highlight=False, markup=False, soft_wrap=True)
    everybody = [*(each for raced in report.raced.values() for each in raced), *report.ours]
    failed = {(each.name, each.error) for each in everybody if each.error}
    for name, error in sorted(failed):
        console.print(f"failed: {name}: {error}", highlight=False, markup=False, soft_wrap=True)
    judged = report.judged
    reached = sum(each.reached for each in judged)
    small = [each.small for each in judged if each.small is not None]
    console.print(f"{reached} of {len(judged)} ratios reach their target, {sum(small)} of {len(small)} peaks of "
                  f"memory; {report.rounds} rounds, {report.seconds:.0f} s", highlight=False)
    for name, text in {**machine.describe(), **versions(report)}.items():
        console.print(f"{name}: {text}", highlight=False, markup=False)


def versions(report: Report) -> dict[str, str]:
    return {peer.name: peer.version for peer in (*report.allocators, report.go) if not peer.why_not}


def _table(report: Report) -> Table:
    names = [peer.name for peer in report.allocators if not peer.why_not] + [ORIGIN, report.go.name]
    table = Table(title="ns of CPU time for a take and a give, least of all rounds", title_justify="left")
    table.add_column("work")
    for name in ("threads", "deferpool", *names, "ratio", "target", "median", "quartiles", "peak KiB", "least peak"):
        table.add_column(name, justify="right")
    for each in report.judged:
        cells = [each.row.title, f"{each.row.threads:,}", _least(each.ours)]
        cells += [_least(report.figures(each.row, name), best=each.best) for name in names]
        if each.ratio is None or each.quartiles is None:
            cells += ["-", f"{each.row.target:.2f}", "-", "-", "", ""]
        else:
            colour = "green" if each.reached else "red"
            cells += [f"[{colour}]{each.ratio:.2f}[/]", f"{each.row.target:.2f}", f"{each.median:.2f}",
                      f"{each.quartiles[0]:.2f} - {each.quartiles[1]:.2f}", _kib(each.ours), _kib(each.smallest)]
        table.add_row(*cells)
    return table


def _least(figures: Figures | None, best: Figures | None = None) -> str:
    if figures is None or not figures.ns:
        return "-"
    text = f"{min(figures.ns):.1f}"
    return f"[bold]{text}[/]" if figures is best else text


def _kib(figures: Figures | None) -> str:
    return "-" if figures is None or figures.peak is None else f"{figures.peak / KIB:,.0f}"


def _say_flat(console: Console, report: Report) -> None:
    for work in dict.fromkeys(work for work, _, _ in report.flat):
        of_it = [(pairs, ns) for each, pairs, ns in report.flat if each == work]
        least, most = min(ns for _, ns in of_it), max(ns for _, ns in of_it)
        line = ", ".join(f"{pairs:,}: {ns:.2f}" for pairs, ns in of_it)
        verdict = "within" if most <= least * (1 + FLAT_WITHIN) else "NOT within"
        console.print(f"cost is flat, {work}, ns by records moved: {line}: {verdict} {FLAT_WITHIN:.0%} "
                      f"(largest {most / least - 1:+.0%})", highlight=False, soft_wrap=True)


def _say_bound(console: Console, report: Report) -> None:
    for threads, figures in report.bound:
        console.print(f"the bound, {threads:,} threads: {figures.bound:,}; most seen cached {figures.cached:,}; "
                      f"at rest {figures.outstanding or 0:,} by the allocator's own count", highlight=False)
    past = sum(figures.past for figures in report.ours)
    console.print(f"samples past the bound in all rows: {past:,}", highlight=False)


def _say_python(console: Console, report: Report) -> None:
    found = [(threads, min(figures.ns)) for threads, figures in report.python if figures.ns]
    if len(found) < 2:
        console.print("take and give from Python: not run: this interpreter has the GIL, or one core", highlight=False)
        return
    (_, one), (cores, many) = found[0], found[-1]
    scaling = cores * one / many
    console.print(f"take and give from Python, one pool: {one:.0f} ns with 1 thread, {many:.0f} with {cores}: "
                  f"{scaling:.2f} times as much at once, target {turns.SCALES * cores:.2f}", highlight=False)


def _say_endings(console: Console, found: Endings) -> None:
    _say_turns(console, found.rows, "ns for a function whose end does something, least of all rounds")
    for each in found.at_once:
        aim = "to compare with" if each.target is None else f"target {each.target * each.threads:.2f}"
        console.print(f"{each.what}: {each.times:.2f} times as much at once with {each.threads} threads, {aim}",
                      highlight=False)


def _say_turns(console: Console, rows: Sequence[turns.Row], title: str) -> None:
    if not rows:
        return
    table = Table(title=title, title_justify="left")
    for name in ("what", "beside"):
        table.add_column(name)
    for name in ("deferpool", "the other", "times as fast", "target", "met", "median", "quartiles"):
        table.add_column(name, justify="right")
    for row in rows:
        low, middle, high = quartiles(row.ratios) if row.ns else (0.0, 0.0, 0.0)
        colour = {True: "green", False: "red", None: "default"}[row.reached]
        figures = (["-", f"not run: {escape(row.why_not)}", "-", _target(row), "-", "-", "-"] if not row.ns else
                   [f"{min(row.ns):,.0f}", f"{min(row.peer_ns):,.0f}", f"[{colour}]{row.times:.2f}[/]", _target(row),
                    {True: "yes", False: "no", None: "-"}[row.reached], f"{middle:.2f}", f"{low:.2f} - {high:.2f}"])
        table.add_row(row.title, row.against, *figures)
    console.print(table)
    judged = [row for row in rows if row.ns and row.target is not None]
    console.print(f"{sum(bool(row.reached) for row in judged)} of {len(judged)} targets met, "
                  f"{sum(not row.ns for row in rows)} rows not run", highlight=False)


def _target(row: turns.Row) -> str:
    return "-" if row.target is None else f"{row.target:.2f}"


# ---- for the README ----------------------------------------------------------------------------------------------

def write_markdown(path: Path, report: Report) -> None:
    path.write_text(markdown(report))


def markdown(report: Report) -> str:
    """The table in fewer columns, and what it was run on."""
    lines = ["| work | threads | deferpool | best of the others | ratio | target | peak KiB | least peak |",
             "|---|---:|---:|---|---:|---:|---:|---:|"]
    for each in report.judged:
        best = f"{each.best.name} {_plain(each.best)}" if each.best is not None else "not run"
        ratio = "" if each.ratio is None else f"**{each.ratio:.2f}**" if each.reached else f"{each.ratio:.2f}"
        cells = (each.row.title, str(each.row.threads), _plain(each.ours), best, ratio, f"{each.row.target:.2f}",
                 _kib(each.ours), _kib(each.smallest))
        lines.append(f"| {' | '.join(cells)} |")
    lines += _turns_as_markdown("at the end of a function", report.endings.rows)
    lines += _turns_as_markdown("an object of a pool", report.pools)
    on = ", ".join(f"{name} {text}" if name in versions(report) else text
                   for name, text in {**machine.describe(), **versions(report)}.items())
    return "\n".join([*lines, "", f"{on}.", ""])


def _turns_as_markdown(what: str, rows: Sequence[turns.Row]) -> list[str]:
    lines = ["", f"| {what} | beside | deferpool, ns | the other, ns | times as fast | target |",
             "|---|---|---:|---:|---:|---:|"] if rows else []
    for row in rows:
        times = "" if row.times is None else f"**{row.times:.2f}**" if row.reached else f"{row.times:.2f}"
        ours, peer = (f"{min(row.ns):,.0f}", f"{min(row.peer_ns):,.0f}") if row.ns else ("-", "not run")
        lines.append(f"| {row.title} | {row.against} | {ours} | {peer} | {times} | {_target(row)} |")
    return lines


def _plain(figures: Figures) -> str:
    return f"{min(figures.ns):.1f}" if figures.ns else "-"


# ---- for programs ------------------------------------------------------------------------------------------------

def write_json(path: Path, report: Report) -> None:
    outputs.write_json(path, document(report))


def document(report: Report) -> dict[str, Any]:
    return {
        "format": 1, "machine": machine.describe(), "versions": versions(report),
        "not_run": {peer.name: peer.why_not for peer in (*report.allocators, report.go) if peer.why_not},
        "rounds": report.rounds, "seconds": report.seconds, "ran": report.ran, "bound_held": report.bound_held,
        "rows": [{**asdict(each.row), "title": each.row.title, "ratio": each.ratio, "median": each.median,
                  "quartiles": each.quartiles, "best": each.best and each.best.name, "reached": each.reached,
                  "small": each.small, "why_not": each.why_not} for each in report.judged],
        "cells": [{"work": work, "threads": threads, "figures": [asdict(each) for each in raced]}
                  for (work, threads), raced in report.raced.items()],
        "flat": [{"work": work, "pairs": pairs, "ns": ns} for work, pairs, ns in report.flat],
        "bound": [{"threads": threads, **asdict(figures)} for threads, figures in report.bound],
        "python": [{"threads": threads, **asdict(figures)} for threads, figures in report.python],
        "endings": [_turned(row) for row in report.endings.rows],
        "pools": [_turned(row) for row in report.pools],
        "endings_at_once": [{"what": each.what, "threads": each.threads, "times": each.times, "target": each.target}
                            for each in report.endings.at_once],
    }


def _turned(row: turns.Row) -> dict[str, Any]:
    return {"title": row.title, "against": row.against, "threads": row.threads, "ns": row.ns, "peer_ns": row.peer_ns,
            "times": row.times, "target": row.target, "reached": row.reached, "why_not": row.why_not}
