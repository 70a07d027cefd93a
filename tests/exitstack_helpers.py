"""What the tests of the exit stacks share: both libraries, a manager that notes what happens to it, and failures."""
from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from exitstack_programs import Once

import deferpool

# To a type checker they are contextlib's; here they are asked for what no checker lets through.
Stack: Any = deferpool.ExitStack
AsyncStack: Any = deferpool.AsyncExitStack
BOTH: list[Any] = [contextlib, deferpool]


class Manager:
    """Notes what happens to it."""

    def __init__(self, suppress: bool = False) -> None:
        self.log: list[object] = []
        self.suppress = suppress

    def __enter__(self) -> Manager:
        self.log.append("enter")
        return self

    def __exit__(self, *details: object) -> bool:
        self.log.append(details[1])
        return self.suppress

    async def __aenter__(self) -> Manager:
        return self.__enter__()

    async def __aexit__(self, *details: object) -> bool:
        return self.__exit__(*details)


def nothing(*args: object, **kwargs: object) -> None:
    pass


async def nothing_later(*args: object, **kwargs: object) -> None:
    pass


def fails(error: BaseException) -> None:
    raise error


async def fails_later(error: BaseException) -> None:
    raise error


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """To its end, without an event loop."""
    try:
        while True:
            coroutine.send(None)
    except StopIteration as stop:
        return stop.value


def error_of(function: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as raised:  # noqa: PT011
        function()
    return raised.value


class Mine(deferpool.ExitStack[bool | None]):
    """With an argument, an attribute and an exit of its own."""

    def __init__(self, name: str = "default") -> None:
        super().__init__()
        self.name = name
        self.exits: list[object] = []

    def __exit__(self, *details: Any) -> bool | None:
        self.exits.append(details[0])
        return super().__exit__(*details)


def failing(stack: Any) -> None:
    stack.callback(fails, ValueError())


async def once() -> None:
    await Once(1)


def sync_cycles() -> None:
    manager, suppress = Manager(), Manager(suppress=True)
    with Stack() as stack:
        stack.callback(nothing)
        stack.callback(nothing, 1, 2)
        stack.callback(nothing, 1, 2, 3, x=4)
        stack.enter_context(manager)
        stack.push(nothing)
        stack.push(manager)
    with Stack() as stack:
        stack.push(suppress)
        failing(stack)
        raise KeyError
    with contextlib.suppress(ValueError), Stack() as stack:
        failing(stack)
        stack.extra = stack
        raise KeyError
    del stack.extra
    with contextlib.suppress(TypeError, AttributeError):
        stack.enter_context(1)
    with contextlib.suppress(TypeError):
        stack.callback()
    stack.callback(nothing, [])
    stack.pop_all()
    stack.callback(nothing, [])
    assert stack._exit_callbacks
    stack.pop_all().close()
    Mine().callback(nothing)


async def async_cycles() -> None:
    manager, suppress = Manager(), Manager(suppress=True)
    async with AsyncStack() as stack:
        stack.push_async_callback(nothing_later, 1, x=2)
        stack.push_async_callback(once)
        stack.push_async_exit(nothing_later)
        stack.push_async_exit(manager)
        await stack.enter_async_context(manager)
        stack.callback(nothing)
    async with AsyncStack() as stack:
        stack.push_async_exit(suppress)
        stack.push_async_callback(fails_later, ValueError())
        raise KeyError
    with contextlib.suppress(ValueError):
        async with AsyncStack() as stack:
            stack.push_async_callback(fails_later, ValueError())
            raise KeyError
    with contextlib.suppress(TypeError, AttributeError):
        await stack.enter_async_context(1)
    stack.push_async_callback(once)
    closing = stack.aclose()
    closing.send(None)
    with contextlib.suppress(KeyError):
        closing.throw(KeyError())
    stack.push_async_callback(once)
    closing = stack.aclose()
    closing.send(None)
    closing.close()
