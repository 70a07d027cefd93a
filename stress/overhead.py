"""What the checks cost: churn with and without them, in turn, and the ratio of the two speeds.

Both sides do the same work: each record is written whole and read back. The checks add the owner word's two
compare-and-swaps, the look for zeroes, the comparison with the cookie and the events. Speed is operations a second of
the threads' own CPU time, so that neither the sampler nor other processes count; each round times both sides one
right after the other, and the figure is the median of the rounds' own ratios.
"""
from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

import deferpool
from stress import machine
from stress._ledger import Ledger
from stress._load import Load
from stress.arguments import Parser, number
from stress.runner import SAMPLE_EVERY_US
from stress.scenarios import churn
from stress.spread import quartiles

LEAST = 0.5  # the speed with checks, in parts of that without: below it the checks would hide races
OPS = 4_000_000  # of all threads together, in one round


def main(arguments: Sequence[str]) -> int:
    """Returns 0 when the median is LEAST or more in every mode, else 1."""
    parser = Parser(prog="python -m stress overhead", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=number(1, 10**6), default=9, metavar="N",
                        help="interleaved rounds (default: 9)")
    parser.add_argument("--ops", type=number(1, 10**12), default=OPS, metavar="N",
                        help="takes and gives a round, all threads")
    parser.add_argument("--threads", type=number(1, 4096), default=4, metavar="N", help="default: 4")
    given = parser.parse_args(arguments)
    table = Table(title="churn with its checks, against the same without", title_justify="left")
    for name in ("mode", "ns an operation", "without", "speed kept", "quartiles", "verdict"):
        table.add_column(name, justify="right")
    held = True
    threading.stack_size(256 * 1024)
    for mode in ("sections", "portable") if machine.has_sections() else ("portable",):
        with_checks, without, kept = measured(mode, given.rounds, given.ops, given.threads)
        low, middle, high = quartiles(kept)
        held = held and middle >= LEAST
        table.add_row(mode, f"{statistics.median(with_checks):.1f}", f"{statistics.median(without):.1f}",
                      f"{middle:.2f}", f"{low:.2f} - {high:.2f}", "held" if middle >= LEAST else f"below {LEAST}")
    console = Console()
    console.print(table)
    for name, text in machine.describe().items():
        console.print(f"{name}: {text}", highlight=False)
    return 0 if held else 1


def measured(mode: str, rounds: int, ops: int, threads: int) -> tuple[list[float], list[float], list[float]]:
    """For each round: CPU nanoseconds an operation with checks and without, and the ratio of the speeds."""
    with_checks, without = [], []
    for turn in range(rounds):
        order = (True, False) if turn % 2 else (False, True)
        both = {checks: timed(mode, checks, ops, threads, turn) for checks in order}
        with_checks.append(both[True])
        without.append(both[False])
    return with_checks, without, [bare / full for bare, full in zip(without, with_checks, strict=True)]


def timed(mode: str, checks: bool, ops: int, threads: int, seed: int) -> float:
    """Nanoseconds of CPU time an operation, over all threads, while the sampler looks on."""
    ledger = Ledger()
    sched = deferpool.Sched(portable=mode == "portable", clear_on_gc=False)
    pool = deferpool.RecordPool(sched=sched, allocator=ledger.capsule(), debug=False)
    load = Load(pool, ledger, threads, seed, checks)
    each = max(1, ops // threads)
    seconds: list[float] = []
    gate = threading.Event()

    def work(thread: int) -> None:
        gate.wait()
        began = time.thread_time()
        load.run_churn(thread, churn.WORKING_SET, each)
        seconds.append(time.thread_time() - began)

    sampler = threading.Thread(target=load.run_sampler, args=(SAMPLE_EVERY_US,))
    running = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
    try:
        for thread in (sampler, *running):
            thread.start()
        gate.set()
        for thread in running:
            thread.join()
    finally:                            # Ctrl-C: the threads look at this, and end
        gate.set()
        load.finish()
    sampler.join()
    return sum(seconds) / (each * threads) * 1e9


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
