"""resize: after procresize(n) the Ps from n up hold nothing, and nothing is lost; nobody is stopped for it."""
import gc
from collections.abc import Callable
from typing import Any

import pytest
from helpers import CPUS, CountingAllocator, Mode, assert_conserved, burst, fill, in_thread, local, run_threads

import deferpool


def test_returns_the_number_before(mode: Mode) -> None:
    sched = mode.sched(4)
    before = sched.procs
    assert sched.procresize(7) == before
    assert sched.procresize(7) == 7
    assert sched.procs == 7


@pytest.mark.parametrize("n", [1, 2, 3])
def test_removed_ps_hold_nothing(n: int) -> None:
    """In portable mode a new thread starts on the next P: four of them, one by one, fill four Ps."""
    sched = deferpool.Sched(4, portable=True, clear_on_gc=False)
    pool = deferpool.RecordPool([16], cap=8, sched=sched)
    for _ in range(4):
        in_thread(lambda: fill(pool, 8))
    full = pool.stats()
    assert full["per_p"] == [[8]] * 4
    sched.procresize(n)
    stats = pool.stats()
    assert stats["per_p"] == [[8]] * n
    assert stats["central"] == (4 - n) * 8
    assert stats["cached"] == 32
    assert_conserved(pool)
    assert pool.bound == n * 8 + 1024


def take_and_drop(pool: Any) -> None:
    taken = [pool.new(1) if isinstance(pool, deferpool.RecordPool) else pool.get(1) for _ in range(8)]
    del taken


@pytest.mark.parametrize("kind", [deferpool.RecordPool, deferpool.BufferPool])
def test_a_pool_that_a_finalizer_has_saved_follows(kind: Callable[..., Any]) -> None:
    """The collector had ended the weak reference by which the Sched knew it."""
    sched = deferpool.Sched(4, portable=True, clear_on_gc=False)
    saved: list[Any] = []

    class Cycle:
        def __init__(self) -> None:
            self.me = self
            self.pool = kind([4096], cap=8, limit=0, sched=sched)

        def __del__(self) -> None:
            saved.append(self.pool)

    Cycle()
    gc.collect()
    pool = saved[0]
    for _ in range(4):
        in_thread(lambda: take_and_drop(saved[0]))
    assert pool.stats()["cached"] == 32 == sched.stats()["cached"]
    sched.procresize(1)
    assert pool.stats()["cached"] == 8 == pool.bound
    saved.clear()
    del pool
    gc.collect()
    assert sched.stats()["pools"] == []


def test_past_the_limit_it_goes_to_the_allocator() -> None:
    allocator = CountingAllocator()
    sched = deferpool.Sched(4, portable=True, clear_on_gc=False)
    pool = deferpool.RecordPool([16], cap=8, limit=10, sched=sched, allocator=allocator.capsule)
    for _ in range(4):
        in_thread(lambda: fill(pool, 8))
    sched.procresize(1)
    stats = pool.stats()
    assert (stats["cached"], stats["central"], stats["dropped"]) == (18, 10, 14)
    assert allocator.items.out == 18 == pool.bound


def test_new_ps_are_used() -> None:
    sched = deferpool.Sched(1, portable=True, clear_on_gc=False)
    pool = deferpool.RecordPool([16], cap=8, sched=sched)
    sched.procresize(3)
    for _ in range(6):
        in_thread(lambda: fill(pool, 8))
    assert pool.stats()["per_p"] == [[8]] * 3


def test_every_pool_of_the_sched_follows(mode: Mode) -> None:
    sched = mode.sched(2)
    pools = [deferpool.RecordPool([16], sched=sched) for _ in range(5)]
    sched.procresize(1024)
    late = deferpool.RecordPool([16], sched=sched)
    for pool in (*pools, late):
        fill(pool, 100)
        assert len(pool.stats()["per_p"]) == 1024
    sched.procresize(1)
    for pool in (*pools, late):
        assert pool.stats()["cached"] == 100
        assert_conserved(pool)


def test_nothing_is_lost_while_threads_run(mode: Mode) -> None:
    """Up and down, through both modes where the machine has two."""
    allocator = CountingAllocator()
    sched = mode.sched(2)
    pool = deferpool.RecordPool([16], cap=8, limit=64, sched=sched, allocator=allocator.capsule)

    def resize() -> None:
        for n in (1, 8, 2, 16, 3, CPUS) * 15:
            sched.procresize(n)

    run_threads(*[burst(pool, rounds=60, depth=25)] * 6, resize, resize)
    assert_conserved(pool)
    stats = pool.stats()
    assert stats["live"] == 0
    assert stats["cached"] == allocator.items.out <= pool.bound
    assert local(stats) + stats["central"] == allocator.items.out
    assert sched.mode == mode.name


def test_pools_come_and_go_meanwhile(mode: Mode) -> None:
    sched = mode.sched(2)

    def make() -> None:
        for _ in range(60):
            pool = deferpool.RecordPool([16, 32], cap=4, sched=sched)
            fill(pool, 20)
            assert pool.stats()["created"] >= 20
            del pool

    def resize() -> None:
        for n in (1, 8, 2, 16, 3, CPUS) * 10:
            sched.procresize(n)

    run_threads(make, make, resize)
    assert sched.stats()["pools"] == []


@pytest.mark.parametrize("n", [0, -1, 1025, 2**40])
def test_bad_numbers_change_nothing(mode: Mode, n: int) -> None:
    sched = mode.sched(2)
    before = sched.procs
    with pytest.raises(ValueError, match=rf"procs must be from 1 to 1024, not {n}"):
        sched.procresize(n)
    assert sched.procs == before


def test_large_caches_of_removed_ps_are_emptied_to_the_last() -> None:
    sched = deferpool.Sched(4, portable=True, clear_on_gc=False)
    pool = deferpool.RecordPool([16], cap=1000, limit=None, sched=sched)
    for _ in range(4):
        in_thread(lambda: fill(pool, 999))
    assert pool.stats()["per_p"] == [[999]] * 4
    sched.procresize(1)
    assert pool.stats()["central"] == 3 * 999
    assert_conserved(pool)
