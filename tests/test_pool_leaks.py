"""Nothing is kept: what a pool's calls refer to is let go, on every way that they can end."""
from __future__ import annotations

import asyncio
import gc
import sys
import warnings
import weakref
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

import pytest
from helpers import all_references
from pool_helpers import Thing, raising

from deferpool import Pool
from stress import machine

CYCLES = 20_000


class Error(Exception): ...


def lease(pool: Pool[Any]) -> None:
    with pool.lease(timeout=2):
        pass


def lease_raises(pool: Pool[Any]) -> None:
    with suppress(Error), pool.lease(timeout=2):
        raise Error


def lease_forgotten(pool: Pool[Any]) -> None:
    pool.lease(timeout=2).__enter__()


def lease_discarded(pool: Pool[Any]) -> None:
    with (it := pool.lease(timeout=2)):
        it.discard()


def pair(pool: Pool[Any]) -> None:
    pool.release(pool.acquire(timeout=2))


def discard(pool: Pool[Any]) -> None:
    pool.discard(pool.acquire(timeout=2))


def refused(pool: Pool[Any]) -> None:
    for call in (lambda: pool.release(None), lambda: pool.acquire(-1), lambda: pool.lease(time=3)):  # type: ignore
        with suppress(TypeError, ValueError):
            call()


def times_out(pool: Pool[Any]) -> None:
    things = [pool.acquire(timeout=2), pool.acquire(timeout=2)]
    with suppress(TimeoutError):
        pool.acquire(timeout=0)
    for thing in things:
        pool.release(thing)


Cycle = Callable[[Pool[Any]], None]
PLAIN: list[Cycle] = [lease, lease_raises, lease_forgotten, lease_discarded, pair, discard, refused]


def new() -> Thing:
    return Thing()


def flat(cycle: Callable[[], object], *watched: object) -> None:
    for _ in range(50):
        cycle()
    gc.collect()
    before, total = [sys.getrefcount(each) for each in watched], all_references()
    objects = len(gc.get_objects())
    for _ in range(CYCLES if machine.has_gil() else CYCLES // 10):
        cycle()
    gc.collect()
    assert [sys.getrefcount(each) for each in watched] == before
    assert abs(all_references() - total) < 100
    assert len(gc.get_objects()) - objects < 50  # fewer: of earlier tests


@pytest.mark.parametrize("options", [{}, {"check": bool, "reset": id}, {"max_live": 2}, {"on_drop": id}], ids=str)
@pytest.mark.parametrize("cycle", PLAIN, ids=lambda cycle: cycle.__name__)
def test_calls(cycle: Cycle, options: dict[str, Any]) -> None:
    pool = Pool(new, **options)
    if cycle is lease_forgotten and "max_live" in options and not machine.has_gil():
        pytest.skip("there an object may end later")
    flat(lambda: cycle(pool), pool, new)
    assert pool.stats()["live"] == 0


def test_waits_that_time_out() -> None:
    pool = Pool(new, max_live=2)
    flat(lambda: times_out(pool), pool, new)


@pytest.mark.parametrize("option", ["new", "reset", "check"])
def test_functions_that_raise(option: str) -> None:
    error = Error()
    options: dict[str, Any] = {"new": new, option: raising(error)}
    pool: Pool[Any] = Pool(**options)

    def cycle() -> None:
        with suppress(Error):
            pair(pool)
            pair(pool)
        error.__traceback__ = None

    flat(cycle, pool, new, error)


def test_tasks() -> None:
    pool = Pool(new, max_live=1)

    async def one() -> None:
        async with pool.lease(timeout=2) as thing:
            waiting = asyncio.ensure_future(pool.acquire_async())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert thing is not None
        with suppress(Error):
            async with pool.lease(timeout=2):
                raise Error

    async def body() -> None:
        for _ in range(50):
            await one()
        gc.collect()
        before = [sys.getrefcount(each) for each in (pool, new)]
        for _ in range(CYCLES // 20):
            await one()
        gc.collect()
        assert [sys.getrefcount(each) for each in (pool, new)] == before

    asyncio.run(body())


@pytest.mark.parametrize("options", [{}, {"max_live": 2}, {"reset": id}, {"debug": True}], ids=str)
def test_a_pool_is_gone_with_its_last_reference(options: dict[str, Any]) -> None:
    pool: Pool[Any] = Pool(new, **options)
    for cycle in (lease, pair, lease_raises):
        cycle(pool)
    kept = pool.lease(timeout=2)
    reference = weakref.ref(pool)
    del pool
    assert reference() is not None
    del kept
    assert reference() is None


class Holder:
    """Refers to itself, so that only the collector ends it, and with it whatever it alone has."""

    def __init__(self) -> None:
        self.me = self
        self.lease: Any = None
        self.pool: Any = None

    def call(self, *_: object) -> Thing:
        return new()


@pytest.mark.parametrize("options", [{}, {"max_live": 2}, {"reset": id, "check": bool}, {"debug": True}], ids=str)
def test_a_lease_that_ends_in_one_cycle_with_its_pool(options: dict[str, Any]) -> None:
    """The collector may have taken on_drop apart by then, so it is not called; but nothing else goes wrong."""
    dropped: list[object] = []
    for _ in range(20):
        pool: Pool[Any] = Pool(new, on_drop=lambda thing: dropped.append(thing), **options)
        holder = Holder()
        holder.lease = pool.lease()
        references = [weakref.ref(pool), weakref.ref(holder.lease.__enter__())]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # with debug: that it was never released
            del pool, holder
            gc.collect()
        assert [reference() for reference in references] == [None, None]
    assert dropped == []


@pytest.mark.parametrize("option", ["new", "reset", "check", "on_drop"])
def test_a_pool_whose_function_refers_to_it(option: str) -> None:
    holder = Holder()
    options: dict[str, Any] = {"new": new, "max_live": 2, option: holder.call}
    holder.pool = Pool(**options)
    pair(holder.pool)
    reference = weakref.ref(holder.pool)
    del holder, options
    gc.collect()
    assert reference() is None


def test_a_task_that_was_served_ends_in_one_cycle_with_its_pool() -> None:
    for _ in range(20):
        pool: Pool[Any] = Pool(new, max_live=1, on_drop=lambda thing: None)
        thing = pool.acquire()
        references: list[Any] = [weakref.ref(pool), weakref.ref(thing)]
        holder = Holder()
        loop = asyncio.new_event_loop()
        holder.lease = loop.create_task(pool.acquire_async())
        holder.lease._log_destroy_pending = False
        loop.run_until_complete(asyncio.sleep(0))
        pool.release(thing)  # the task is served, and its loop does not run any more
        loop.close()
        del pool, thing, loop, holder
        for _ in range(3):
            gc.collect()
        assert [reference() for reference in references] == [None, None]


@pytest.mark.parametrize("used_before", [False, True])
def test_a_generator_that_the_collector_ends_inside_of_a_lease_releases(used_before: bool) -> None:
    """Whether its lease is new or one that was kept: the object is cached again, and leases are as good as ever."""
    dropped: list[object] = []
    pool = Pool(new, on_drop=dropped.append)
    ended: list[str] = []

    def work() -> Generator[Any, Any, None]:
        me = yield
        with pool.lease() as thing:
            try:
                yield thing, me
            finally:
                ended.append(type(thing).__name__)

    for _ in range(20):
        if used_before:
            lease(pool)
        generator = work()
        next(generator)
        generator.send(generator)
        del generator
        gc.collect()
        for _ in range(16):
            lease(pool)
        stats = pool.stats()
        assert (stats["live"], stats["cached"]) == (0, stats["created"])
    assert ended == ["Thing"] * 20
    assert dropped == []


def test_a_lease_that_only_the_collector_can_show_is_refused() -> None:
    lease(Pool(new))
    for kept in [thing for thing in gc.get_objects() if type(thing).__name__ == "Lease"]:
        with pytest.raises(RuntimeError, match="this lease is not in use"):
            kept.__enter__()
        with pytest.raises(RuntimeError, match="this lease is not in use"):
            kept.__aenter__()
