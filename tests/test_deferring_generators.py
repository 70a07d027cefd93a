"""Deferred calls of generators, coroutines and asynchronous generators. Each test is a row of docs/defer.md."""
from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import threading
import traceback
import warnings
import weakref
from collections.abc import AsyncGenerator, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

import deferpool
from deferpool import defer, deferring, recover


@deferring
def counting(log: list[Any], n: int) -> Generator[int, Any, str]:
    defer(log.append, "deferred")
    for i in range(n):
        sent = yield i
        if sent is not None:
            log.append(sent)
    return "returned"


# ---- generators ----------------------------------------

def test_a_generator_that_ends() -> None:
    log: list[Any] = []

    def outer() -> Generator[int, None, None]:
        log.append((yield from counting(log, 2)))

    assert list(outer()) == [0, 1]
    assert log == ["deferred", "returned"]


def test_a_generator_is_sent_to() -> None:
    log: list[Any] = []
    made = counting(log, 3)
    assert next(made) == 0
    assert made.send("sent") == 1
    assert log == ["sent"]


def test_a_generator_that_is_closed() -> None:
    log: list[Any] = []
    made = counting(log, 3)
    next(made)
    made.close()
    assert log == ["deferred"]


def test_a_generator_that_never_began() -> None:
    log: list[Any] = []
    counting(log, 3).close()
    counting(log, 3)
    assert log == []


def test_a_generator_that_is_forgotten() -> None:
    log: list[Any] = []
    made = counting(log, 3)
    next(made)
    del made
    gc.collect()
    assert log == ["deferred"]


def test_an_exception_thrown_into_a_generator() -> None:
    log: list[Any] = []
    made = counting(log, 3)
    next(made)
    with pytest.raises(KeyError) as caught:
        made.throw(KeyError("thrown"))
    assert log == ["deferred"]
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names == [sys._getframe().f_code.co_name, "counting"]


def test_a_generator_recovers() -> None:
    @deferring
    def fails() -> Generator[int, None, str]:
        @defer
        def stops() -> None:
            recover(returning="recovered")

        yield 1
        raise ValueError

    made = fails()
    assert next(made) == 1
    with pytest.raises(StopIteration) as ended:
        next(made)
    assert ended.value.value == "recovered"


def test_generator_exit_is_not_recovered() -> None:
    log: list[Any] = []

    @deferring
    def function() -> Generator[int, None, None]:
        defer(lambda: log.append(recover()))
        yield 1

    made = function()
    next(made)
    made.close()
    assert log == [None]


def test_generators_between_each_other() -> None:
    """Each keeps its own, in whatever order they are resumed."""
    logs: list[list[Any]] = [[], []]
    both = [counting(log, 2) for log in logs]
    assert [next(made) for made in both] == [0, 0]
    assert [next(made) for made in both] == [1, 1]
    both[0].close()
    assert logs == [["deferred"], []]
    both[1].close()
    assert logs == [["deferred"], ["deferred"]]


def test_a_context_manager() -> None:
    log: list[Any] = []

    @contextmanager
    @deferring
    def managed() -> Generator[str, None, None]:
        defer(log.append, "deferred")
        yield "value"

    with managed() as value:
        log.append(value)
    with pytest.raises(KeyError), managed():
        raise KeyError
    assert log == ["value", "deferred", "deferred"]


def test_a_helper_in_a_generator_cannot_defer() -> None:
    def helper() -> None:
        defer(print)

    @deferring
    def function() -> Generator[None, None, None]:
        defer(list)
        yield
        helper()

    made = function()
    next(made)
    with pytest.raises(RuntimeError, match="helper"):
        next(made)


def test_a_generator_that_is_passed_from_thread_to_thread() -> None:
    """Taken on one, deferred on another, run on a third."""
    log: list[Any] = []

    @deferring
    def function() -> Generator[None, None, None]:
        for i in range(8):
            defer(log.append, i)
            yield

    made = function()
    for _ in range(9):
        thread = threading.Thread(target=next, args=(made, None))
        thread.start()
        thread.join()
    assert log == list(range(7, -1, -1))


# ---- coroutines ----------------------------------------

def test_a_coroutine() -> None:
    log: list[Any] = []

    async def cleanup(name: str) -> None:
        await asyncio.sleep(0)
        log.append(name)

    @deferring
    async def function() -> int:
        defer(cleanup, "awaited")
        defer(log.append, "called")
        await asyncio.sleep(0)
        log.append("body")
        return 3

    assert asyncio.run(function()) == 3
    assert log == ["body", "called", "awaited"]


def test_any_awaitable_is_awaited() -> None:
    log: list[Any] = []

    class Awaitable:
        def __await__(self) -> Generator[Any, None, None]:
            yield from asyncio.sleep(0).__await__()
            log.append("awaitable")

    async def note() -> None:
        log.append("task")

    @deferring
    async def function() -> None:
        defer(Awaitable)
        defer(lambda: asyncio.ensure_future(note()))
        defer(asyncio.get_running_loop().create_future().cancel)

    asyncio.run(function())
    assert log == ["task", "awaitable"]


def test_an_awaited_one_that_raises_does_not_stop_the_others() -> None:
    log: list[Any] = []

    async def fails() -> None:
        await asyncio.sleep(0)
        raise KeyError

    @deferring
    async def function() -> None:
        defer(log.append, 1)
        defer(fails)
        raise ValueError

    with pytest.raises(KeyError) as caught:
        asyncio.run(function())
    assert log == [1]
    assert isinstance(caught.value.__context__, ValueError)


def test_an_awaited_one_recovers() -> None:
    log: list[Any] = []

    async def stops() -> None:
        await asyncio.sleep(0)
        log.append(recover(returning=5))
        await asyncio.sleep(0)

    @deferring
    async def deferring_stops() -> None:
        defer(recover, returning=6)
        await asyncio.sleep(0)

    @deferring
    async def function(cleanup: Any) -> Any:
        defer(cleanup)
        await asyncio.sleep(0)
        raise ValueError("x")

    assert asyncio.run(function(stops)) == 5
    assert repr(log) == "[ValueError('x')]"
    assert asyncio.run(function(deferring_stops)) == 6


def test_a_helper_of_an_awaited_one_does_not_recover() -> None:
    async def helper() -> None:
        assert recover() is None

    async def cleanup() -> None:
        await helper()

    @deferring
    async def function() -> None:
        defer(cleanup)
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        asyncio.run(function())


def test_an_awaited_one_sees_the_exception_in_flight() -> None:
    log: list[Any] = []

    async def look() -> None:
        log.append(repr(sys.exc_info()[1]))
        await asyncio.sleep(0)
        log.append(repr(sys.exc_info()[1]))

    @deferring
    async def function() -> None:
        defer(look)
        raise ValueError

    with pytest.raises(ValueError, match="^$"):
        asyncio.run(function())
    assert log == ["ValueError()"] * 2


def test_a_task_that_is_cancelled() -> None:
    log: list[Any] = []

    async def cleanup() -> None:
        await asyncio.sleep(0)
        log.append(recover())

    @deferring
    async def function() -> None:
        defer(cleanup)
        await asyncio.sleep(60)

    async def main() -> None:
        task = asyncio.ensure_future(function())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    asyncio.run(main())
    assert log == [None]


def test_a_task_that_is_cancelled_while_it_cleans_up() -> None:
    log: list[Any] = []

    @deferring
    async def function() -> None:
        defer(log.append, "last")
        defer(asyncio.sleep, 60)

    async def main() -> None:
        task = asyncio.ensure_future(function())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(main())
    assert log == ["last"]


def test_tracebacks_of_coroutines_show_user_code_only() -> None:
    async def fails() -> None:
        raise KeyError

    @deferring
    async def inner() -> None:
        defer(fails)
        raise ValueError

    @deferring
    async def outer() -> None:
        defer(lambda: None)
        await inner()

    with pytest.raises(KeyError) as caught:
        run_now(outer())
    assert caught.value.__context__ is not None
    names = [[frame.name for frame in traceback.extract_tb(error.__traceback__)]
             for error in (caught.value, caught.value.__context__)]
    assert names == [[sys._getframe().f_code.co_name, "run_now", "outer", "fails"], ["inner"]]


def run_now(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        while True:
            coroutine.send(None)
    except StopIteration as ended:
        return ended.value


def test_a_coroutine_that_is_never_awaited_says_so_once() -> None:
    @deferring
    async def forgotten() -> None: ...

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _ = forgotten()
        del _
        gc.collect()
    assert [str(warning.message) for warning in caught] == [
        "coroutine 'test_a_coroutine_that_is_never_awaited_says_so_once.<locals>.forgotten' was never awaited"]


def test_a_coroutine_that_moves_from_thread_to_thread() -> None:
    """Its records are taken on one P and given back on another."""
    log: list[Any] = []

    class Switch:
        def __await__(self) -> Generator[None, None, None]:
            yield

    @deferring
    async def function() -> None:
        for i in range(50):
            defer(log.append, i)
            await Switch()

    coroutine = function()

    def resume() -> None:
        try:
            coroutine.send(None)
        except StopIteration:
            log.append("ended")

    for _ in range(51):
        thread = threading.Thread(target=resume)
        thread.start()
        thread.join()
    assert log == [*range(49, -1, -1), "ended"]


def test_a_thousand_tasks_at_once() -> None:
    ended: list[int] = []

    async def cleanup(i: int) -> None:
        await asyncio.sleep(0)
        ended.append(i)

    @deferring
    async def function(i: int) -> int:
        defer(cleanup, i)
        await asyncio.sleep(0)
        return i

    async def main() -> list[int]:
        return await asyncio.gather(*(function(i) for i in range(1000)))

    assert asyncio.run(main()) == list(range(1000))
    assert sorted(ended) == list(range(1000))


# ---- asynchronous generators ----------------------------------------

@deferring
async def counting_slowly(log: list[Any], n: int) -> AsyncGenerator[int, Any]:
    async def cleanup() -> None:
        await asyncio.sleep(0)
        log.append("deferred")

    defer(cleanup)
    for i in range(n):
        await asyncio.sleep(0)
        try:
            sent = yield i
        except KeyError as error:
            log.append(repr(error))
        else:
            if sent is not None:
                log.append(sent)


def test_an_asynchronous_generator() -> None:
    log: list[Any] = []

    async def main() -> None:
        async for i in counting_slowly(log, 2):
            log.append(i)
        made = counting_slowly(log, 5)
        assert await made.asend(None) == 0
        assert await made.asend("sent") == 1
        assert await made.athrow(KeyError("thrown")) == 2
        await made.aclose()

    asyncio.run(main())
    assert log == [0, 1, "deferred", "sent", "KeyError('thrown')", "deferred"]


def test_an_exception_leaves_an_asynchronous_generator() -> None:
    log: list[Any] = []

    async def main() -> None:
        made = counting_slowly(log, 5)
        await made.__anext__()
        with pytest.raises(OSError, match="thrown") as caught:
            await made.athrow(OSError("thrown"))
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert names == ["main", "counting_slowly"]

    asyncio.run(main())
    assert log == ["deferred"]


def test_an_asynchronous_context_manager() -> None:
    log: list[Any] = []

    @asynccontextmanager
    @deferring
    async def managed() -> AsyncGenerator[int, None]:
        defer(log.append, "deferred")
        yield 1

    async def main() -> None:
        async with managed() as value:
            log.append(value)

    asyncio.run(main())
    assert log == [1, "deferred"]


# ---- garbage ----------------------------------------

def test_a_cycle_through_a_deferred_call_is_collected() -> None:
    class Node:
        made: Any = None

    @deferring
    def function(node: Node) -> Generator[None, None, None]:
        defer(id, node)
        yield

    node = Node()
    node.made = function(node)
    next(node.made)
    seen = weakref.ref(node)
    del node
    gc.collect()
    assert seen() is None


def test_records_of_a_forgotten_generator_go_back() -> None:
    def live() -> int:
        return int(deferpool.stats()["live"])

    before = live()
    made = [counting([], 3) for _ in range(100)]
    for each in made:
        next(each)
    assert live() == before + 100
    made.clear()
    del each
    gc.collect()
    assert live() == before


def test_what_drives_is_not_to_be_used_by_hand() -> None:
    made = counting([], 1)
    body = inspect.getgeneratorlocals(made)["body"]
    kind: Any = type(body)
    with pytest.raises(TypeError):
        kind()
    by_hand = kind.__new__(kind)
    with pytest.raises(RuntimeError):
        by_hand.send(None)
    with pytest.raises(KeyError):
        by_hand.throw(KeyError())
    assert by_hand.close() is None
    assert by_hand.takes is False
    assert by_hand.returned is False


def test_what_drives_cannot_be_used_from_within() -> None:
    made: list[Any] = []
    errors: list[str] = []

    @deferring
    def generator() -> Generator[None, None, None]:
        body = made[0].gi_yieldfrom or inspect.getgeneratorlocals(made[0])["body"]
        for use in (lambda: body.send(None), body.close, lambda: body.throw(KeyError())):
            with pytest.raises(ValueError, match="^generator already executing$") as raised:
                use()
            errors.append(str(raised.value))
        defer(errors.append, "deferred")
        yield

    made.append(generator())
    list(made[0])
    assert errors == ["generator already executing"] * 3 + ["deferred"]


class Collecting:
    """Its method is called with its first argument written where the number of arguments stood."""

    def collect(self, *arguments: object) -> None:
        gc.collect()


def test_a_collection_while_a_deferred_method_runs() -> None:
    @deferring
    def generator() -> Generator[None, None, None]:
        defer(Collecting().collect, 1, 2)
        yield

    @deferring
    async def coroutine() -> None:
        defer(Collecting().collect)
        defer(Collecting().collect, 1)

    for _ in generator():
        pass
    run_now(coroutine())
