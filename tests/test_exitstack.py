"""ExitStack and AsyncExitStack beside contextlib's: whatever both are asked, they say the same."""
from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

import pytest

import deferpool

KINDS: list[Any] = [contextlib.ExitStack, deferpool.ExitStack]
ASYNC_KINDS: list[Any] = [contextlib.AsyncExitStack, deferpool.AsyncExitStack]


class Manager:
    def __init__(self, log: list[Any], suppresses: Any = False, raises: BaseException | None = None) -> None:
        self.log, self.suppresses, self.raises = log, suppresses, raises

    def __enter__(self) -> str:
        self.log.append("enter")
        return "entered"

    def __exit__(self, *details: Any) -> Any:
        self.log.append(("exit", details[0], repr(details[1]), details[2] is not None, repr(sys.exc_info()[1])))
        if self.raises is not None:
            raise self.raises
        return self.suppresses

    async def __aenter__(self) -> str:
        await asyncio.sleep(0)
        return self.__enter__()

    async def __aexit__(self, *details: Any) -> Any:
        await asyncio.sleep(0)
        return self.__exit__(*details)


def chain(error: BaseException | None) -> list[str]:
    found = []
    while error is not None:
        found.append(repr(error))
        error = error.__context__
    return found


def fails(kind: type[BaseException], *arguments: object) -> None:
    raise kind(*arguments)


class Unbelievable:
    def __bool__(self) -> bool:
        raise LookupError("neither")


Body = Callable[[Any, list[Any]], Any]


def suppressing(stack: Any, log: list[Any]) -> None:
    log.append(stack.enter_context(Manager(log, suppresses=True)))
    stack.callback(log.append, "callback")
    raise KeyError("body")


def replacing(stack: Any, log: list[Any]) -> None:
    stack.enter_context(Manager(log))
    stack.callback(fails, IndexError, 1)
    stack.enter_context(Manager(log, raises=ValueError("second")))
    raise KeyError("body")


def replacing_and_suppressing(stack: Any, log: list[Any]) -> None:
    stack.callback(fails, OSError)
    stack.enter_context(Manager(log, suppresses=1))
    stack.callback(fails, IndexError, 1)
    raise KeyError("body")


def without_an_exception(stack: Any, log: list[Any]) -> None:
    stack.enter_context(Manager(log, suppresses=True))
    stack.push(lambda *details: log.append(details))
    log.append(stack.push(Manager(log)).log is log)
    stack.callback(log.append, "x")
    stack.callback(lambda *args, **kwargs: log.append((args, kwargs)), 1, 2, a=3, b=4)


def many(stack: Any, log: list[Any]) -> None:
    for i in range(50):
        stack.callback(log.append, i)
    raise KeyboardInterrupt


def a_truth_that_raises(stack: Any, log: list[Any]) -> None:
    stack.enter_context(Manager(log, suppresses=Unbelievable()))
    raise KeyError("body")


def raised_from(stack: Any, log: list[Any]) -> None:
    def raises() -> None:
        try:
            fails(IndexError)
        except IndexError as error:
            raise ValueError("from") from error

    stack.callback(raises)
    raise KeyError("body")


def the_same_again(stack: Any, log: list[Any]) -> None:
    def raises(kind: Any, error: BaseException, where: Any) -> None:
        raise error

    stack.push(raises)
    raise KeyError("body")


def popped(stack: Any, log: list[Any]) -> None:
    for i in range(3):
        stack.callback(log.append, i)
    other = stack.pop_all()
    stack.callback(log.append, "left")
    log.append(type(other) is type(stack))
    other.close()


def closed(stack: Any, log: list[Any]) -> None:
    stack.callback(log.append, 1)
    log.append(stack.close())
    stack.callback(fails, OSError)
    with suppress(OSError):
        stack.close()


def wrong(stack: Any, log: list[Any]) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: stack.enter_context(5), lambda: stack.callback(), lambda: stack.callback(arg=1),
        lambda: stack.enter_context(), lambda: stack.push()]
    for call in calls:
        try:
            call()
        except (TypeError, AttributeError) as error:
            log.append(type(error))


def wrong_manager(stack: Any, log: list[Any]) -> None:
    stack.enter_context(5)


def cannot_be_entered(stack: Any, log: list[Any]) -> None:
    class Fails(Manager):
        def __enter__(self) -> str:
            raise OSError("no")

    stack.enter_context(Manager(log))
    stack.enter_context(Fails(log))


BODIES: list[Body] = [
    suppressing, replacing, replacing_and_suppressing, without_an_exception, many, a_truth_that_raises, raised_from,
    the_same_again, popped, closed, wrong, wrong_manager, cannot_be_entered]


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("body", BODIES)
def test_the_same_happens(body: Body, outside: bool) -> None:
    def happens(kind: Any) -> tuple[list[Any], list[str], str]:
        log: list[Any] = []

        def work() -> None:
            with kind() as stack:
                body(stack, log)

        try:
            if outside:
                try:
                    raise LookupError("outside")
                except LookupError:
                    work()
            else:
                work()
        except BaseException as error:
            return log, chain(error), repr(error.__cause__)
        return log, [], ""

    theirs, ours = map(happens, KINDS)
    assert ours == theirs
    assert sys.exc_info() == (None, None, None)


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("body", [body for body in BODIES if body is not closed and body is not popped])
def test_the_same_happens_asynchronously(body: Body, outside: bool) -> None:
    def happens(kind: Any) -> tuple[list[Any], list[str], str]:
        log: list[Any] = []

        async def cleanup(*details: Any) -> None:
            await asyncio.sleep(0)
            log.append(("cleanup", repr(details[1:2])))

        async def work() -> None:
            async with kind() as stack:
                log.append(await stack.enter_async_context(Manager(log)))
                stack.push_async_exit(cleanup)
                stack.push_async_callback(cleanup, 1, 2)
                body(stack, log)

        async def main() -> None:
            if outside:
                try:
                    raise LookupError("outside")
                except LookupError:
                    await work()
            else:
                await work()

        try:
            asyncio.run(main())
        except BaseException as error:
            return log, chain(error), repr(error.__cause__)
        return log, [], ""

    theirs, ours = map(happens, ASYNC_KINDS)
    assert ours == theirs


@pytest.mark.parametrize("kind", ASYNC_KINDS)
def test_cancelled_while_it_exits(kind: Any) -> None:
    log: list[Any] = []

    async def work() -> None:
        async with kind() as stack:
            stack.push_async_callback(asyncio.sleep, 0)
            stack.callback(log.append, "last")
            stack.push_async_callback(asyncio.sleep, 60)

    async def main() -> None:
        task = asyncio.ensure_future(work())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert log == ["last"]


class Pause:
    def __await__(self) -> Generator[str, Any, Any]:
        return (yield "paused")


def paused(kind: Any, log: list[Any], *, where: str) -> Any:
    """A coroutine that waits in the middle of an exit, or of an entering."""

    class Pauses(Manager):
        async def __aenter__(self) -> Any:
            try:
                return await Pause() if where == "enter" else None
            except BaseException as error:
                log.append(repr(error))
                raise

        async def __aexit__(self, *details: Any) -> Any:
            try:
                log.append(await Pause() if where == "exit" else None)
            except BaseException as error:
                log.append(repr(error))
                raise
            return True

    async def work() -> Any:
        async with kind() as stack:
            stack.callback(log.append, "last")
            log.append(await stack.enter_async_context(Pauses(log)))
            raise KeyError

    return work()


@pytest.mark.parametrize("where", ["enter", "exit"])
@pytest.mark.parametrize("what", ["sent", "thrown", "closed", "forgotten"])
def test_whatever_comes_while_it_waits(where: str, what: str) -> None:
    def happens(kind: Any) -> tuple[list[Any], list[str]]:
        log: list[Any] = []
        work = paused(kind, log, where=where)
        assert work.send(None) == "paused"
        try:
            if what == "sent":
                work.send("value")
            elif what == "thrown":
                work.throw(ValueError("thrown"))
            elif what == "closed":
                work.close()
            del work
        except BaseException as error:
            return log, chain(error)
        return log, []

    theirs, ours = map(happens, ASYNC_KINDS)
    assert ours == theirs
    assert ours[0]


def test_what_is_not_awaitable() -> None:
    def happens(kind: Any) -> tuple[str, ...]:
        async def work() -> None:
            async with kind() as stack:
                stack.push_async_callback(len, ())

        with pytest.raises(TypeError, match="await") as caught:
            asyncio.run(work())
        return tuple(chain(caught.value))

    theirs, ours = map(happens, ASYNC_KINDS)
    assert ours == theirs


@pytest.mark.parametrize("kind", KINDS)
def test_generator_based_managers(kind: Any) -> None:
    @contextlib.contextmanager
    def managed() -> Generator[int, None, None]:
        try:
            yield 1
        except KeyError as error:
            raise ValueError("wrapped") from error

    def work() -> None:
        with kind() as stack:
            assert stack.enter_context(managed()) == 1
            raise KeyError("x")

    with pytest.raises(ValueError, match="wrapped") as caught:
        work()
    assert repr(caught.value.__context__) == "KeyError('x')"
