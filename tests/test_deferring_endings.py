"""How generators and coroutines that defer end before their time, by a close, and what is being handled meanwhile."""
from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

import pytest
from exitstack_programs import Once
from helpers import run_now

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


@pytest.mark.parametrize("handling", [False, True])
def test_a_generator_exit_that_is_thrown_has_what_was_in_flight_as_its_context(handling: bool) -> None:
    def throw(made: Any) -> None:
        if not handling:
            made.throw(GeneratorExit)
        try:
            raise KeyError
        except KeyError:
            made.throw(GeneratorExit)

    @deferring
    async def coroutine() -> None:
        defer(Once, 1)
        raise ValueError("in flight")

    made: Any = coroutine()
    made.send(None)
    with pytest.raises(GeneratorExit) as raised:
        throw(made)
    assert repr(raised.value.__context__) == "ValueError('in flight')"


def test_the_exit_of_a_close_knows_what_is_being_handled() -> None:
    seen: list[object] = []

    @deferring
    def generator() -> Generator[int, None, None]:
        @defer
        def _() -> None:
            error = sys.exc_info()[1]
            assert isinstance(error, GeneratorExit)
            seen.append(error.__context__)

        yield 1

    made = generator()
    next(made)
    handled = KeyError()
    try:
        raise handled
    except KeyError:
        made.close()
    assert seen == [handled]
