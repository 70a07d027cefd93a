"""thread-exit: a thread that ends leaves nothing behind: caches belong to Ps, not to threads."""
import gc
import threading
from functools import partial

import pytest
from helpers import CountingAllocator, Mode, assert_conserved, burst, fill, in_thread, local, run_threads

import deferpool

WAVES, THREADS = 10, 20
SIZES = (16, 32)


def waves(pool: deferpool.RecordPool) -> None:
    """200 threads, 20 at a time; each takes 30 records and gives them back, twice."""
    for _ in range(WAVES):
        run_threads(*[burst(pool, rounds=2, depth=30, size=SIZES[i % 2]) for i in range(THREADS)])


def test_only_ps_and_the_central_pool_hold_records(mode: Mode) -> None:
    cap, limit = 4, 50
    allocator = CountingAllocator()
    sched = mode.sched(4)
    pool = deferpool.RecordPool(SIZES, cap=cap, limit=limit, sched=sched, allocator=allocator.capsule)
    procs, empty = sched.procs, allocator.meta.out
    waves(pool)
    stats = pool.stats()
    assert_conserved(pool)
    assert (stats["gets"], stats["live"], sched.procs) == (WAVES * THREADS * 60, 0, procs)
    assert [len(counts) for counts in stats["per_p"]] == [2] * procs
    assert local(stats) <= procs * 2 * cap
    assert stats["central"] <= limit
    assert stats["cached"] == allocator.items.out <= pool.bound
    pool.clear()
    assert (allocator.items.out, allocator.meta.out) == (0, empty)
    del pool
    allocator.assert_nothing_left()


def test_one_p_and_clearing_leave_one_share(mode: Mode) -> None:
    cap = 8
    allocator = CountingAllocator()
    sched = mode.sched(4)
    pool = deferpool.RecordPool(SIZES, cap=cap, sched=sched, allocator=allocator.capsule)
    waves(pool)
    before = pool.stats()["created"]
    sched.procresize(1)
    sched.clearpools()
    stats = pool.stats()
    assert stats["cached"] == local(stats) == allocator.items.out <= 2 * cap
    assert (len(stats["per_p"]), stats["central"], stats["created"]) == (1, 0, before)
    assert_conserved(pool)


@pytest.mark.parametrize("limit", [0, 40])
def test_the_two_hundredth_thread_makes_no_more_than_the_first(mode: Mode, limit: int) -> None:
    """One after the other: what a thread gave back is there for the next one, wherever it starts."""
    depth = 20
    allocator = CountingAllocator()
    sched = mode.sched(2)
    pool = deferpool.RecordPool([16], cap=4, limit=limit, sched=sched, allocator=allocator.capsule)
    for _ in range(WAVES * THREADS):
        in_thread(partial(fill, pool, depth))
    assert allocator.items.out == pool.stats()["cached"] <= pool.bound
    if limit:
        assert allocator.items.created <= depth + pool.bound


def test_threads_share_the_ps() -> None:
    """In portable mode each new thread starts on the next P, so all of them are in use, however many came."""
    pool = deferpool.RecordPool([16], cap=4, sched=deferpool.Sched(3, portable=True, clear_on_gc=False))
    for _ in range(50):
        in_thread(partial(fill, pool, 4))
    stats = pool.stats()
    assert (stats["per_p"], stats["created"]) == ([[4]] * 3, 12)


@pytest.mark.parametrize("size", [16, 500])
def test_records_outlive_their_thread(mode: Mode, size: int) -> None:
    """And may be given back by another one."""
    allocator = CountingAllocator()
    pool = deferpool.RecordPool([16], cap=4, limit=20, sched=mode.sched(2), allocator=allocator.capsule)
    records: list[deferpool.Record] = []

    def take() -> None:
        records.extend([pool.new(size) for _ in range(50)])
        for record in records:
            with memoryview(record) as view:
                view[:] = b"\x07" * size

    def give_back() -> None:
        while records:
            with memoryview(records[-1]) as view:
                assert view == b"\x07" * size
            pool.free(records.pop())

    for _ in range(3):
        in_thread(take)
        assert (pool.stats()["live"], len(records)) == (50, 50)
        in_thread(give_back)
        assert_conserved(pool)
        assert pool.stats()["live"] == 0
    assert allocator.items.out == pool.stats()["cached"] <= pool.bound


def test_records_of_a_thread_that_fails(mode: Mode) -> None:
    """What it still had goes back with its frame, which the exception keeps, in a cycle."""
    pool = deferpool.RecordPool([16], cap=4, sched=mode.sched(2))

    def work() -> None:
        held = [pool.new(16) for _ in range(10)]
        raise RuntimeError(len(held))

    for _ in range(5):
        with pytest.raises(RuntimeError, match="^10$"):
            in_thread(work)
    gc.collect()
    assert pool.stats()["live"] == 0
    assert_conserved(pool)


def test_pools_of_a_thread_that_ended(mode: Mode) -> None:
    """Made in one thread, used in a second, dropped in a third."""
    allocator = CountingAllocator()
    sched = mode.sched(2)
    pools: list[deferpool.RecordPool] = []

    def make() -> None:
        pools.append(deferpool.RecordPool(SIZES, cap=4, sched=sched, allocator=allocator.capsule))

    for _ in range(20):
        in_thread(make)
        in_thread(lambda: fill(pools[0], 100))
        assert pools[0].stats()["cached"] == 100
        in_thread(pools.clear)
        allocator.assert_nothing_left()
    assert sched.stats()["pools"] == []


def test_thread_locals_are_dropped_at_the_end(mode: Mode) -> None:
    """A handle in thread-local storage is given back while its thread ends."""
    pool = deferpool.RecordPool([16], sched=mode.sched(2))
    storage = threading.local()

    def work() -> None:
        storage.held = [pool.new(16) for _ in range(40)]

    run_threads(*[work] * 8)
    stats = pool.stats()
    assert (stats["live"], stats["gets"], stats["puts"]) == (0, 320, 320)
    assert_conserved(pool)
