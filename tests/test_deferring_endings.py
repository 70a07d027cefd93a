"""How generators and coroutines that defer end by other means than their own: a close, an event loop, the collector."""
from __future__ import annotations

import asyncio
import gc
import sys
import types
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

import pytest
from deferring_helpers import noting_its_end
from exitstack_programs import Once
from helpers import output_of, run_now

from deferpool import Goexit, defer, deferring, goexit, recover

# ---- close ----------------------------------------

def closings(wrap: bool) -> list[Any]:
    """What is seen by what runs last, and what comes of it, in functions that take a close in four ways."""
    seen: list[Any] = []

    def last() -> None:
        error = sys.exc_info()[1]
        seen.append((repr(error), repr(error.__context__) if error else None))

    def made(body: Callable[[], Generator[Any, Any, Any]]) -> Generator[Any, Any, Any]:
        @deferring
        def deferred() -> Generator[Any, Any, Any]:
            defer(last)
            return (yield from body())

        def nested() -> Generator[Any, Any, Any]:
            try:
                return (yield from body())
            finally:
                last()

        return deferred() if wrap else nested()

    def falls() -> Generator[Any, Any, Any]:
        yield 1

    def returns() -> Generator[Any, Any, Any]:
        try:
            yield 1
        except GeneratorExit:
            return 5

    def raises() -> Generator[Any, Any, Any]:
        try:
            yield 1
        except GeneratorExit:
            raise KeyError("k") from None

    def was_thrown_into() -> Generator[Any, Any, Any]:
        try:
            yield 1
        except ValueError:
            yield 2

    for body in (falls, returns, raises, was_thrown_into):
        generator = made(body)
        next(generator)
        if body is was_thrown_into:
            generator.throw(ValueError("thrown"))
        try:
            seen.append(generator.close())  # type: ignore[func-returns-value]
        except KeyError as error:
            seen.append(repr(error))
    return seen


def test_a_close_is_as_with_finally() -> None:
    assert closings(True) == closings(False)


def test_a_close_that_is_ignored_loses_nothing() -> None:
    log: list[str] = []

    @deferring
    def generator() -> Generator[int, None, None]:
        defer(log.append, "first")
        defer(log.append, "last")
        try:
            yield 1
        except GeneratorExit:
            yield 2
        finally:
            log.append("finally")

    made = generator()
    next(made)
    with pytest.raises(RuntimeError, match="^generator ignored GeneratorExit$"):
        made.close()
    assert log == ["finally", "last", "first"]


def test_an_asynchronous_generator_that_ignores_a_close_ends_nevertheless() -> None:
    log: list[str] = []

    @deferring
    async def generator() -> AsyncGenerator[int, None]:
        defer(log.append, "deferred")
        try:
            try:
                await Once(1)
            except GeneratorExit:
                log.append("ignored")
                await Once(1)
            yield 1
        finally:
            log.append("finally")

    made: Any = generator()
    step = made.asend(None)
    assert step.send(None) == 1
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        step.throw(GeneratorExit)
    del step, made
    assert log == ["ignored", "finally", "deferred"]


def test_a_close_does_not_hide_what_cleans_up() -> None:
    async def fails() -> None:
        try:
            await Once(1)
        finally:
            raise AttributeError("of its own")

    @deferring
    async def coroutine() -> None:
        defer(fails)

    made = coroutine()
    made.send(None)
    with pytest.raises(AttributeError, match="of its own"):
        made.close()


def test_a_coroutine_that_is_closed_while_it_cleans_up() -> None:
    log: list[Any] = []

    async def waits() -> None:
        try:
            await Once(1)
        except GeneratorExit:
            log.append("closed")
            raise

    @deferring
    async def coroutine() -> None:
        defer(log.append, "first")
        defer(waits)
        raise KeyError("in flight")

    made = coroutine()
    made.send(None)
    made.close()
    assert log == ["closed", "first"]


# ---- what is being handled ----------------------------------------

def test_after_a_recover_by_an_awaited_one_nothing_is_handled() -> None:
    seen: list[object] = []

    async def stops() -> None:
        await Once(1)
        seen.append(repr(recover()))

    @deferring
    async def coroutine() -> None:
        defer(lambda: seen.append(sys.exc_info()[1]))
        defer(stops)
        raise ValueError("old")

    made = coroutine()
    made.send(None)
    with pytest.raises(StopIteration):
        made.send(None)
    assert seen == ["ValueError('old')", None]


def test_what_was_thrown_into_an_asynchronous_generator_is_over_when_it_is() -> None:
    seen: list[object] = []

    @deferring
    async def generator() -> AsyncGenerator[int, None]:
        try:
            yield 1
        except KeyError as error:
            seen.append(repr(error))
        seen.append(sys.exc_info()[1])
        yield 2

    async def use() -> None:
        made = generator()
        await made.__anext__()
        seen.append(await made.athrow(KeyError("k")))

    run_now(use())
    assert seen == ["KeyError('k')", None, 2]


def test_a_recover_in_what_cleans_up_during_goexit() -> None:
    """A Goexit that is being handled further out is not what a recovered exception came in place of."""
    log: list[str] = []

    @deferring
    def safe() -> None:
        @defer
        def _() -> None:
            log.append(repr(recover()))
        raise ValueError("inner")

    def cleanup() -> None:
        log.append("begins")
        safe()
        log.append("ends")

    @deferring
    def ending() -> None:
        defer(cleanup)
        goexit()

    with pytest.raises(Goexit):
        ending()
    assert log == ["begins", "ValueError('inner')", "ends"]
    try:
        goexit()
    except Goexit:
        safe()


def test_what_makes_an_iterator_sees_the_exception_in_flight() -> None:
    class Fails:
        def __await__(self) -> Any:
            raise KeyError(repr(sys.exc_info()[1]))

    @deferring
    async def coroutine() -> None:
        defer(Fails)
        raise ValueError("in flight")

    with pytest.raises(KeyError, match="ValueError") as raised:
        run_now(coroutine())
    assert isinstance(raised.value.__context__, ValueError)


def test_a_coroutine_that_somebody_awaits_is_not_awaited_again() -> None:
    async def waits() -> None:
        await Once(1)
        await Once(1)

    shared = waits()
    shared.send(None)

    @deferring
    async def coroutine() -> None:
        defer(lambda: shared)

    with pytest.raises(RuntimeError, match="^coroutine is being awaited already$"):
        run_now(coroutine())
    shared.close()


# ---- asynchronous generators and event loops ----------------------------------------

@pytest.mark.parametrize("cycle", [False, True])
def test_an_event_loop_closes_an_asynchronous_generator_once(cycle: bool) -> None:
    """At its end, and when the collector has found one: it knows of one generator only, and that one ends the other."""
    log: list[object] = []

    @deferring
    async def generator(box: list[Any]) -> AsyncGenerator[int, None]:
        defer(log.append, "deferred")
        try:
            yield 1
        finally:
            log.append("finally begins")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            log.append("finally ends")

    kept: list[Any] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: log.append(context["message"]))
        box: list[Any] = []
        box.append(generator(box))
        await box[0].__anext__()
        if cycle:
            del box
            gc.collect()
            for _ in range(20):
                await asyncio.sleep(0)
        else:
            kept.append(box)

    asyncio.run(main())
    assert log == ["finally begins", "finally ends", "deferred"]


def test_a_loop_that_forgets_a_generator_does_not_lose_what_it_has_deferred() -> None:
    log: list[str] = []

    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(finalizer=lambda _: None)
    try:
        made: Any = noting_its_end(log)
        with pytest.raises(StopIteration):
            made.__anext__().send(None)
        del made
        gc.collect()
    finally:
        sys.set_asyncgen_hooks(*hooks)
    assert log == ["finally", "deferred"]


def test_hooks_of_a_loop_are_left_alone() -> None:
    """Nobody is told that they change, for they do not: neither an audit nor a function that is begun at the limit."""
    code = """if True:
        import sys
        from deferpool import defer, deferring
        def audit(event, arguments):
            if event.startswith("sys.set_asyncgen"):
                raise RuntimeError(event)
        hooks = sys.get_asyncgen_hooks()
        sys.addaudithook(audit)
        @deferring
        async def generator(deeper):
            defer(int)
            if deeper:
                async for _ in generator(deeper - 1):
                    pass
            yield
        def use(deep):
            async def all():
                async for _ in generator(deep):
                    pass
            try:
                all().send(None)
            except StopIteration:
                return "done"
            except RecursionError:
                return "RecursionError"
        print(use(1), use(100_000), sys.get_asyncgen_hooks() == hooks)
    """
    assert output_of(code) == "done RecursionError True"


# ---- the collector ----------------------------------------

def test_a_cycle_ends_by_what_drives_it() -> None:
    """So the function's own finally clause may defer still."""
    log: list[object] = []

    @deferring
    def generator(box: list[Any]) -> Generator[None, None, None]:
        try:
            yield
        finally:
            defer(log.append, "generator")

    @deferring
    async def coroutine(box: list[Any]) -> None:
        try:
            await Once(1)
        finally:
            defer(log.append, "coroutine")

    def leave(make: Callable[[list[Any]], Any]) -> None:
        box: list[Any] = []
        box.append(make(box))
        box[0].send(None)

    for make in (generator, coroutine) * 20:
        leave(make)
        gc.collect()
    assert log == ["generator", "coroutine"] * 20


# ---- kinds of functions ----------------------------------------

def test_a_generator_of_types_coroutine() -> None:
    log: list[object] = []

    async def later() -> None:
        log.append("awaited")

    @deferring
    @types.coroutine
    def waits() -> Generator[int, Any, str]:
        defer(log.append, "deferred")
        defer(later)
        yield 1
        return "returned"

    async def use() -> None:
        log.append(await waits())

    made = use()
    assert made.send(None) == 1
    with pytest.raises(StopIteration):
        made.send(None)
    assert log == ["awaited", "deferred", "returned"]
    with pytest.raises(TypeError, match="cannot be replaced: put @deferring above what does that"):
        types.coroutine(generator)


def test_a_coroutine_that_recurses_to_the_limit() -> None:
    log: list[int] = []

    @deferring
    async def deeper(n: int) -> None:
        defer(log.append, n)
        await deeper(n + 1)

    with pytest.raises(RecursionError):
        run_now(deeper(0))
    assert log == [*reversed(range(len(log)))]
    assert len(log) > 50


class MakesNone(Exception):
    def __new__(cls) -> Any:
        return 5


@pytest.mark.parametrize("thrown", [int, 5, "error", MakesNone])
def test_what_is_thrown_must_be_an_exception(thrown: Any) -> None:
    class Iterates:
        def __await__(self) -> Any:
            return iter([1])

    @deferring
    async def coroutine() -> None:
        defer(Iterates)

    made = coroutine()
    made.send(None)
    with pytest.raises(TypeError, match="BaseException, not"):
        made.throw(thrown)


@pytest.mark.parametrize("given", ["5", "a coroutine"])
def test_what_is_awaited_must_give_an_iterator(given: str) -> None:
    async def nothing() -> None:
        pass

    kept = nothing() if given == "a coroutine" else 5

    class Wrong:
        def __await__(self) -> Any:
            return kept

    @deferring
    async def coroutine() -> None:
        defer(Wrong)

    with pytest.raises(TypeError, match=r"^__await__\(\) returned "):
        run_now(coroutine())
    if given == "a coroutine":
        kept.close()  # type: ignore[union-attr]


def test_comprehensions_in_each_other() -> None:
    log: list[object] = []

    @deferring
    def function() -> None:
        [[defer(log.append, (i, j)) for j in range(2)] for i in range(2)]

    @deferring
    def recovering() -> None:
        @defer
        def _() -> None:
            log.append([repr(recover()) for _ in (1,)])
        raise KeyError("k")

    function()
    recovering()
    assert log == [(1, 1), (1, 0), (0, 1), (0, 0), ["KeyError('k')"]]


def test_a_comprehension_with_nothing_below() -> None:
    code = """if True:
        import _thread, deferpool, time, types
        def below():
            try:
                deferpool.defer(print)
            except RuntimeError as error:
                told.append(str(error))
        told = []
        below = types.FunctionType(below.__code__.replace(co_name="<listcomp>"), globals())
        _thread.start_new_thread(below, ())
        while not told:
            time.sleep(0.001)
        print("which is not @deferring" in told[0])
    """
    assert output_of(code) == "True"


@deferring
def function() -> None:
    pass


@deferring
def generator() -> Generator[None, None, None]:
    yield


def test_one_that_was_not_made_by_deferring_is_not_called() -> None:
    kind: Any = type(function)
    blank = kind.__new__(kind)
    for call in (blank, blank.__call__):
        with pytest.raises(TypeError):
            call()


def test_defaults_are_the_functions() -> None:
    @deferring
    def function(a: int = 1, *, b: int = 2) -> tuple[int, int]:
        return a, b

    made: Any = function
    made.__defaults__ = (3,)
    made.__kwdefaults__ = {"b": 4}
    assert function() == (3, 4)
    with pytest.raises(TypeError, match="cannot be replaced"):
        made.__code__ = made.__code__


def test_methods_that_python_makes_class_methods() -> None:
    log: list[object] = []

    class Base:
        @deferring
        def __init_subclass__(cls) -> None:
            defer(log.append, cls.__name__)

        @deferring
        def __class_getitem__(cls, item: object) -> object:
            defer(log.append, item)
            return cls

    class Derived(Base):
        pass

    assert Derived[int] is Derived  # type: ignore[misc]
    assert log == ["Derived", int]


def test_greenlets_that_are_imported_meanwhile() -> None:
    pytest.importorskip("greenlet")
    code = """if True:
        import _thread, deferpool, time
        told = []
        @deferpool.deferring
        def function():
            import greenlet
            deferpool.defer(told.append, "deferred")
        _thread.start_new_thread(function, ())
        while not told:
            time.sleep(0.001)
        print(told)
    """
    assert output_of(code) == "['deferred']"
