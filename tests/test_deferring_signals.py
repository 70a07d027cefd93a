"""Functions of every kind that defer, when a signal's handler raises or a deferred call raises StopIteration."""
from __future__ import annotations

import contextlib
import ctypes
import random
import signal
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator
from typing import Any

import pytest
from deferring_helpers import noting_its_end
from helpers import run_now

from deferpool import defer, deferring

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


sends = ctypes.CDLL(None)["raise"]  # a signal, without looking for one itself


class Interrupt(BaseException):
    pass


class Alarm:
    """What the handler of SIGALRM does: nothing, or raise Interrupt."""

    armed = False

    def interrupts(self, run: Callable[[], object], within: float) -> bool:
        """Whether an alarm that comes after so many seconds at most has come while it ran."""
        try:
            self.armed = True
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, within))
            run()
            self.armed = False
        except Interrupt:
            self.armed = False
            return True
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return False


@contextlib.contextmanager
def alarms() -> Iterator[Alarm]:
    alarm = Alarm()

    def handler(*_: object) -> None:
        if alarm.armed:
            raise Interrupt

    before = signal.signal(signal.SIGALRM, handler)
    try:
        yield alarm
    finally:
        signal.signal(signal.SIGALRM, before)


async def through(made: AsyncGenerator[Any, Any]) -> list[Any]:
    return [each async for each in made]


KINDS: dict[str, Callable[..., Any]] = {}


def kind(run: Callable[[Any], Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(made: Callable[..., Any]) -> Callable[..., Any]:
        KINDS[made.__name__] = lambda *given: run(made(*given))
        return made
    return add


@kind(lambda nothing: nothing)
@deferring
def plain(log: list[int], calls: Iterable[int], last: Callable[[], object]) -> None:
    for i in calls:
        defer(log.append, i)
    defer(last)


@kind(list)
@deferring
def of_a_generator(log: list[int], calls: Iterable[int], last: Callable[[], object]) -> Generator[None, None, None]:
    for i in calls:
        defer(log.append, i)
    defer(last)
    yield


@kind(run_now)
@deferring
async def of_a_coroutine(log: list[int], calls: Iterable[int], last: Callable[[], object]) -> None:
    for i in calls:
        defer(log.append, i)
    defer(last)


@kind(lambda made: run_now(through(made)))
@deferring
async def of_an_asynchronous_one(
    log: list[int], calls: Iterable[int], last: Callable[[], object]
) -> AsyncGenerator[None, None]:
    for i in calls:
        defer(log.append, i)
    defer(last)
    yield


every_kind = pytest.mark.parametrize("run", KINDS.values(), ids=KINDS)


@pytest.fixture(autouse=True)
def _sigint_is_heard() -> Iterator[None]:
    """Also where this was started in the background, by a shell that lets it ignore that signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@every_kind
def test_a_signal_loses_nothing(run: Callable[..., Any]) -> None:
    """Its handler raises at the next place where Python code looks for signals."""
    log: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        run(log, range(3), lambda: sends(signal.SIGINT))
    assert log == [2, 1, 0]


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited", "ignore::pytest.PytestUnraisableExceptionWarning")
@every_kind
def test_no_signal_loses_anything(run: Callable[..., Any]) -> None:
    """Wherever it comes: if something has been deferred, the last call to run is that of the first."""
    def numbers() -> Iterator[int]:
        for i in range(100):
            yield i
            deferred.append(i)

    interrupted = 0
    with alarms() as alarm:
        until = time.monotonic() + 0.7
        while time.monotonic() < until or not interrupted:
            log: list[int] = []
            deferred: list[int] = []
            interrupted += alarm.interrupts(lambda: run(log, numbers(), int), within=8e-5)  # noqa: B023
            assert log[-1:] == [0] or not deferred
            assert log == [*reversed(range(len(log)))]


def test_a_signal_between_two_steps_of_an_asynchronous_generator() -> None:
    """The function ends first, and what it has deferred runs then."""
    log: list[str] = []

    @deferring
    async def generator() -> AsyncGenerator[int, None]:
        defer(log.append, "deferred")
        try:
            yield 1
            sends(signal.SIGALRM)
            yield 2
        finally:
            log.append("finally")

    with alarms() as alarm:
        alarm.armed = True
        with pytest.raises(Interrupt):
            run_now(through(generator()))
    assert log == ["finally", "deferred"]


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("end", ["athrow", "aclose"])
def test_no_signal_loses_an_asynchronous_generator_that_is_thrown_into(end: str) -> None:
    """The driver is in Python there; whatever makes an end of it, the function ends, and then what is deferred runs."""
    log: list[str] = []

    @deferring
    async def generator() -> AsyncGenerator[int, None]:
        defer(log.append, "deferred")
        try:
            while True:
                with contextlib.suppress(KeyError):
                    yield 1
        finally:
            log.append("finally")

    def step(awaitable: Any) -> None:
        with contextlib.suppress(StopIteration):
            awaitable.send(None)

    def use(made: Any) -> None:
        while end == "athrow":
            step(made.athrow(KeyError()))
        step(made.aclose())

    with alarms() as alarm:
        until = time.monotonic() + 0.7
        while time.monotonic() < until:
            log.clear()
            made: list[Any] = [generator()]
            step(made[0].__anext__())
            alarm.interrupts(lambda: use(made[0]), within=5e-5)  # noqa: B023
            made.clear()
            assert log[-1:] == ["deferred"]
            if sys.version_info >= (3, 11):  # before, a signal's handler may come in the finally clause, and first
                assert log == ["finally", "deferred"]


def test_a_signal_while_what_is_thrown_is_made() -> None:
    log: list[str] = []

    class Signals(Exception):
        def __init__(self) -> None:
            sends(signal.SIGALRM)

    with alarms() as alarm:
        made: Any = noting_its_end(log)
        with pytest.raises(StopIteration):
            made.__anext__().send(None)
        alarm.armed = True
        with pytest.raises(Interrupt):
            made.athrow(Signals).send(None)
        assert log == ["finally", "deferred"]


# ---- what tells the end of a generator is not to be raised ----------------------------------------

@every_kind
def test_a_stop_iteration_is_an_error(run: Callable[..., Any]) -> None:
    def stops() -> None:
        raise StopIteration(7)

    log: list[int] = []
    wanted = StopIteration if run is KINDS["plain"] else RuntimeError
    with pytest.raises(wanted) as raised:
        run(log, range(2), stops)
    assert log == [1, 0]
    if wanted is RuntimeError:
        assert str(raised.value).endswith("raised StopIteration")
        assert isinstance(raised.value.__cause__, StopIteration)


def test_a_stop_iteration_while_traced() -> None:
    before = sys.gettrace()
    try:
        sys.settrace(lambda *_: None)
        with pytest.raises(RuntimeError, match="^generator raised StopIteration$"):
            KINDS["of_a_generator"]([], (), lambda: next(iter(())))
    finally:
        sys.settrace(before)


def test_a_stop_async_iteration_is_an_error() -> None:
    async def stops() -> None:
        raise StopAsyncIteration

    with pytest.raises(RuntimeError, match="^async generator raised StopAsyncIteration$"):
        KINDS["of_an_asynchronous_one"]([], (), stops)
    with pytest.raises(StopAsyncIteration):
        KINDS["of_a_coroutine"]([], (), stops)
