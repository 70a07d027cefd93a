"""acquire_async and async with: tasks wait their turn, and can be cancelled at any moment."""
from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Coroutine
from typing import Any

import pytest
from helpers import Mode
from pool_helpers import Thing, assert_at_rest, raising, small

from deferpool import Pool


def run(body: Coroutine[Any, Any, object]) -> None:
    asyncio.run(asyncio.wait_for(body, 60))


def one_waits(pool: Pool[Any]) -> tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]:
    """In a loop that has stopped since."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(pool.acquire_async())
    loop.run_until_complete(asyncio.sleep(0))
    assert pool.stats()["waiting"] == 1
    return loop, task


def end(task: asyncio.Task[Any]) -> None:
    """One whose loop will not."""
    task.get_coro().close()  # type: ignore[union-attr, unused-ignore]
    task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_acquire_and_lease(mode: Mode) -> None:
    pool = small(mode)

    async def body() -> None:
        thing = await pool.acquire_async()
        pool.release(thing)
        async with pool.lease() as again:
            assert_at_rest(pool, live=1)
            assert again is thing or mode.name == "sections"  # which may have gone to another P
        assert_at_rest(pool)
        with pytest.raises(KeyError):
            async with pool.lease():
                raise KeyError
        assert_at_rest(pool)

    run(body())


def test_the_loop_runs_on_while_a_task_waits(mode: Mode) -> None:
    pool = small(mode, max_live=1)
    thing = pool.acquire()
    ticks = []

    async def tick() -> None:
        for _ in range(20):
            ticks.append(1)
            await asyncio.sleep(0)
        pool.release(thing)

    async def body() -> None:
        got, _ = await asyncio.gather(pool.acquire_async(), tick())
        assert got is thing
        assert len(ticks) == 20

    run(body())


def test_nobody_is_passed_over_by_later_ones_in_10_000_waits(mode: Mode) -> None:
    """Tasks line up in the order of their numbers; threads give back what the tasks have taken."""
    waits, most = 10_000, 3
    pool = small(mode, max_live=most)
    served: list[int] = []
    first = [pool.acquire() for _ in range(most)]

    def give_back(things: list[Thing]) -> None:
        for thing in things:
            pool.release(thing)

    async def wait_in_line(number: int, loop: asyncio.AbstractEventLoop) -> None:
        thing = await pool.acquire_async()
        served.append(number)
        if number % 50:
            pool.release(thing)
        else:
            await loop.run_in_executor(None, pool.release, thing)

    async def body() -> None:
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(wait_in_line(number, loop)) for number in range(waits)]
        await asyncio.sleep(0)
        assert pool.stats()["waiting"] == waits
        threading.Thread(target=give_back, args=(first,)).start()
        await asyncio.gather(*tasks)

    run(body())
    assert served == list(range(waits))
    assert_at_rest(pool)
    assert pool.stats()["created"] == most


class SlowToHear(asyncio.SelectorEventLoop):
    """The first thread that calls is held back until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.called = 0
        self.go = threading.Event()

    def call_soon_threadsafe(self, *arguments: Any, **more: Any) -> Any:  # type: ignore[override]
        self.called += 1
        if self.called == 1:
            assert self.go.wait(60)
        return super().call_soon_threadsafe(*arguments, **more)


def test_who_was_served_first_goes_on_first_though_its_loop_hears_of_it_later(mode: Mode) -> None:
    pool = small(mode, max_live=2)
    things = [pool.acquire(), pool.acquire()]
    loop = SlowToHear()
    served: list[int] = []

    async def use(number: int) -> None:
        async with pool.lease(timeout=30):
            served.append(number)
            if number == 1:
                loop.go.set()

    async def body() -> None:
        tasks = [loop.create_task(use(number)) for number in range(3)]
        await asyncio.sleep(0)
        slow = threading.Thread(target=pool.release, args=(things[0],))
        slow.start()
        while not loop.called:
            await asyncio.sleep(0.001)
        pool.release(things[1])
        await asyncio.gather(*tasks)
        slow.join()

    try:
        loop.run_until_complete(body())
    finally:
        loop.close()
    assert served == [0, 1, 2]
    assert_at_rest(pool)


def test_a_closed_loop_keeps_nobody_else_from_going_on_in_turn(mode: Mode) -> None:
    """What the first of two event loops was told it never hears."""
    pool = small(mode, max_live=1)
    thing = pool.acquire()
    closed, task = one_waits(pool)
    pool.release(thing)  # its loop is told, and does not run any more
    closed.close()
    end(task)
    del task
    gc.collect()

    async def body() -> None:
        for _ in range(100):
            async with pool.lease(timeout=30):
                others = [asyncio.ensure_future(pool.acquire_async(30)) for _ in range(3)]
                await asyncio.sleep(0)
            for other in others:
                pool.release(await other)

    run(body())
    assert_at_rest(pool)


def test_cancelled_at_every_await(mode: Mode) -> None:
    """After each number of turns of the loop: while it waits, served but not knowing it yet, while it has it."""
    for turns in range(12):
        pool = small(mode, max_live=1)
        thing = pool.acquire()

        async def use(pool: Pool[Any] = pool) -> None:
            async with pool.lease():
                await asyncio.sleep(0)
                await asyncio.sleep(0)

        async def body(pool: Pool[Any] = pool, thing: Any = thing, turns: int = turns) -> None:
            task = asyncio.ensure_future(use())
            for turn in range(turns):
                await asyncio.sleep(0)
                if turn == 3:
                    pool.release(thing)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if turns <= 3:
                pool.release(thing)
            assert pool.stats()["waiting"] == 0
            assert await pool.acquire_async(timeout=0) is thing
            pool.release(thing)
            assert_at_rest(pool)

        run(body())


def test_cancelled_and_served_in_the_same_turn(mode: Mode) -> None:
    pool = small(mode, max_live=1)
    thing = pool.acquire()

    async def body() -> None:
        first = asyncio.ensure_future(pool.acquire_async())
        second = asyncio.ensure_future(pool.acquire_async())
        await asyncio.sleep(0)
        pool.release(thing)
        first.cancel()  # it has been served, and must not keep it
        assert await second is thing
        with pytest.raises(asyncio.CancelledError):
            await first

    run(body())
    assert pool.stats()["waiting"] == 0
    pool.release(thing)
    assert_at_rest(pool)


def test_time_out(mode: Mode) -> None:
    pool = small(mode, max_live=1)
    thing = pool.acquire()

    async def body() -> None:
        for timeout in (0, 0.005):
            with pytest.raises(TimeoutError, match="nothing became free"):
                await pool.acquire_async(timeout=timeout)
            with pytest.raises(TimeoutError):
                async with pool.lease(timeout):
                    raise AssertionError
        with pytest.raises(ValueError, match="timeout must not be negative"):
            await pool.acquire_async(-1)
        waiting = asyncio.ensure_future(pool.acquire_async(timeout=30))
        await asyncio.sleep(0.001)
        pool.release(thing)
        assert await waiting is thing

    run(body())
    assert pool.stats()["waiting"] == 0


def test_wait_for_of_the_standard_library(mode: Mode) -> None:
    pool = small(mode, max_live=1)
    thing = pool.acquire()

    async def body() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(pool.acquire_async(), 0.005)

    run(body())
    pool.release(thing)
    assert pool.acquire(timeout=0) is thing


def test_threads_and_tasks_in_one_line(mode: Mode) -> None:
    pool = small(mode, max_live=2)
    used = []

    def thread() -> None:
        for _ in range(200):
            with pool.lease(timeout=30) as thing:
                used.append(thing)

    async def task() -> None:
        for _ in range(200):
            async with pool.lease(timeout=30) as thing:
                used.append(thing)
                await asyncio.sleep(0)

    async def body() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*[task() for _ in range(8)], *[loop.run_in_executor(None, thread) for _ in range(3)])

    run(body())
    assert len(used) == 11 * 200
    assert pool.stats()["created"] == 2
    assert_at_rest(pool)


def test_a_task_whose_loop_has_ended_does_not_keep_what_it_is_served(mode: Mode) -> None:
    pool = small(mode, max_live=1)
    thing = pool.acquire()
    loop, task = one_waits(pool)
    loop.close()
    pool.release(thing)
    assert pool.stats()["waiting"] == 0
    assert pool.acquire(timeout=0) is thing
    pool.release(thing)
    end(task)
    assert_at_rest(pool)


def test_thousands_of_tasks_whose_loop_has_ended(mode: Mode) -> None:
    pool = small(mode, max_live=1)
    thing = pool.acquire()
    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(pool.acquire_async()) for _ in range(20_000)]
    loop.run_until_complete(asyncio.sleep(0))
    assert pool.stats()["waiting"] == 20_000
    loop.close()
    pool.release(thing)
    assert pool.stats()["waiting"] == 0
    assert pool.acquire(timeout=0) is thing
    pool.release(thing)
    for task in tasks:
        end(task)
    assert_at_rest(pool)


class Unsteady(asyncio.SelectorEventLoop):
    """Its call_soon_threadsafe raises now and then, before or after it has done its work: as when a signal comes."""

    raises: list[BaseException | None]
    after = False

    def call_soon_threadsafe(self, *arguments: Any, **more: Any) -> Any:  # type: ignore[override]
        error = self.raises.pop(0) if self.raises else None
        if error is not None and not self.after:
            raise error
        handle = super().call_soon_threadsafe(*arguments, **more)
        if error is not None:
            raise error
        return handle


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError, RuntimeError, TimeoutError])
def test_an_exception_while_a_task_is_woken(kind: type[BaseException], after: bool, mode: Mode) -> None:
    """It comes out of the release, in the main thread; no object is lost or given to two."""
    pool = small(mode, max_live=1)
    thing = pool.acquire()
    loop = Unsteady()
    loop.after = after
    loop.raises = []
    told: list[BaseException] = []
    served: list[int] = []

    async def user(number: int) -> None:
        async with pool.lease(timeout=5):
            served.append(number)
            assert pool.stats()["live"] == 1
            await asyncio.sleep(0)

    async def body() -> None:
        tasks = [asyncio.ensure_future(user(number)) for number in range(3)]
        await asyncio.sleep(0)
        loop.raises = [kind("now")]
        try:
            pool.release(thing)
            for _ in range(1_000):
                pass
        except kind as error:
            told.append(error)
        await asyncio.gather(*tasks)

    try:
        loop.run_until_complete(body())
    finally:
        loop.close()
    assert sorted(served) == [0, 1, 2]
    assert len(told) == 1
    assert pool.stats()["waiting"] == 0
    assert_at_rest(pool)


def test_whoever_is_woken_may_run_finalizers_that_wait(mode: Mode) -> None:
    """In the middle of a release a finalizer acquires, and what it waits for another thread gives back."""
    pool = small(mode, max_live=2)
    a, b = pool.acquire(), pool.acquire()
    got: list[Any] = []

    class Loop(asyncio.SelectorEventLoop):
        def call_soon_threadsafe(self, *arguments: Any, **more: Any) -> Any:  # type: ignore[override]
            if not got:
                got.append(None)
                thread = threading.Thread(target=pool.release, args=(b,))
                thread.start()
                got.append(pool.acquire(timeout=10))  # as a finalizer would that happens to run here
                thread.join()
            return super().call_soon_threadsafe(*arguments, **more)

    loop = Loop()

    async def body() -> None:
        task = asyncio.ensure_future(pool.acquire_async())
        await asyncio.sleep(0)
        pool.release(a)
        got.append(await task)

    try:
        loop.run_until_complete(body())
    finally:
        loop.close()
    assert set(got) == {None, a, b}
    for thing in (a, b):
        pool.release(thing)
    assert_at_rest(pool)


def test_a_coroutine_that_is_never_awaited_takes_nothing(mode: Mode) -> None:
    pool = small(mode, max_live=1)
    pool.acquire_async().close()
    waiting = pool.acquire_async()
    thing = pool.acquire()

    async def body() -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(waiting)
        await asyncio.sleep(0)
        assert pool.stats()["waiting"] == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(body())
    assert pool.stats()["waiting"] == 0
    pool.release(thing)
    assert_at_rest(pool)


def test_closed_while_a_task_waits(mode: Mode) -> None:
    pool = small(mode, max_live=1)
    thing = pool.acquire()

    async def body() -> None:
        task = asyncio.ensure_future(pool.acquire_async())
        await asyncio.sleep(0)
        pool.close()
        with pytest.raises(RuntimeError, match="is closed"):
            await task
        with pytest.raises(RuntimeError, match="is closed"):
            await pool.acquire_async()

    run(body())
    pool.release(thing)
    assert_at_rest(pool)


def test_what_new_raises(mode: Mode) -> None:
    pool = small(mode, new=raising(ValueError("no")), max_live=1)

    async def body() -> None:
        for _ in range(3):
            with pytest.raises(ValueError, match="no"):
                await pool.acquire_async()
            with pytest.raises(ValueError, match="no"):
                async with pool.lease():
                    pass

    run(body())
    assert_at_rest(pool)


def test_a_lease_in_use_cannot_be_entered_again(mode: Mode) -> None:
    pool = small(mode)

    async def body() -> None:
        lease = pool.lease()
        async with lease:
            with pytest.raises(RuntimeError, match="in use already"):
                await lease.__aenter__()
        with pytest.raises(RuntimeError, match="not in use"):
            await lease.__aexit__(None, None, None)

    run(body())
    assert_at_rest(pool)


def test_a_timer_goes_with_its_wait(mode: Mode) -> None:
    pool = small(mode, max_live=1)

    async def body() -> None:
        loop = asyncio.get_running_loop()
        before = len(loop._scheduled)  # type: ignore[attr-defined]
        for _ in range(20):
            thing = await pool.acquire_async()
            task = asyncio.ensure_future(pool.acquire_async(timeout=3600))
            await asyncio.sleep(0)
            assert pool.stats()["waiting"] == 1
            pool.release(thing)
            pool.release(await task)
        timers = [each for each in loop._scheduled if not each.cancelled()]  # type: ignore[attr-defined]
        assert len(timers) <= before

    run(body())
