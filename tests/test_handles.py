"""Handles keep their pool, however many threads end them at once, and no longer than they live."""
from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

import deferpool


def test_a_handle_keeps_its_pool() -> None:
    pool = deferpool.RecordPool([16])
    seen = weakref.ref(pool)
    records = [pool.new(16) for _ in range(3)]
    del pool
    gc.collect()
    assert all(record.pool is seen() for record in records)
    memoryview(records[0])[0] = 1
    records.pop()
    gc.collect()
    assert seen() is not None
    records.clear()
    gc.collect()
    assert seen() is None


def test_a_pool_that_is_found_again_by_its_handle_is_as_before() -> None:
    pool = deferpool.RecordPool([16])
    seen = weakref.ref(pool)
    first = pool.new(16)
    del pool
    gc.collect()
    again = first.pool
    second = again.new(16)
    again.free(first)
    with pytest.raises(ValueError, match="double free"):
        again.free(first)
    del first, again
    gc.collect()
    assert second.pool is seen()
    assert second.pool.stats()["live"] == 1
    third = second.pool.new(16)
    del second
    gc.collect()
    assert third.pool is seen()
    del third
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize("outside", [True, False])
def test_a_pool_that_the_collector_finds_before_its_handle_asks_for_it(outside: bool) -> None:
    """Weak references end first: a handle that is asked before, or later, must find its pool all the same."""
    asked = []

    class Cycle:
        def __init__(self) -> None:
            self.me = self
            self.pool = deferpool.RecordPool([16])
            self.record = self.pool.new(16)

        def __del__(self) -> None:
            asked.append(type(self.record.pool))

    cycle = Cycle()
    kept = [cycle.record] if outside else []
    del cycle
    gc.collect()
    assert asked == [deferpool.RecordPool]
    for record in kept:
        record.pool.free(record)


def test_a_pool_without_handles_ends_at_once() -> None:
    pool = deferpool.RecordPool([16])
    seen = weakref.ref(pool)
    for _ in range(10):
        pool.free(pool.new(16))
    del pool
    assert seen() is None


@pytest.mark.parametrize("threads", [2, 4])
def test_the_last_handles_end_on_many_threads_at_once(threads: int) -> None:
    barrier = threading.Barrier(threads + 1)
    handed: list[list[deferpool.Record]] = [[] for _ in range(threads)]
    rounds = 300

    def work(mine: list[deferpool.Record]) -> None:
        for _ in range(rounds):
            barrier.wait()
            while mine:
                assert mine.pop().pool is not None
            barrier.wait()

    with ThreadPoolExecutor(threads) as executor:
        done = [executor.submit(work, mine) for mine in handed]
        for _ in range(rounds):
            pool = deferpool.RecordPool([16])
            seen = weakref.ref(pool)
            for mine in handed:
                mine += [pool.new(16) for _ in range(5)]
            barrier.wait()
            del pool  # somewhere among the last of them
            barrier.wait()
            assert seen() is None
        for each in done:
            each.result()


def test_pools_that_are_dropped_before_their_handles_leave_nothing() -> None:
    def live() -> int:
        gc.collect()
        return len(deferpool.stats()["pools"])

    before = live()
    for _ in range(20_000):
        pool = deferpool.RecordPool([16], cap=2, limit=0)
        record = pool.new(16)
        del pool
        del record
    assert live() == before
