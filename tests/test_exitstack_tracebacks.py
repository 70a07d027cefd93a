"""No line of the library is in a traceback, and nothing is too deep."""
import contextlib
import gc
import sys
import traceback
import weakref
from collections.abc import Generator

import pytest
from exitstack_helpers import (
    AsyncStack,
    Manager,
    Stack,
    error_of,
    fails,
    fails_later,
    nothing,
    run,
)
from exitstack_programs import Once

FREE_THREADED = not getattr(sys, "_is_gil_enabled", lambda: True)()


def functions_of(error: BaseException) -> list[str]:
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


@contextlib.contextmanager
def generator() -> Generator[None, None, None]:
    try:
        yield
    finally:
        fails(KeyError())


def test_traceback_of_a_callback() -> None:
    def use(peek: bool) -> None:
        with Stack() as stack:
            stack.callback(fails, ValueError())
            if peek:
                assert stack._exit_callbacks
            raise OSError

    error = error_of(lambda: use(False))
    assert functions_of(error)[-2:] == ["use", "fails"]
    assert isinstance(error.__context__, OSError)
    assert functions_of(error.__context__) == ["use"]
    assert functions_of(error_of(lambda: use(True)))[-3:] == ["use", "_exit_wrapper", "fails"]  # contextlib's wrapper


def test_traceback_of_the_body() -> None:
    def use() -> None:
        with Stack() as stack:
            stack.callback(nothing)
            stack.enter_context(Manager())
            fails(ValueError())

    assert functions_of(error_of(use))[-2:] == ["use", "fails"]


def test_traceback_of_entering() -> None:
    class Fails(Manager):
        def __enter__(self) -> Manager:
            raise ValueError

    def use() -> None:
        with Stack() as stack:
            stack.enter_context(Fails())

    assert functions_of(error_of(use))[-2:] == ["use", "__enter__"]


def test_traceback_of_a_generator() -> None:
    def use() -> None:
        with Stack() as stack:
            stack.enter_context(generator())
            fails(ValueError())

    error = error_of(use)
    assert functions_of(error)[-4:] == ["use", "__exit__", "generator", "fails"]  # contextmanager's own __exit__
    assert functions_of(error.__context__)[-2:] == ["use", "fails"]  # type: ignore[arg-type]
    for kind in (error, error.__context__):
        assert not any("deferpool" in frame.filename.rpartition("/")[2] or frame.filename.endswith((".pyx", ".h"))
                       for frame in traceback.extract_tb(kind.__traceback__))  # type: ignore[union-attr]


def test_traceback_of_async_exits() -> None:
    async def use() -> None:
        async with AsyncStack() as stack:
            stack.push_async_callback(fails_later, ValueError())
            stack.callback(nothing)
            await stack.enter_async_context(Manager())
            raise OSError

    error = error_of(lambda: run(use()))
    assert functions_of(error)[-2:] == ["use", "fails_later"]
    assert functions_of(error.__context__) == ["use"]  # type: ignore[arg-type]


def test_traceback_of_async_entering() -> None:
    class Fails(Manager):
        async def __aenter__(self) -> Manager:
            await Once(1)
            raise ValueError

    async def use() -> None:
        async with AsyncStack() as stack:
            await stack.enter_async_context(Fails())

    assert functions_of(error_of(lambda: run(use())))[-2:] == ["use", "__aenter__"]


def test_deep_recursion() -> None:
    """Stacks that exit stacks without end are a RecursionError, and no crash."""
    for peek in (False, True):
        deepest = Stack()
        stack = deepest
        for _ in range(20000):
            outer = Stack()
            outer.push(stack)
            if peek:
                assert outer._exit_callbacks
            stack = outer
        with pytest.raises(RecursionError):
            stack.close()


def test_deep_deallocation() -> None:
    stack = Stack()
    ended = weakref.ref(stack)
    for _ in range(200_000):
        outer = Stack()
        outer.callback(stack)
        stack = outer
    del stack, outer
    gc.collect()
    assert ended() is None


def test_circle_of_contexts() -> None:
    """contextlib follows it for ever."""
    first, second, third = ValueError(1), ValueError(2), ValueError(3)
    stack = Stack()
    stack.callback(fails, third)

    def knot() -> None:
        second.__context__ = first
        first.__context__ = second
        third.__context__ = first

    stack.callback(knot)
    knot()
    with pytest.raises(ValueError, match="3"):
        stack.__exit__(KeyError, KeyError(), None)
