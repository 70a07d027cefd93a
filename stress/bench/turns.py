"""Two loops in turns, round by round in this process: one of ours and a peer's, and how they compare.

A figure is wall time; where several threads do the work at once, the time until all have done it, by all that they did.
The garbage collector is on throughout, as it is in programs.
"""
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

CYCLES = 20_000  # in one round
SCALES = 0.85  # of the threads: so many times the work of one should they do at once
Loop = Callable[[int], object]  # does so many cycles


def idle(cycles: int) -> None:
    """In the place of a loop that there is not."""


@dataclass
class Row:
    """Ours beside a peer; `target`: so many times as fast as that we should be; None: the row is only a report."""

    title: str
    against: str
    ours: Loop
    peer: Loop
    target: float | None
    cycles: int = CYCLES  # of each thread
    threads: int = 1
    peer_threads: int | None = None  # None: as many
    why_not: str = ""  # it cannot be timed
    ns: list[float] = field(default_factory=list)  # a cycle, by round
    peer_ns: list[float] = field(default_factory=list)

    @property
    def times(self) -> float | None:
        """Least to least."""
        return min(self.peer_ns) / min(self.ns) if self.ns else None

    @property
    def ratios(self) -> list[float]:
        return [theirs / mine for mine, theirs in zip(self.ns, self.peer_ns, strict=True)]

    @property
    def reached(self) -> bool | None:
        """None where nothing is to be reached."""
        return None if self.target is None else self.times is not None and self.times >= self.target


@dataclass
class AtOnce:
    """A loop by one thread, and by several at once. Without a `target` it is there to compare with."""

    what: str
    loop: Loop
    threads: int
    target: float | None = None  # times `threads`
    one_s: list[float] = field(default_factory=list)
    all_s: list[float] = field(default_factory=list)

    def time(self, share: int) -> None:
        """A round of each."""
        cycles = max(100, 5 * CYCLES * share // 100)
        self.one_s.append(at_once(self.loop, 1, cycles))
        self.all_s.append(at_once(self.loop, self.threads, cycles))

    @property
    def times(self) -> float:
        """How many times the work of one they do."""
        return self.threads * min(self.one_s) / min(self.all_s)


def not_run(title: str, against: str, target: float | None, why: str) -> Row:
    return Row(title, against, idle, idle, target, why_not=why)


def race(rows: Sequence[Row], rounds: int, share: int, show: Callable[[str], None]) -> None:
    """Times them all. `share`: percent of the usual cycles. What a first round does is not counted."""
    for turn in range(rounds + 1):
        show(f"round {turn} of {rounds}")
        for row in rows:
            if row.why_not:
                continue
            cycles = max(100, row.cycles * share // 100)
            sides = [(row.ours, row.threads, row.ns), (row.peer, row.peer_threads or row.threads, row.peer_ns)]
            for loop, threads, into in sides if turn % 2 else reversed(sides):
                ns = timed(loop, threads, cycles, apart=row.threads > 1)
                if turn:
                    into.append(ns)


def timed(loop: Loop, threads: int, cycles: int, *, apart: bool = False) -> float:
    """ns a cycle; of one thread in the calling one, or `apart` from it: without a GIL what a thread made costs it less
    than others, so that one beside two would not be the same work."""
    if threads > 1 or apart:
        return at_once(loop, threads, cycles) / (threads * cycles) * 1e9
    began = time.perf_counter()
    loop(cycles)
    return (time.perf_counter() - began) / cycles * 1e9


def at_once(loop: Loop, threads: int, cycles: int) -> float:
    """Seconds from the begin of the first thread to the end of the last. They look at the clock themselves, for whoever
    waits for them may be late."""
    gate = threading.Barrier(threads)
    began: list[float] = []
    ended: list[float] = []

    def work() -> None:
        gate.wait()
        began.append(time.perf_counter())
        loop(cycles)
        ended.append(time.perf_counter())

    running = [threading.Thread(target=work) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return max(ended) - min(began)
