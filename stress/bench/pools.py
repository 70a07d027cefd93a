"""What it costs to have an object of a Pool, or a BufferPool's memory: beside others, and beside making it.

Each contender keeps as many objects of the same class, and each is called in a loop of the same shape: its calls stand
in it, several times over, so that what a turn of the loop costs is nearly nothing beside them.
"""
from __future__ import annotations

import collections
import itertools
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import deferpool
from stress import machine
from stress.bench import pool_packages
from stress.bench.turns import CYCLES, SCALES, Loop, Row, not_run, timed

KEPT = 16  # objects that each free list holds
WRITTEN = 10  # how many times a loop's statements stand in it
TO_DEQUE = {2: 2.5, 4: 4.0}  # times its throughput, by threads
TO_MAKE_NS = (50, 150, 500, 5000)
TO_BYTEARRAY = {65_536: 8.0, 1_048_576: 100.0}  # times as fast, by bytes
GIL = "with the GIL threads take turns"


class Thing:
    """What is pooled: of a small Python class. The methods are what pools of connections call."""

    def __init__(self) -> None:
        self.value = 0

    def rollback(self) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Contender:
    """A free list or pool. `take` and `give`: calls by names of methods, beginning at the pool or at the object `x`."""

    name: str
    make: Callable[[], object]  # with its objects in it
    take: str
    give: str
    cycles: int = 2 * CYCLES

    def looked_up(self) -> Loop:
        """As calls of methods of the shared object."""
        return written(f"x = {self.take}", self.give, before=["pool = shared"], shared=self.make())

    def bound(self) -> Loop:
        """As calls of bound methods that are in variables; what is a method of the object stays one."""
        take, take_with = self.take.split("(")
        give, give_with = self.give.split("(")
        before = ["pool = shared", f"take = {take}"]
        if give.startswith("pool"):
            before.append(f"give = {give}")
            give = "give"
        return written(f"x = take({take_with}", f"{give}({give_with}", before=before, shared=self.make())


FORMS = ((Contender.looked_up, ""), (Contender.bound, ", bound methods"))


class Local(threading.local):
    """A free list for each thread."""

    def __init__(self) -> None:
        self.items = [Thing() for _ in range(KEPT)]


def filled(pool: Any, put: str) -> Callable[[], object]:
    """What makes a free list and puts its objects in."""
    def make() -> object:
        made = pool()
        for _ in range(KEPT):
            getattr(made, put)(Thing())
        return made
    return make


def pool_of(new: Callable[[], object] = Thing, **options: Any) -> deferpool.Pool[Any]:
    """A Pool with its objects in it."""
    pool = deferpool.Pool(new, **options)
    for item in [pool.acquire() for _ in range(KEPT)]:
        pool.release(item)
    return pool


POOL = Contender("Pool", pool_of, "pool.acquire()", "pool.release(x)")
MADE_BEFORE = Contender("Pool", lambda: pool_of([Thing() for _ in range(1000)].pop), POOL.take, POOL.give)
DEQUE = Contender("collections.deque", filled(collections.deque, "append"), "pool.pop()", "pool.append(x)")
OTHERS = (
    Contender("list", filled(list, "append"), "pool.pop()", "pool.append(x)"),
    Contender("queue.SimpleQueue", filled(queue.SimpleQueue, "put"), "pool.get()", "pool.put(x)"),
    Contender("queue.LifoQueue", filled(queue.LifoQueue, "put"), "pool.get()", "pool.put(x)", CYCLES // 4),
    Contender("threading.local list", Local, "pool.items.pop()", "pool.items.append(x)"),
)


def written(*statements: str, before: Sequence[str] = (), **names: object) -> Loop:
    """A loop of these statements, after those `before`."""
    lines = ["def loop(cycles):", *(f"    {line}" for line in before), f"    for _ in range(cycles // {WRITTEN}):",
             *(f"        {line}" for line in WRITTEN * statements)]
    exec("\n".join(lines), names)
    loop: Loop = names["loop"]  # type: ignore[assignment]
    return loop


# ---- the rows -----------------------------------------------------------------------------------------------------

def rows(cores: int) -> list[Row]:
    return [*_beside_others(), *_at_once(cores), *_leases_and_options(), *_beside_making(), *_buffers(cores)]


def _beside_others() -> Iterator[Row]:
    for how, form in FORMS:
        title = f"acquire, release{form}"
        yield Row(title, DEQUE.name, how(POOL), how(DEQUE), 1 / 1.5, DEQUE.cycles)
        for peer in OTHERS:
            yield Row(title, peer.name, how(POOL), how(peer), 1.0, peer.cycles)
        for package in pool_packages.PACKAGES:
            yield _beside_package(title, package, how)


def _beside_package(title: str, package: pool_packages.Package, how: Callable[[Contender], Loop]) -> Row:
    try:
        peer = Contender(package.name, lambda: package.make(Thing, KEPT), package.take, package.give, CYCLES // 10)
        return Row(title, peer.name, how(POOL), how(peer), 1.0, peer.cycles)
    except Exception as error:  # not installed, or not for this interpreter
        return not_run(title, package.name, 1.0, f"{type(error).__name__}: {error}")


def _at_once(cores: int) -> Iterator[Row]:
    """On one pool. Where threads take turns it says nothing about pools; and not more threads than cores."""
    turns = GIL if machine.has_gil() else ""
    for how, form in FORMS:
        for threads, target in TO_DEQUE.items():
            title = f"acquire, release{form}, {threads} threads"
            why_not = turns or ("" if threads <= cores else f"{cores} cores")
            if why_not:
                yield not_run(title, DEQUE.name, target, why_not)
                continue
            yield Row(title, DEQUE.name, how(POOL), how(DEQUE), target, DEQUE.cycles, threads)
            for peer in OTHERS:
                yield Row(title, peer.name, how(POOL), how(peer), None, peer.cycles, threads)
        title = f"acquire, release{form}, {cores} threads"
        if turns or cores < 2:
            yield not_run(title, "Pool, 1 thread", SCALES * cores, turns or "1 core")
        else:
            loop = how(MADE_BEFORE)  # by none of these threads: each counts references of what another has made
            yield Row(title, "Pool, 1 thread", loop, loop, SCALES * cores, POOL.cycles, cores, 1)


def _leases_and_options() -> Iterator[Row]:
    """Beside a plain pool's acquire and release."""
    lease = written("with pool.lease() as x:", "    pass", before=["pool = shared"], shared=pool_of())
    yield Row("lease", "acquire, release", lease, POOL.looked_up(), 1 / 1.6, POOL.cycles)
    options: dict[str, dict[str, Any]] = {
        "reset": {"reset": lambda item: None}, "check": {"check": lambda item: True}, "max_live": {"max_live": KEPT},
        "debug": {"debug": True}}
    for name, given in options.items():
        with_it = Contender(name, lambda given=given: pool_of(**given), POOL.take, POOL.give)  # type: ignore[misc]
        yield Row(f"acquire, release with {name}", "without", with_it.looked_up(), POOL.looked_up(), None)


def _beside_making() -> Iterator[Row]:
    """Where a pool begins to be worth it."""
    for ns in TO_MAKE_NS:
        kind = that_takes(ns)
        pooled = Contender("", lambda kind=kind: pool_of(kind), POOL.take, POOL.give)  # type: ignore[misc]
        yield Row(f"acquire, release of what takes {ns:,} ns", "making it", pooled.looked_up(), making(kind), None,
                  CYCLES if ns < 1000 else CYCLES // 10)


def _buffers(cores: int) -> Iterator[Row]:
    """With one thread, and without the GIL with one for each core."""
    for count, target in TO_BYTEARRAY.items():
        pools = Contender("BufferPool", lambda count=count: buffers_of(count), f"pool.get({count})",  # type: ignore[misc]
                          "x.release()")
        peer, against = written(f"x = bytearray({count})", "del x"), f"bytearray({count})"
        for threads in dict.fromkeys((1, cores)):
            for how, form in FORMS:
                title = f"get, release of {count:,} bytes{form}{f', {threads} threads' if threads > 1 else ''}"
                if threads > 1 and machine.has_gil():
                    yield not_run(title, against, target, GIL)
                else:
                    yield Row(title, against, how(pools), peer, target, CYCLES // 10, threads)


def buffers_of(count: int) -> deferpool.BufferPool:
    """A BufferPool with one of its buffers in it: its large classes keep no more."""
    pool = deferpool.BufferPool()
    pool.get(count).release()
    return pool


def making(kind: type) -> Loop:
    return written("x = make()", "del x", before=["make = kind"], kind=kind)


def that_takes(ns: float) -> type:
    """A class whose objects take about so long to make and to drop; not less than those that only exist."""
    class Bare:
        pass

    class Counting:
        turns = 0

        def __init__(self) -> None:
            for _ in itertools.repeat(None, self.turns):
                pass

    def takes(kind: type) -> float:
        loop = making(kind)
        return min(timed(loop, 1, 200) for _ in range(25))

    without = takes(Counting)
    if ns < without and abs(ns - takes(Bare)) < without - ns:
        return Bare
    Counting.turns = 200
    a_turn = max(1.0, takes(Counting) - without) / 200
    Counting.turns = max(0, round((ns - without) / a_turn))
    return Counting
