"""How a pool ends: closed, drained, dropped with what refers to it; and nothing is left in it."""
from __future__ import annotations

import threading
from typing import Any

import pytest
from helpers import Mode, one_cpu, output_of, run_threads
from pool_helpers import Thing, assert_at_rest, fill, raising, small

from deferpool import Pool


def test_closed() -> None:
    dropped: list[Any] = []
    pool = Pool(Thing, on_drop=dropped.append, name="tired")
    out, also, cached = (pool.acquire() for _ in range(3))
    pool.release(cached)
    assert not pool.closed
    pool.close()
    pool.close()
    assert pool.closed
    assert dropped == [cached]
    for acquire in (pool.acquire, pool.lease().__enter__, lambda: pool.acquire(timeout=1)):
        with pytest.raises(RuntimeError, match="'tired' of Thing> is closed"):
            acquire()
    pool.release(out)
    pool.discard(also)
    assert dropped == [cached, out, also]
    assert_at_rest(pool)
    pool.drain()


def test_a_closed_pool_does_not_reset_what_it_drops() -> None:
    pool = Pool(Thing, reset=raising(AssertionError()))
    thing = pool.acquire()
    pool.close()
    pool.release(thing)
    assert_at_rest(pool)


def test_closed_by_its_own_reset() -> None:
    dropped: list[Any] = []
    pool: Pool[Thing] = Pool(Thing, reset=lambda _: pool.close(), on_drop=dropped.append)
    thing = pool.acquire()
    pool.release(thing)
    assert dropped == [thing]
    assert_at_rest(pool)
    assert pool.stats()["cached"] == 0


def test_closed_by_its_own_on_drop(mode: Mode) -> None:
    """In the middle of a release that spills."""
    dropped: list[Any] = []

    def on_drop(thing: Thing) -> None:
        dropped.append(thing)
        pool.close()

    pool = small(mode, cap=2, limit=0, on_drop=on_drop)
    with one_cpu(mode):
        fill(pool, 8)
    assert len(dropped) == len(set(map(id, dropped))) == 8
    assert pool.stats()["cached"] == 0
    assert_at_rest(pool)


def test_drain_says_how_many_are_out() -> None:
    pool = Pool(Thing)
    things = [pool.acquire() for _ in range(3)]
    with pytest.raises(TimeoutError, match="3 of .* are still out"):
        pool.drain(timeout=0.01)
    assert pool.closed
    for thing in things:
        pool.release(thing)
    pool.drain(timeout=0)


def test_drained_by_its_own_on_drop() -> None:
    """What is being dropped is not out."""
    pool: Pool[Thing] = Pool(Thing, on_drop=lambda _: pool.drain(timeout=0))
    fill(pool, 40)
    pool.close()
    assert_at_rest(pool)
    assert pool.stats()["cached"] == 0


def test_all_who_drain_are_told() -> None:
    pool = Pool(Thing)
    thing = pool.acquire()
    begun = threading.Barrier(4)

    def drain() -> None:
        begun.wait()
        pool.drain(timeout=60)

    def release() -> None:
        begun.wait()
        while not pool.closed:
            pass
        pool.release(thing)

    run_threads(drain, drain, drain, release)
    assert_at_rest(pool)


def closed_while_three_threads_fill(mode: Mode) -> tuple[Pool[Any], list[Any]]:
    dropped: list[Any] = []
    pool = small(mode, cap=8, on_drop=dropped.append)

    def use() -> None:
        try:
            while True:
                fill(pool, 20)
        except RuntimeError:
            pass

    def close() -> None:
        while pool.stats()["created"] < 20:
            pass
        pool.close()

    run_threads(use, use, use, close)
    return pool, dropped


def test_a_closed_pool_keeps_nothing_of_a_refill(mode: Mode) -> None:
    """A thread may have had it in hand when the pool was emptied."""
    for _ in range(40):
        pool, dropped = closed_while_three_threads_fill(mode)
        stats = pool.stats()
        assert stats["cached"] == 0
        assert_at_rest(pool, live=stats["live"])
        assert len(dropped) == stats["destroyed"]


@pytest.mark.parametrize("what", ["pools", "leases"])
def test_long_chains_end_in_turn(what: str) -> None:
    """A pool that holds a pool that holds ...; a lease whose object is a lease whose object ..."""
    code = f"""if True:
        import gc
        from deferpool import Pool
        gc.disable()
        last = object()
        if {what == 'pools'}:
            for _ in range(4000):
                pool = Pool(list)
                pool.release(last)
                last = pool
            del pool
        else:
            pool = Pool(lambda: last)
            for _ in range(200000):
                lease = pool.lease()
                lease.__enter__()
                last = lease
            del lease
        del last
        print("ended")
    """
    assert output_of(code) == "ended"
