"""What is timed, and what it is measured against: the targets are the project's own, and stand here alone."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

PAIRS = {1: 20_000_000, 2: 20_000_000, 16: 24_000_000, 64: 32_000_000}  # of all threads, in one round; else:
MOST_PAIRS = 64_000_000
SHARE = {"pair": 1.0, "burst": 0.6, "pass": 0.1, "mixed": 0.4}  # of these, by what a pair costs


@dataclass(frozen=True)
class Ours:
    """deferpool, set up in one way."""

    name: str
    cap: int = 32
    portable: bool = False


@dataclass(frozen=True)
class Row:
    """One line of the table: a kind of work by so many threads, us set up in one way, and how we should do."""

    work: str
    threads: int
    ours: Ours
    target: float  # the ratio to be reached
    against: str = "allocators"  # the best of them; or "Go"

    @property
    def title(self) -> str:
        return f"{TITLES[self.work]}{f', cap {self.ours.cap}' if self.work in ('burst', 'pass') else ''}" + (
            ", portable" if self.ours.portable else "") + (f", {GO[self.work]}" if self.against == "Go" else "")


TITLES = {"pair": "pair", "burst": "burst of 1,000", "pass": "producer/consumer", "mixed": "mixed sizes"}
GO = {"pair": "sync.Pool", "burst": "heap defers", "pass": "sync.Pool"}
USUAL = Ours("deferpool")
LARGE = Ours("deferpool, cap 128", cap=128)
PORTABLE = Ours("deferpool, portable", portable=True)


def rows(cores: int) -> list[Row]:
    return list(dict.fromkeys(_rows(cores)))  # where a core or two make two of them one


def _rows(cores: int) -> Iterator[Row]:
    many = (1, cores, 16, 64, 256)
    for threads in many:
        yield Row("pair", threads, USUAL, 0.55 if threads == 256 else 0.50)
    for ours, target in ((USUAL, 0.90), (LARGE, 0.70)):
        for threads in many:
            yield Row("burst", threads, ours, target)
    for ours, target in ((USUAL, 0.50), (LARGE, 0.45)):
        for threads in (2, 16, 64):
            yield Row("pass", threads, ours, target)
    for threads in (1, cores, 16):
        yield Row("mixed", threads, USUAL, 0.80)
    for work in ("pair", "burst"):
        for threads in (1, cores, 16, 64):
            yield Row(work, threads, PORTABLE, 2.0 if threads <= cores else 3.0)
    for work, threads in (("pair", cores), ("burst", cores), ("pass", max(2, cores))):
        yield Row(work, threads, USUAL, 0.33, "Go")


def pairs(work: str, threads: int) -> int:
    """How many in one round, all threads together: enough for each of them to be preempted where there are many."""
    return int(PAIRS.get(threads, MOST_PAIRS) * SHARE[work])
