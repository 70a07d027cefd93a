"""python -m stress bench: what a pair of take and give costs, beside other allocators, Go and the 2015 design.

All who run in a cell take turns, round by round; the figure is CPU time a pair, over all threads. The ratio is of the
least of our rounds to the least of the best peer's; median and quartiles are of the rounds' own ratios.
"""
from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from stress import machine
from stress.arguments import Parser, number
from stress.bench import cells, endings, peers, pools, race, report, turns
from stress.bench.cells import Row
from stress.bench.race import Figures
from stress.reports import outputs
from stress.reports.outputs import Kind

ROUNDS = 7
WORKS = tuple(cells.TITLES)
BESIDE = ("flat", "bound", "python", "endings", "pools")  # of deferpool alone, or on ground of their own
FLAT_TO = 10**9
KINDS = (
    Kind("json", (".json",), "stress.bench.report:write_json", "write all figures"),
    Kind("markdown", (".md",), "stress.bench.report:write_markdown", "write the table for a README"),
    Kind("chart", (".png", ".svg"), "stress.bench.chart:write", "draw the ratios: .png or .svg", needs="matplotlib"),
)


def main(arguments: Sequence[str]) -> int:
    parser = Parser(prog="python -m stress bench", description=__doc__.partition("\n")[0],
                    epilog="Exit status: 0 deferpool ran in every row and the bound held, whatever the ratios; 1 not; "
                           "2 bad arguments.")
    add = parser.add_argument
    add("work", nargs="*", help=f"of {', '.join((*WORKS, *BESIDE))}; default: all")
    add("--rounds", type=number(1, 10_000), default=ROUNDS, metavar="N", help=f"that take turns (default: {ROUNDS})")
    add("--threads", type=number(1, 4096), metavar="N", help="only rows of so many threads")
    add("--share", type=number(1, 100), default=100, metavar="PERCENT", help="of the usual pairs in a round")
    outputs.add(parser, KINDS)
    given = parser.parse_args(arguments)
    for work in given.work:
        if work not in (*WORKS, *BESIDE):
            parser.error(f"no work is called {work!r}: there are {', '.join((*WORKS, *BESIDE))}")
    files = outputs.chosen(parser, given, kinds=KINDS)

    console = Console(width=None if Console().is_terminal else 200)
    cores = len(machine.usable_cpus())
    wanted = given.work or [*WORKS, *BESIDE]
    rows = [row for row in cells.rows(cores) if row.work in wanted and given.threads in (None, row.threads)]
    allocators, go = peers.allocators(), peers.go()
    began = time.perf_counter()
    raced: dict[tuple[str, int], list[Figures]] = {}
    with _progress(console) as show:
        for work, threads in dict.fromkeys((row.work, row.threads) for row in rows):
            show(f"{cells.TITLES[work]}, {threads} threads")
            starts = _starts(rows, work, threads, allocators, go)
            pairs = max(threads * 1000, cells.pairs(work, threads) * given.share // 100)
            raced[work, threads] = race.race(starts, given.rounds, pairs)
        flat = _flat(show, given.rounds, FLAT_TO * given.share // 100) if "flat" in wanted else []
        bound = _bound(show, given.share) if "bound" in wanted else []
        python = _python(show, cores, given.rounds) if "python" in wanted else []
        ends = report.Endings()
        if "endings" in wanted:
            ends = report.Endings(_in_turns(show, "at the end of a function", endings.rows(), given),
                                  endings.scaling(given.rounds, given.share, cores))
        pooled = _in_turns(show, "pools", pools.rows(cores), given) if "pools" in wanted else []
    result = report.Report(rows, raced, flat, bound, python, ends, pooled, allocators, go, given.rounds,
                           time.perf_counter() - began)
    report.show(console, result)
    outputs.write(files, result)
    return 0 if result.ran and result.bound_held else 1


def _starts(
    rows: Sequence[Row], work: str, threads: int, allocators: Sequence[peers.Peer], go: peers.Peer
) -> list[Callable[[], race.Runner]]:
    here = [row for row in rows if (row.work, row.threads) == (work, threads)]
    starts = [race.ours(how, work, threads) for how in dict.fromkeys(row.ours for row in here)]
    starts += [race.allocator(peer, work, threads) for peer in allocators if not peer.why_not]
    starts.append(race.origin(report.ORIGIN, work, threads))
    if work in cells.GO and not go.why_not:
        starts.append(race.go(go, work, threads))
    return starts


def _in_turns(show: Callable[[str], None], what: str, rows: list[turns.Row], given: Namespace) -> list[turns.Row]:
    turns.race(rows, given.rounds, given.share, lambda text: show(f"{what}, {text}"))
    return rows


def _flat(show: Callable[[str], None], rounds: int, most: int) -> list[tuple[str, int, float]]:
    """(work, pairs, least ns a pair), on one thread."""
    found = []
    for work in ("pair", "burst"):
        with race.ours(cells.USUAL, work, 1)() as runner:
            pairs = 10**5
            while pairs <= most:
                show(f"{cells.TITLES[work]}, {pairs:,} records")
                runner.figures.ns.clear()
                for turn in range(max(3, min(10 * rounds, 10**7 * rounds // pairs)) + 1):
                    runner.round(turn > 0, pairs)
                if runner.figures.error:
                    break
                found.append((work, pairs, min(runner.figures.ns)))
                pairs *= 10
    return found


def _bound(show: Callable[[str], None], share: int) -> list[tuple[int, Figures]]:
    """With an allocator that counts: what is out of it at rest is what the pool keeps."""
    found = []
    for threads in (2, 1000):
        show(f"the bound, {threads:,} threads")
        start = race.ours(cells.USUAL, "burst", threads, ledger=True)
        found.append((threads, race.race([start], 3, max(threads * 1000, 20_000_000 * share // 100))[0]))
    return found


def _python(show: Callable[[str], None], cores: int, rounds: int) -> list[tuple[int, Figures]]:
    """new and free called from Python, on one pool. Only where threads can do so at once."""
    if machine.has_gil():
        return []
    show("take and give from Python")
    return [(threads, race.race([race.ours(cells.USUAL, "python", threads)], rounds, 400_000 * threads)[0])
            for threads in (1, cores)]


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[str], None]]:
    """Says what is timed now, where somebody looks on."""
    columns = TextColumn("{task.description}"), BarColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda text: progress.update(task, description=text)
