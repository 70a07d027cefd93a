"""Exit stacks in threads: each with its own, all with one, one after the other."""
import contextlib
import gc
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from exitstack_helpers import (
    Manager,
    Stack,
    async_cycles,
    nothing,
    run,
    sync_cycles,
)
from helpers import run_threads

FREE_THREADED = not getattr(sys, "_is_gil_enabled", lambda: True)()


def test_threads_with_their_own_stacks() -> None:
    def work() -> None:
        for number in range(3000):
            log: list[int] = []
            with Stack() as stack, Stack() as other:
                for i in range(number % 11):
                    stack.callback(log.append, i)
                    other.callback(log.append, -i)
                other.push(Manager(suppress=True))
                other.pop_all().close()
            assert len(log) == number % 11 * 2
            run(async_cycles())

    run_threads(*[work] * 4)


def test_one_stack_in_many_threads() -> None:
    """Nothing is promised but that each callback is called at most once, and that nothing breaks."""
    stack, called, pushed = Stack(), [0] * 4, [0] * 4
    lock = threading.Lock()

    def work(me: int) -> None:
        def count() -> None:
            with lock:
                called[me] += 1

        for number in range(3000):
            stack.callback(count)
            stack.push(Manager())
            pushed[me] += 1
            if number % 3 == 0:
                stack.close()
            elif number % 50 == 1:
                stack.pop_all().close()
            elif number == 2000:
                assert isinstance(stack._exit_callbacks, deque)

    def guarded(me: int) -> Callable[[], None]:
        def go() -> None:
            with contextlib.suppress(IndexError):  # of a deque that another thread has emptied meanwhile
                work(me)
        return go

    run_threads(*[guarded(me) for me in range(4)])
    stack.close()
    assert all(calls <= pushes for calls, pushes in zip(called, pushed, strict=True))
    assert sum(called) > 0  # not each: a thread ends with the first deque that another has emptied under its hands


def test_given_from_thread_to_thread() -> None:
    """Used in one, dropped in another: what is kept for later use serves both."""
    made: list[Any] = []
    log: list[int] = []

    def make() -> None:
        for number in range(500):
            stack = Stack()
            stack.callback(log.append, number)
            made.append(stack)

    for _ in range(4):
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        while made:
            made.pop().close()
    assert len(log) == 2000


def test_gil_stays_off() -> None:
    if not FREE_THREADED:
        pytest.skip("this interpreter has the GIL on")
    with Stack() as stack:
        stack.callback(nothing)
    assert not sys._is_gil_enabled()  # type: ignore[attr-defined]


def test_warnings_do_not_come_from_here() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sync_cycles()
        run(async_cycles())
        gc.collect()
    assert caught == []
