"""hammer: one function, called from many threads at once until time is up, something fails, or nothing moves."""
from __future__ import annotations

import functools
import inspect
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from deferpool.testing import _switching
from deferpool.testing._crew import Crew, Failure, stacks

WATCH_EVERY_S = 0.001
LOOK_EVERY_S = 0.05
GRACE_S = 5.0  # for the other threads, once one has failed or Ctrl-C was pressed
SHARE = 0.01  # of the bytecodes in every second thread; found by trying: a pause per few calls of a small pool
WATCH = -1  # the watcher's index


class Hung(RuntimeError):
    """Threads made no progress for the time allowed; the message has the stack of each of them."""


class Worker:
    """What a hammered function is given when it takes an argument: the thread it runs in. For that thread alone.

    thread: its index, from 0. threads: how many there are.
    random: a random.Random that follows from seed and thread: the same sequence in each run of that seed.
    calls: how many calls this thread has finished.
    stopping: true once the run is over; a function that loops by itself should then return.
    """

    __slots__ = ("thread", "threads", "random", "calls", "stopping")

    def __init__(self, thread: int, threads: int, seed: int) -> None:
        self.thread = thread
        self.threads = threads
        self.random = random.Random(f"{seed}/{thread}")
        self.calls = 0
        self.stopping = False

    def __repr__(self) -> str:
        return f"<thread {self.thread} of {self.threads}, {self.calls} calls finished>"


@dataclass(frozen=True)
class HammerResult:
    """What a run was. calls: finished by each thread. seconds: from start to end. watches: calls of `watch`."""

    calls: tuple[int, ...]
    seconds: float
    seed: int
    watches: int

    @property
    def total(self) -> int:
        """Calls of all threads together."""
        return sum(self.calls)


class Hammer(Protocol):
    """The type of `hammer`, and of the pytest fixture of that name."""

    def __call__(
        self,
        fn: Callable[[], object] | Callable[[Worker], object],
        *,
        threads: int = ...,
        seconds: float | None = ...,
        calls: int | None = ...,
        seed: int | None = ...,
        timeout: float | None = ...,
        watch: Callable[[], object] | None = ...,
        yields: float | None = ...,
    ) -> HammerResult: ...


def hammer(
    fn: Callable[[], object] | Callable[[Worker], object],
    *,
    threads: int = 8,
    seconds: float | None = None,
    calls: int | None = None,
    seed: int | None = None,
    timeout: float | None = 60.0,
    watch: Callable[[], object] | None = None,
    yields: float | None = None,
) -> HammerResult:
    """Calls fn again and again from many threads that start together, and raises what the first of them raised.

    Parameters:
        fn: takes no argument, or one that it must have: the `Worker`. Races are open at edges, so make those
            frequent: a pool that holds few items is empty or full more often.
        threads: how many.
        seconds: how long; 1 if neither this nor `calls` is given. Each thread makes one call at least.
        calls: how many calls each thread makes. With both, what comes first ends the run.
        seed: for `Worker.random`; drawn if None, and told in the result and in failures.
        timeout: the run hangs if no thread finishes a call for so many seconds (None: wait for ever). So it must
            be longer than the longest call.
        watch: called about every millisecond in one more thread while the others run, and once when they have
            ended; what it raises ends the run.
        yields: before which share of its bytecodes, between 0 and 1, every second thread sleeps for a moment.
            None: 0.01 with the GIL, where races hardly show otherwise, and 0 without it. This uses sys.settrace:
            threads that a debugger or coverage traces already are left alone, and C code is not affected. On
            Python 3.12, whose interpreter crashes when threads trace bytecodes, it is lines instead.

    The exception is the thread's own, with a note of the thread, the call and the seed (`__notes__`; on Python 3.10
    also a line on stderr). Raises Hung when the run hangs; ValueError or TypeError for arguments that mean nothing;
    RuntimeError if the system gives no more threads. KeyboardInterrupt ends the threads first. With the GIL the switch
    interval is tiny meanwhile. Thread-safe: several may run at once. A hang that keeps the GIL cannot be told.
    """
    __tracebackhide__ = True
    _check(threads, seconds, calls, seed, timeout, yields)
    takes_worker = _takes_worker(fn)
    if seed is None:
        seed = random.SystemRandom().randrange(1 << 32)
    if seconds is None and calls is None:
        seconds = 1.0
    if yields is None:
        yields = SHARE if _switching.has_gil() else 0.0
    run = _Run(fn, takes_worker, threads, calls, seed, yields, watch)
    with ExitStack() as stack:
        if _switching.has_gil():
            stack.enter_context(_switching.tiny_switch_interval())
        took = run.through(seconds, timeout)
    if run.failures:
        try:
            raise run.first_failure()
        finally:
            del run  # its frames, by way of the exception, would keep each other alive
    return HammerResult(tuple(run.workers[index].calls for index in range(threads)), took, seed, run.watches)


class _Run:
    """One run that is under way."""

    def __init__(
        self, fn: Any, takes_worker: bool, threads: int, calls: int | None, seed: int, yields: float,
        watch: Callable[[], object] | None,
    ) -> None:
        self.fn = fn
        self.takes_worker = takes_worker
        self.threads = threads
        self.calls = calls
        self.seed = seed
        self.yields = yields
        self.watch = watch
        self.watches = 0
        self.workers: dict[int, Worker] = {}
        self.ended: list[int] = []
        self.news = news = threading.Event()  # a thread has failed, or the last one has ended
        self.failures = failures = list[Failure]()  # of workers and watcher, in their order

        def failed(failure: Failure) -> None:  # knows nothing of self: a cycle would keep fn alive
            failures.append(failure)
            news.set()

        self.crew = Crew("hammer", on_failure=failed)
        self.watchers = Crew("hammer-watch", on_failure=failed)
        self.rest = threading.Event()  # the workers have ended: the watcher's last look
        self.left_behind = ""

    def through(self, seconds: float | None, timeout: float | None) -> float:
        """The whole run; returns how many seconds it took."""
        __tracebackhide__ = True
        try:
            for index in range(self.threads):
                self.start(index)
            if self.watch is not None:
                self.watchers.start(WATCH, self.look_on, name="hammer-watch")
                self.watchers.go()
            began = time.monotonic()
            self.crew.go()
            self.attend(None if seconds is None else began + seconds, timeout)
            took = time.monotonic() - began
        except BaseException as error:
            self.stop()
            self.rest.set()
            for crew in (self.crew, self.watchers):
                crew.call_off()
                if not isinstance(error, Hung):
                    crew.join(GRACE_S)
            raise
        self.rest.set()
        if not self.watchers.join(timeout) and not self.failures:
            raise Hung(f"watch did not return for {timeout:g} s; seed {self.seed}\n{stacks(self.watchers.running())}")
        return took

    def start(self, index: int) -> None:
        mine: list[Worker] = []

        def before() -> None:  # made by its own thread: without the GIL, references to it cost no atomics then
            mine.append(Worker(index, self.threads, self.seed))
            self.workers[index] = mine[0]

        def body() -> None:
            __tracebackhide__ = True
            share = self.yields if index % 2 or self.threads == 1 else 0.0
            pausing = _switching.begin_pauses(share, f"{self.seed}/{index}/yields")
            try:
                (_call_with if self.takes_worker else _call)(self.fn, mine[0], self.calls)
            finally:
                if pausing:
                    _switching.end_pauses()
                self.ended.append(index)
                if len(self.ended) == self.threads:
                    self.news.set()

        self.crew.start(index, body, before=before)

    def attend(self, end: float | None, timeout: float | None) -> None:
        """Until all threads have ended, or none of them moves any more."""
        __tracebackhide__ = True
        progress, since, stopping = -1, 0.0, False
        while len(self.ended) < self.threads:
            now = time.monotonic()
            failed = bool(self.failures)
            if not stopping and (failed or (end is not None and now >= end)):
                stopping = True
                self.stop()
            done = sum(worker.calls for worker in self.workers.values()) + len(self.ended)
            if done != progress:
                progress, since = done, now
            allowed = min(GRACE_S, timeout or GRACE_S) if failed else timeout
            if allowed is not None and now - since > allowed:
                self.hang(allowed, failed)
                return
            wait = LOOK_EVERY_S if end is None or stopping else min(LOOK_EVERY_S, max(0.0, end - now))
            self.news.wait(wait)
            self.news.clear()
        self.crew.join()

    def hang(self, allowed: float, failed: bool) -> None:
        __tracebackhide__ = True
        stuck = self.crew.running()
        told = (
            f"{len(stuck)} of {self.threads} threads have finished no call for {allowed:g} s; seed {self.seed}\n"
            f"{stacks(stuck)}"
        )
        if not failed:
            raise Hung(told)
        self.left_behind = told

    def stop(self) -> None:
        for worker in list(self.workers.values()):
            worker.stopping = True

    def look_on(self) -> None:
        __tracebackhide__ = True
        assert self.watch is not None
        while True:
            last = self.rest.is_set()
            self.watch()
            self.watches += 1
            if last:
                return
            self.rest.wait(WATCH_EVERY_S)

    def first_failure(self) -> BaseException:
        """The exception to raise, with its note; its traceback begins in the caller's own code."""
        first, *others = self.failures
        note = f"hammer: in {self.place(first)}, seed {self.seed}"
        if others:
            note += f"; {len(others)} more failed: " + ", ".join(
                f"{type(other.error).__name__} in {self.place(other)}" for other in others[:3]
            ) + (", ..." if len(others) > 3 else "")
        if self.left_behind:
            note += f"\nhammer: then {self.left_behind}"
        _add_note(first.error, note)
        return first.error.with_traceback(_own_frames_off(first.error.__traceback__))

    def place(self, failure: Failure) -> str:
        if failure.index == WATCH:
            return "the watch"
        worker = self.workers.get(failure.index)
        return f"thread {failure.index} of {self.threads}, its call {worker.calls + 1 if worker else 0:,}"


def _call(fn: Any, worker: Worker, calls: int | None) -> None:
    __tracebackhide__ = True
    while True:
        fn()
        worker.calls += 1
        if worker.stopping or worker.calls == calls:
            return


def _call_with(fn: Any, worker: Worker, calls: int | None) -> None:
    __tracebackhide__ = True
    while True:
        fn(worker)
        worker.calls += 1
        if worker.stopping or worker.calls == calls:
            return


def _own_frames_off(trace: TracebackType | None) -> TracebackType | None:
    at = trace
    while at is not None and at.tb_frame.f_code.co_filename.startswith(_switching.HERE):
        at = at.tb_next
    return at or trace


def _add_note(error: BaseException, note: str) -> None:
    if sys.version_info >= (3, 11):
        error.add_note(note)
    else:  # pytest prints these there too, but not the interpreter
        last = traceback.format_exception_only(type(error), error)[-1].strip()
        error.__notes__ = [*getattr(error, "__notes__", []), note]
        print(f"{note} ({last})", file=sys.stderr)


def refuse_deferred(fn: Any) -> None:
    """Raises TypeError for what, called, only makes a coroutine or generator: nothing of it would run."""
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    while isinstance(fn, functools.partial):
        fn = fn.func
    if any(kind(called) for kind in kinds for called in (fn, type(fn).__call__)):
        raise TypeError(f"hammer needs a plain function: a call of {fn!r} only makes a coroutine or generator")


def _takes_worker(fn: Any) -> bool:
    if not callable(fn):
        raise TypeError(f"fn must be a function of no argument or one, not {fn!r}")
    refuse_deferred(fn)
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # some built-in functions have none
        return False
    for arguments in ((), (None,)):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return bool(arguments)
    raise TypeError(f"fn must take no argument or one, and {fn!r} takes {signature}")


def _check(threads: Any, seconds: Any, calls: Any, seed: Any, timeout: Any, yields: Any) -> None:
    for name, value, least in (("threads", threads, 1), ("calls", calls, 1), ("seed", seed, None)):
        if value is None and name != "threads":
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be an integer, not {value!r}")
        if least is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")
    for name, value in (("seconds", seconds), ("timeout", timeout), ("yields", yields)):
        if value is None:
            continue
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise TypeError(f"{name} must be a number, not {value!r}")
        if name == "yields" and not 0 <= value <= 1:
            raise ValueError(f"yields must be between 0 and 1, not {value}")
        if name != "yields" and not value > 0:
            raise ValueError(f"{name} must be more than 0, not {value}")
