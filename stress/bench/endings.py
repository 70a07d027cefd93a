"""What it costs that something runs at a function's end: ours beside try/finally, contextlib and pygolang, in turns."""
from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any

import deferpool
from deferpool import defer, deferring
from stress import machine
from stress.bench.turns import SCALES, AtOnce, Loop, Row, not_run

Stack = type[contextlib.ExitStack[bool | None]]
AsyncStack = type[contextlib.AsyncExitStack[bool | None]]


def scaling(rounds: int, share: int, cores: int) -> list[AtOnce]:
    """Beside what the interpreter itself makes of `cores` threads. Nothing where they take turns."""
    if machine.has_gil() or cores < 2:
        return []
    found = [AtOnce("try/finally, one call", again(finally_1), cores),
             AtOnce("@deferring, one call", again(deferring_1), cores, SCALES),
             AtOnce("ExitStack, one call", stack_1(deferpool.ExitStack), cores, SCALES)]
    for _ in range(rounds):
        for each in found:
            each.time(share)
    return found


# ---- what is timed ------------------------------------------------------------------------------------------------

def nothing() -> None:
    pass


async def nothing_later() -> None:
    pass


class Manager:
    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        pass


MANAGER = Manager()


# Each loop has what it uses in variables of its own: without a GIL a variable of the function around it is locked at
# each look, and threads that run the same loop would wait for each other.

def again(function: Callable[[], object]) -> Loop:
    def loop(cycles: int) -> None:
        call = function
        for _ in range(cycles):
            call()
    return loop


def finally_1() -> None:
    try:
        pass
    finally:
        nothing()


def finally_3() -> None:
    try:
        try:
            try:
                pass
            finally:
                nothing()
        finally:
            nothing()
    finally:
        nothing()


@deferring
def deferring_1() -> None:
    defer(nothing)


@deferring
def deferring_3() -> None:
    defer(nothing)
    defer(nothing)
    defer(nothing)


def stack_1(stacks: Stack) -> Loop:
    def loop(cycles: int) -> None:
        make = stacks
        for _ in range(cycles):
            with make() as stack:
                stack.callback(nothing)
    return loop


def stack_3(stacks: Stack) -> Loop:
    def loop(cycles: int) -> None:
        make = stacks
        for _ in range(cycles):
            with make() as stack:
                stack.callback(nothing)
                stack.callback(nothing)
                stack.callback(nothing)
    return loop


def stack_10(stacks: Stack) -> Loop:
    def loop(cycles: int) -> None:
        make = stacks
        for _ in range(cycles):
            with make() as stack:
                for _ in range(10):
                    stack.callback(nothing)
    return loop


def entering(stacks: Stack) -> Loop:
    def loop(cycles: int) -> None:
        make = stacks
        for _ in range(cycles):
            with make() as stack:
                stack.enter_context(MANAGER)
    return loop


def raising(stacks: Stack) -> Loop:
    def loop(cycles: int) -> None:
        make = stacks
        for _ in range(cycles):
            try:
                with make() as stack:
                    stack.callback(nothing)
                    raise ValueError
            except ValueError:
                pass
    return loop


def asynchronous(stacks: AsyncStack) -> Loop:
    async def work(cycles: int) -> None:
        make = stacks
        for _ in range(cycles):
            async with make() as stack:
                stack.push_async_callback(nothing_later)
    return driven(work)


def entering_later(stacks: AsyncStack) -> Loop:
    async def work(cycles: int) -> None:
        make = stacks
        for _ in range(cycles):
            async with make() as stack:
                await stack.enter_async_context(MANAGER)
    return driven(work)


def driven(work: Callable[[int], Coroutine[Any, Any, None]]) -> Loop:
    """Without an event loop: nothing in here waits."""
    def loop(cycles: int) -> None:
        try:
            work(cycles).send(None)
        except StopIteration:
            return
        raise RuntimeError("it has waited")
    return loop


def rows() -> list[Row]:
    theirs, ours = contextlib.ExitStack, deferpool.ExitStack
    theirs_later, ours_later = contextlib.AsyncExitStack, deferpool.AsyncExitStack
    found = [
        Row("@deferring, 1 call", "try/finally", again(deferring_1), again(finally_1), 1 / 1.5),
        Row("@deferring, 3 calls", "nested try/finally", again(deferring_3), again(finally_3), 1 / 1.5),
        Row("@deferring, 1 call", "contextlib.ExitStack", again(deferring_1), stack_1(theirs), 15),
        *(Row(f"ExitStack, {what}", "contextlib's", make(ours), make(theirs), target) for what, make, target in (
            ("1 callback", stack_1, 7), ("3 callbacks", stack_3, 7), ("10 callbacks", stack_10, 7),
            ("enter_context", entering, 3), ("raising", raising, 3))),
        *(Row(f"AsyncExitStack, {what}", "contextlib's", make(ours_later), make(theirs_later), 3)
          for what, make in (("1 callback", asynchronous), ("enter_async_context", entering_later))),
    ]
    found.insert(3, _beside_pygolang("@deferring, 1 call", "pygolang's defer", 40))
    return found


def _beside_pygolang(title: str, against: str, target: float) -> Row:
    try:
        import golang  # type: ignore[import-not-found]
    except ImportError as error:
        return not_run(title, against, target, str(error))

    @golang.func  # type: ignore[untyped-decorator]
    def pygolang_1() -> None:
        golang.defer(nothing)

    return Row(title, against, again(deferring_1), again(pygolang_1), target)
