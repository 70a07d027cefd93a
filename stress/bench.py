"""python -m stress bench: what a pair of new and free costs, beside the C library's malloc and free.

Each round times both sides one right after the other, so that what disturbs one disturbs the other; the figure is
CPU time a pair, over all threads. The ratio is of the least of the rounds, the quartiles are of the rounds' own.
"""
from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

import deferpool
from stress import machine
from stress._bench import pair_deferpool, pair_malloc
from stress.arguments import Parser, number

PAIRS = 20_000_000  # of all threads together, in one round
THREADS = (1, 2, 64)
Loop = Callable[[deferpool.RecordPool | None, int], float]


def main(arguments: Sequence[str]) -> int:
    parser = Parser(prog="python -m stress bench", description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--rounds", type=number(1, 10_000), default=9, metavar="N", help="interleaved rounds (default: 9)")
    add("--pairs", type=number(1, 10**12), default=PAIRS, metavar="N", help="pairs a round, all threads together")
    given = parser.parse_args(arguments)
    table = Table(title="a pair of new(64) and free, CPU time", title_justify="left")
    for name in ("threads", "mode", "deferpool ns", "malloc ns", "ratio of least", "median", "quartiles"):
        table.add_column(name, justify="right")
    threading.stack_size(256 * 1024)
    for portable in (False, True):
        sched = deferpool.Sched(portable=portable)
        for threads in THREADS:
            pool = deferpool.RecordPool(sched=sched)
            ours, theirs = [], []
            for _ in range(given.rounds):
                ours.append(timed(pair_deferpool, pool, threads, given.pairs))
                theirs.append(timed(pair_malloc, None, threads, given.pairs))
            ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
            low, middle, high = quartiles(ratios)
            table.add_row(f"{threads}", sched.mode, f"{min(ours):.2f}", f"{min(theirs):.2f}",
                          f"{min(ours) / min(theirs):.2f}", f"{middle:.2f}", f"{low:.2f} - {high:.2f}")
    console = Console()
    console.print(table)
    for name, text in machine.describe().items():
        console.print(f"{name}: {text}", highlight=False)
    return 0


def timed(loop: Loop, pool: deferpool.RecordPool | None, threads: int, pairs: int) -> float:
    """Nanoseconds of CPU time a pair, over all threads."""
    each = max(1, pairs // threads)
    seconds: list[float] = []
    gate = threading.Event()

    def work() -> None:
        gate.wait()
        seconds.append(loop(pool, each))

    running = [threading.Thread(target=work) for _ in range(threads)]
    for thread in running:
        thread.start()
    gate.set()
    for thread in running:
        thread.join()
    return sum(seconds) / (each * threads) * 1e9


def quartiles(figures: Sequence[float]) -> tuple[float, float, float]:
    if len(figures) == 1:
        return figures[0], figures[0], figures[0]
    low, middle, high = statistics.quantiles(figures, n=4, method="inclusive")
    return low, middle, high
