"""What AsyncExitStack's methods return: awaited, cancelled, closed, forgotten."""
import asyncio
import contextlib
import gc
import re
import sys
import types
import warnings
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any

import pytest
from exitstack_helpers import (
    BOTH,
    AsyncStack,
    Manager,
    error_of,
    fails,
    run,
)
from exitstack_programs import Once
from helpers import output_of

FREE_THREADED = not getattr(sys, "_is_gil_enabled", lambda: True)()


def test_cancelled_in_the_middle() -> None:
    """A task cancelled while an exit waits: the other exits see the CancelledError, and the task is cancelled."""
    async def use(module: Any) -> tuple[list[object], bool]:
        log: list[object] = []
        waiting = asyncio.Event()

        async def waits() -> None:
            waiting.set()
            try:
                await asyncio.sleep(60)
            finally:
                log.append(type(sys.exc_info()[1]))
                await asyncio.sleep(0)
                log.append("slept")

        async def sees(*details: object) -> None:
            await asyncio.sleep(0)
            log.append(details[0])

        async def work() -> None:
            async with module.AsyncExitStack() as stack:
                stack.push_async_exit(sees)
                stack.callback(log.append, "sync")
                stack.push_async_callback(waits)

        task = asyncio.create_task(work())
        await waiting.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return log, task.cancelled()

    theirs, ours = (asyncio.run(use(module)) for module in BOTH)
    assert ours == theirs == ([asyncio.CancelledError, "slept", "sync", asyncio.CancelledError], True)


def test_tasks() -> None:
    """What the async methods return is good for asyncio.run, tasks and gather."""
    log: list[object] = []

    async def work() -> None:
        stack, other = AsyncStack(), AsyncStack()
        stack.push_async_callback(asyncio.sleep, 0)
        stack.callback(log.append, 1)
        await asyncio.create_task(stack.aclose())
        assert isinstance(await asyncio.create_task(other.enter_async_context(Manager())), Manager)
        other.callback(log.append, 2)
        await asyncio.gather(other.aclose(), asyncio.wait_for(stack.aclose(), 1))
        task = asyncio.ensure_future(stack.__aexit__(None, None, None))
        assert "__aexit__" in repr(task)
        assert task.get_stack() == []
        assert await task is False

    asyncio.run(work())
    asyncio.run(AsyncStack().aclose())
    assert log == [1, 2]


def test_generators_of_asyncio() -> None:
    log: list[object] = []

    @contextlib.asynccontextmanager
    async def resource(name: str) -> AsyncGenerator[str, None]:
        try:
            yield name
        except ValueError as error:
            log.append(error)
            raise KeyError(name) from error
        finally:
            await asyncio.sleep(0)
            log.append(name)

    async def work() -> None:
        async with AsyncStack() as stack:
            assert await stack.enter_async_context(resource("outer")) == "outer"
            await stack.enter_async_context(resource("inner"))
            raise ValueError

    error = error_of(lambda: asyncio.run(work()))
    assert isinstance(error, KeyError)
    assert [log[0], *log[1:]] == [error.__cause__, "inner", "outer"]


def test_results() -> None:
    """True only for an exception that was suppressed; False, and not None, otherwise."""
    async def suppresses(*details: object) -> bool:
        return True

    stack = AsyncStack()
    assert run(stack.__aexit__(None, None, None)) is False
    stack.push_async_exit(suppresses)
    assert run(stack.__aexit__(None, None, None)) is False
    stack.push_async_exit(suppresses)
    assert run(stack.__aexit__(ValueError, ValueError(), None)) is True
    assert run(stack.aclose()) is None
    assert run(stack.__aenter__()) is stack

    async def awaits() -> list[object]:
        return [await stack.__aexit__(None, None, None), await stack.aclose(), await stack.__aenter__(),
                await stack.enter_async_context(Manager(suppress=True)),
                await stack.__aexit__(ValueError, ValueError(), None)]

    first, second, third, fourth, fifth = run(awaits())
    assert (first, second, third, fifth) == (False, None, stack, True)
    assert isinstance(fourth, Manager)


def test_results_of_all_kinds() -> None:
    """What __aenter__ returns is the result, be it a tuple or an exception; and each is its own."""
    class Returns(Manager):
        def __init__(self, result: Any) -> None:
            self.result = result

        async def __aenter__(self) -> Any:
            return self.result

    results = [(), (1, 2), ValueError(1), StopIteration(2), None, False, [3]]

    async def work() -> list[object]:
        stack = AsyncStack()
        return [await stack.enter_async_context(Returns(result)) for result in results]

    assert all(ours is result for ours, result in zip(run(work()), results, strict=True))
    for result in results:
        entering = AsyncStack().enter_async_context(Returns(result))
        stop = error_of(lambda entering=entering: entering.send(None))  # type: ignore[misc]
        assert isinstance(stop, StopIteration)
        assert stop.value is result
    stops = []
    for result in results:  # they are kept, and so must be different
        try:
            AsyncStack().enter_async_context(Returns(result)).__next__()
        except StopIteration as stop:
            stops.append(stop)
    assert all(stop.value is result for stop, result in zip(stops, results, strict=True))
    assert len({id(stop) for stop in stops}) == len(results)


def test_never_awaited() -> None:
    for method in ("aclose", "__aenter__"):
        with pytest.warns(RuntimeWarning, match=f"coroutine 'AsyncExitStack.{method}' was never awaited"):
            getattr(AsyncStack(), method)()
    log: list[object] = []
    stack = AsyncStack()
    stack.callback(log.append, 1)
    stack.aclose().close()  # neither a warning nor a callback
    assert log == []


def test_the_collector_runs_while_one_ends() -> None:
    """In a weak reference's callback, for one; and whoever hears of one that was never awaited may keep such a one."""
    code = """if True:
        import deferpool, gc, warnings, weakref
        for again in range(20):
            coroutine = deferpool.AsyncExitStack().aclose()
            try:
                coroutine.send(None)
            except StopIteration:
                pass
            seen = weakref.ref(coroutine, lambda _: gc.collect())
            del coroutine
        seen = []
        warnings._showwarnmsg_impl = lambda message: seen.append(weakref.ref(message.source))
        warnings.simplefilter("always")
        for again in range(20):
            deferpool.AsyncExitStack().aclose()
        print(len(seen), {each() for each in seen})
    """
    assert output_of(code) == "20 {None}"


@pytest.mark.parametrize(
    "link", ["last = stack.enter_async_context(last)", "stack.callback(last); last = stack.pop_all()",
             "stack = deferpool.AsyncExitStack(); stack.callback(last); last = stack",
             "stack = Heir(); stack.callback(last); last = stack"]
)
def test_long_chains_end_on_a_small_stack(link: str) -> None:
    code = f"""if True:
        import deferpool, threading, warnings
        warnings.simplefilter("ignore")

        class Heir(deferpool.ExitStack):
            def __del__(self):
                ended.append(1)

        ended = []

        def make_and_drop():
            stack, last = deferpool.AsyncExitStack(), None
            for each in range(100_000):
                {link}
            del last, stack

        threading.stack_size(256 << 10)
        thread = threading.Thread(target=make_and_drop)
        thread.start()
        thread.join()
        print(len(ended))
    """
    assert output_of(code) == ("100000" if "Heir" in link else "0")


def test_ended_by_hand() -> None:
    """A class with a finalizer has __del__, and anybody may call it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(3):  # a coroutine is used again
            stack, entered = AsyncStack(), Manager()
            gone = weakref.ref(stack)
            coroutine = stack.enter_async_context(entered)
            before = sys.getrefcount(entered)
            coroutine.__del__()
            del coroutine, stack
            gc.collect()
            assert gone() is None
            assert sys.getrefcount(entered) < before


def test_what_was_awaited_is_collected() -> None:
    """Where a result is told by a StopIteration that is used again, the collector must see what it holds."""
    class Entered:
        entering: object

        async def __aenter__(self) -> "Entered":
            return self

        async def __aexit__(self, *details: object) -> None:
            pass

    async def warm() -> None:
        for _ in range(5):
            async with AsyncStack():
                pass

    async def enter(entered: Entered) -> None:
        async with AsyncStack() as stack:
            entered.entering = stack.enter_async_context(entered)
            await entered.entering  # type: ignore[misc]

    seen = []
    for _ in range(20):
        run(warm())
        gc.collect()
        entered = Entered()
        seen.append(weakref.ref(entered))
        run(enter(entered))
        del entered
    gc.collect()
    assert [each() for each in seen] == [None] * 20


class StopHere(StopIteration):
    def __init__(self) -> None:  # and StopIteration's own is not called
        pass


class Throws:
    """Is awaited, and what it does when something is thrown into it is told."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error

    def __await__(self) -> "Throws":
        return self

    def __iter__(self) -> "Throws":
        return self

    def __next__(self) -> int:
        return 1

    def throw(self, *given: object) -> None:
        if self.error is not None:
            raise self.error


class ReturnsCoroutine:
    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __await__(self) -> object:
        @types.coroutine
        def generator() -> Generator[int, None, None]:
            yield 1

        async def coroutine() -> None:
            pass

        return generator() if self.kind == "generator" else coroutine()


def ending(coroutine: Any, *thrown: BaseException) -> object:
    """What comes of it, started or not: with the exception that it has been given."""
    try:
        for error in thrown:
            try:
                raise KeyError("handled by the caller")
            except KeyError:
                coroutine.throw(error)
        return run(coroutine)
    except BaseException as error:
        return type(error), str(error), repr(error.__cause__), repr(error.__context__)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize(
    "body",
    [lambda stack: ending(stack.aclose(), ValueError("first")),
     lambda stack: ending(stack.aclose(), GeneratorExit()),
     lambda stack: ending(stack.aclose(), StopIteration(5)),
     lambda stack: (stack.push_async_callback(lambda: fails(StopIteration(3))), ending(stack.aclose())),
     lambda stack: (stack.push_async_callback(lambda: Throws(ValueError("i"))), started(stack.aclose(), KeyError())),
     lambda stack: (stack.push_async_callback(lambda: Once(1)), started(stack.aclose(), KeyError("in"))),
     lambda stack: (stack.push_async_callback(lambda: ReturnsCoroutine("generator")), ending(stack.aclose())),
     lambda stack: (stack.push_async_callback(lambda: ReturnsCoroutine("coroutine")), ending(stack.aclose())),
     lambda stack: ending(delegated(stack.aclose)),
     lambda stack: error_of(lambda: stack.aclose().throw())],
    ids=lambda body: str(body.__code__.co_firstlineno))
def test_ends_as_theirs(body: Callable[[Any], object]) -> None:
    """And the other exits see the same."""
    told = []
    for module in BOTH:
        stack, seen = module.AsyncExitStack(), list[str]()
        stack.push(lambda *details, seen=seen: seen.append(repr(details[1])))
        told.append((re.sub(" at 0x[0-9a-f]+", "", repr(body(stack))), seen))
    assert told[0] == told[1]


def started(coroutine: Any, error: BaseException) -> object:
    coroutine.send(None)
    return ending(coroutine, error)


@types.coroutine
def delegated(make: Callable[[], Any]) -> Generator[Any, Any, Any]:
    return (yield from make())


def test_a_stop_iteration_without_a_value() -> None:
    stack = AsyncStack()
    stack.push_async_callback(lambda: Throws(StopHere()))
    closing = stack.aclose()
    closing.send(None)
    with pytest.raises(StopIteration) as stopped:
        closing.throw(KeyError())
    assert stopped.value.value is None


def test_dropped_in_the_middle() -> None:
    """What a coroutine does that nobody goes on with: it is closed, and its other exits run."""
    for module in BOTH:
        log: list[object] = []

        async def waits(log: list[object] = log) -> None:
            try:
                await Once("waiting")
            except GeneratorExit:
                log.append("closed")
                raise

        stack = module.AsyncExitStack()
        stack.push(lambda *details, log=log: log.append(details[0]))
        stack.push_async_callback(waits)
        closing = stack.__aexit__(None, None, None)
        assert closing.send(None) == "waiting"
        del closing
        gc.collect()
        assert log == ["closed", GeneratorExit]


def test_while_running() -> None:
    for module in BOTH:
        stack = module.AsyncExitStack()
        own: list[Any] = [stack.aclose()]
        stack.callback(lambda own=own: own[0].send(None))
        with pytest.raises(ValueError, match="coroutine already executing"):
            own[0].send(None)
        other = module.AsyncExitStack()
        other.push_async_callback(lambda: Once(1))
        closing = other.aclose()
        closing.send(None)

        async def awaits(what: Awaitable[object]) -> None:
            await what

        with pytest.raises(RuntimeError, match="being awaited already"):
            awaits(closing).send(None)
        closing.close()


def test_what_is_awaited_is_closed_whoever_has_it() -> None:
    """Not only for being forgotten: somebody else may keep it."""
    class Awaited:
        def __init__(self) -> None:
            self.closed = 0

        def __await__(self) -> Any:
            return self

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> None:
            return None

        def close(self) -> None:
            self.closed += 1

    for module in BOTH:
        stack = module.AsyncExitStack()
        awaited = Awaited()
        stack.push_async_callback(lambda awaited=awaited: awaited)
        leaving = stack.aclose()
        leaving.send(None)
        leaving.close()
        assert awaited.closed == 1
