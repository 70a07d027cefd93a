"""deferpool.testing.hammer and what it is made of: the crew, the changes of place, and how a run ends."""
from __future__ import annotations

import functools
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import deferpool
from deferpool import testing
from deferpool.testing import Checked, Crew, Hung, Worker, assert_bounded, hammer, stacks
from deferpool.testing._switching import INTERVAL_S, has_gil, tiny_switch_interval

with_gil = pytest.mark.skipif(not has_gil(), reason="threads take no turns here")


def notes(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", []))


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """Every run gives the switch interval back, and ends its threads unless the test says otherwise."""
    interval, threads = sys.getswitchinterval(), set(threading.enumerate())
    yield
    assert sys.getswitchinterval() == interval
    left = [thread for thread in threading.enumerate() if thread not in threads]
    for thread in left:
        thread.join(5)
    assert not [thread for thread in left if thread.is_alive()]


# ---- calls ----------------------------------------------------------------------------------------------

def test_threads_run_at_once() -> None:
    met = threading.Barrier(5, timeout=20)  # fewer at once would break it
    result = hammer(met.wait, threads=5, calls=20)
    assert result.calls == (20,) * 5
    assert result.total == 100
    assert not met.broken


def test_seconds() -> None:
    result = hammer(lambda: time.sleep(0.001), threads=3, seconds=0.2)
    assert 0.2 <= result.seconds < 5
    assert all(result.calls)


@pytest.mark.parametrize(("seconds", "calls"), [(600.0, 5), (0.1, 1 << 60)])
def test_with_both_what_comes_first_ends_it(seconds: float, calls: int) -> None:
    result = hammer(lambda: None, threads=2, seconds=seconds, calls=calls)
    assert result.seconds < 200
    assert (result.calls == (5, 5)) == (calls == 5)


def test_each_thread_makes_one_call_however_short_the_time() -> None:
    assert min(hammer(lambda: time.sleep(0.01), threads=20, seconds=1e-9).calls) == 1


def test_worker_says_where_it_is() -> None:
    seen: list[tuple[int, int, int, bool]] = []
    hammer(lambda me: seen.append((me.thread, me.threads, me.calls, me.stopping)), threads=3, calls=4)
    assert sorted(seen) == [(thread, 3, calls, False) for thread in range(3) for calls in range(4)]


def test_function_that_loops_by_itself_is_told_to_stop() -> None:
    def loop(me: Worker) -> None:
        while not me.stopping:
            time.sleep(0.001)

    assert hammer(loop, threads=2, seconds=0.1).calls == (1, 1)


def drawn(seed: int | None) -> tuple[int, dict[int, list[float]]]:
    values: dict[int, list[float]] = {0: [], 1: [], 2: []}
    result = hammer(lambda me: values[me.thread].append(me.random.random()), threads=3, calls=10, seed=seed)
    return result.seed, values


def test_same_seed_same_sequence_in_each_thread() -> None:
    seed, first = drawn(None)
    assert drawn(seed) == (seed, first)
    assert drawn(seed + 1)[1] != first
    assert first[0] != first[1] != first[2]
    assert drawn(None)[0] != seed


class Callme:
    def __call__(self, me: Worker) -> None:
        assert isinstance(me, Worker)

    def method(self) -> None: ...


@pytest.mark.parametrize(
    "fn", [Callme(), Callme().method, dict, lambda *all: all and 1 / 0, lambda me=None: me and 1 / 0, time.time]
)
def test_functions_of_no_argument_or_one(fn: Callable[[], object]) -> None:
    assert hammer(fn, threads=1, calls=2).calls == (2,)


async def coroutine() -> None: ...


class Awaited:
    async def __call__(self) -> None: ...


def generator() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({"threads": 0}, ValueError, "threads must be at least 1, not 0"),
        ({"threads": None}, TypeError, "threads must be an integer, not None"),
        ({"threads": 2.0}, TypeError, "threads"),
        ({"threads": True}, TypeError, "threads"),
        ({"calls": 0}, ValueError, "calls"),
        ({"calls": "1"}, TypeError, "calls"),
        ({"seconds": 0}, ValueError, "seconds must be more than 0, not 0"),
        ({"seconds": float("nan")}, ValueError, "seconds"),
        ({"timeout": -1}, ValueError, "timeout"),
        ({"seed": "x"}, TypeError, "seed"),
        ({"yields": 1.5}, ValueError, "yields must be between 0 and 1, not 1.5"),
        ({"fn": None}, TypeError, "fn must be a function"),
        ({"fn": coroutine}, TypeError, "only makes a coroutine or generator"),
        ({"fn": Awaited()}, TypeError, "only makes a coroutine or generator"),
        ({"fn": functools.partial(Awaited())}, TypeError, "only makes a coroutine or generator"),
        ({"fn": generator}, TypeError, "only makes a coroutine or generator"),
        ({"fn": lambda one, two: None}, TypeError, r"takes \(one, two\)"),
        ({"fn": lambda *, named: None}, TypeError, "named"),
    ],
)
def test_refused(arguments: dict[str, Any], error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named):
        hammer(**{"fn": lambda: pytest.fail("it ran"), "calls": 1, **arguments})


# ---- failures -------------------------------------------------------------------------------------------

def test_first_exception_is_raised_with_thread_call_and_seed() -> None:
    mine = ValueError("broken")

    def fail(me: Worker) -> None:
        if me.thread == 2 and me.calls == 3:
            raise mine

    began = time.monotonic()
    with pytest.raises(ValueError, match="broken") as caught:
        hammer(fail, threads=4, seconds=600, seed=17)
    assert time.monotonic() - began < 200  # the others stopped soon
    assert caught.value is mine
    assert "in thread 2 of 4, its call 4, seed 17" in notes(mine)
    files = [(Path(frame.filename).name, frame.name) for frame in traceback.extract_tb(mine.__traceback__)]
    here = Path(__file__).name
    assert files == [(here, "test_first_exception_is_raised_with_thread_call_and_seed"), ("_hammer.py", "hammer"),
                     (here, "fail")]


def test_more_failures_are_told() -> None:
    met = threading.Barrier(3, timeout=20)

    def fail() -> None:
        met.wait()
        raise KeyError("each of them")

    with pytest.raises(KeyError) as caught:
        hammer(fail, threads=3)
    assert "2 more failed: KeyError in thread" in notes(caught.value)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, pytest.fail.Exception])
def test_exceptions_that_are_no_exceptions(kind: type[BaseException]) -> None:
    def fail() -> None:
        raise kind("out")

    with pytest.raises(kind):
        hammer(fail, threads=2)


@pytest.mark.skipif(sys.version_info >= (3, 11), reason="there the interpreter prints notes")
def test_note_is_readable_before_notes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError):
        hammer(lambda: 1 / 0, threads=1, seed=5)
    assert "in thread 0 of 1, its call 1, seed 5 (ZeroDivisionError: division by zero)" in capsys.readouterr().err


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_kept_alive(fails: bool) -> None:
    class Holder:
        def work(self) -> None:
            assert not fails

    holder = Holder()
    gone = weakref.ref(holder)
    gc.collect()
    gc.disable()
    try:
        if fails:
            with pytest.raises(AssertionError) as caught:
                hammer(holder.work, threads=2, calls=1)
            del caught
            gc.collect()  # pytest.raises itself makes a cycle
        else:
            hammer(holder.work, threads=2, calls=1)
        del holder
        assert gone() is None
    finally:
        gc.enable()


def test_no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    start, calls = threading.Thread.start, []

    def short(self: threading.Thread) -> None:
        if self.name == "hammer-3":
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", short)
    with pytest.raises(RuntimeError, match="can't start"):
        hammer(lambda: calls.append(1), threads=4)
    assert calls == []


# ---- hangs ----------------------------------------------------------------------------------------------

def test_deadlock_is_told_with_every_stack() -> None:
    locks, end, met = (threading.Lock(), threading.Lock()), threading.Event(), threading.Barrier(2, timeout=20)

    def take_second(first: threading.Lock, second: threading.Lock) -> None:
        with first:
            met.wait()
            while not end.is_set():
                if second.acquire(timeout=0.05):
                    second.release()

    began = time.monotonic()
    with pytest.raises(Hung) as caught:
        hammer(lambda me: take_second(*(locks if me.thread else locks[::-1])), threads=2, seconds=0.1, timeout=0.5)
    end.set()
    assert time.monotonic() - began < 200
    told = str(caught.value)
    assert "2 of 2 threads have finished no call for 0.5 s" in told
    for thread in ("hammer-0", "hammer-1"):
        assert f"thread {thread!r}" in told
    assert told.count("in take_second") == 2


def test_long_calls_are_no_hang() -> None:
    """Another thread's call ends in time each time: something moves."""
    hammer(lambda me: time.sleep(0.4 if me.thread else 0.02), threads=2, calls=3, timeout=0.9)


@pytest.mark.parametrize("calls", [None, 2])
def test_one_stuck_thread_is_told(calls: int | None) -> None:
    end = threading.Event()

    def work(me: Worker) -> None:
        if me.thread == 1:
            end.wait(20)

    with pytest.raises(Hung, match="1 of 3 threads") as caught:
        hammer(work, threads=3, calls=calls, seconds=0.1 if calls is None else None, timeout=0.4)
    end.set()
    assert "hammer-1" in str(caught.value)
    assert "hammer-0" not in str(caught.value)


def test_failure_goes_before_a_hang_that_follows_from_it() -> None:
    end, met = threading.Event(), threading.Barrier(2, timeout=20)

    def work(me: Worker) -> None:
        met.wait()
        if me.thread == 0:
            raise ValueError("died with the lock")
        end.wait(20)

    with pytest.raises(ValueError, match="died with the lock") as caught:
        hammer(work, threads=2, timeout=0.3)
    end.set()
    assert "1 of 2 threads have finished no call" in notes(caught.value)
    assert "end.wait(20)" in notes(caught.value)


# ---- watch ----------------------------------------------------------------------------------------------

def test_watch_sees_the_run_and_its_end() -> None:
    seen: list[int] = []
    done: list[int] = []

    def work() -> None:
        while len(seen) < 3:
            time.sleep(0.001)
        done.append(1)

    result = hammer(work, threads=2, calls=1, watch=lambda: seen.append(len(done)))
    assert result.watches == len(seen) >= 4
    assert seen[:3] == [0, 0, 0]
    assert seen[-1] == 2


def test_last_watch_begins_after_the_end() -> None:
    """One that was under way when the last call ended has not seen it."""
    count: list[int] = []
    seen: list[int] = []

    def watch() -> None:
        before = len(count)
        if not seen:
            time.sleep(0.3)
        seen.append(before)

    hammer(lambda: count.append(1), threads=2, calls=1, watch=watch)
    assert seen[-1] == 2


def test_failing_watch_ends_the_run() -> None:
    began = time.monotonic()
    count: list[int] = []

    def watch() -> None:
        assert len(count) < 5, "too many"

    with pytest.raises(AssertionError, match="too many") as caught:
        hammer(lambda: count.append(1), threads=2, seconds=600, watch=watch)
    assert time.monotonic() - began < 200
    assert "in the watch, seed" in notes(caught.value)


def test_watch_that_fails_at_the_end_only() -> None:
    done: list[int] = []

    def watch() -> None:
        assert len(done) < 2, "seen at rest"

    with pytest.raises(AssertionError, match="seen at rest"):
        hammer(lambda: done.append(1), threads=2, calls=1, watch=watch)


def test_a_timeout_longer_than_any_wait_is_for_ever() -> None:
    assert hammer(lambda: None, threads=2, calls=1, watch=lambda: None, timeout=float("inf")).total == 2


def test_watch_that_hangs_is_told() -> None:
    end = threading.Event()
    with pytest.raises(Hung, match="watch did not return for 0.3 s"):
        hammer(lambda: None, threads=2, calls=1, watch=lambda: end.wait(20), timeout=0.3)
    end.set()


def test_a_pool_of_this_library_while_it_works() -> None:
    pool = deferpool.RecordPool(sizes=(64,), cap=4, limit=8)

    def work(me: Worker) -> None:
        for record in [pool.new(64) for _ in range(me.random.randrange(16))]:
            pool.free(record)

    assert hammer(work, threads=4, seconds=0.5, watch=lambda: assert_bounded(pool)).watches > 1


# ---- changes of place -----------------------------------------------------------------------------------

@with_gil
def test_switch_interval_is_tiny_meanwhile() -> None:
    hammer(lambda: sys.getswitchinterval() == pytest.approx(INTERVAL_S) or 1 / 0, threads=2, calls=5)


def test_overlapping_runs_restore_what_was_before_both() -> None:
    before = sys.getswitchinterval()
    with tiny_switch_interval():
        inner = tiny_switch_interval()
        with inner:
            assert sys.getswitchinterval() == pytest.approx(INTERVAL_S)
        assert sys.getswitchinterval() == pytest.approx(INTERVAL_S)
    assert sys.getswitchinterval() == before
    hammer(lambda: hammer(lambda: None, threads=2, calls=3), threads=3, calls=3)
    assert sys.getswitchinterval() == before


class Peek:
    """Two callers can get the same item, between two bytecodes at which no interpreter with the GIL changes threads."""

    def __init__(self) -> None:
        self.free: list[object] = []
        self.twice = 0

    def use(self) -> None:
        free = self.free
        if free:
            item = free[-1]
            self.free = free[:-1]
        else:
            item = [0]
        self.hold(item)

    def hold(self, item: Any) -> None:
        item[0] += 1
        self.twice += item[0] != 1
        item[0] -= 1
        self.free = [*self.free, item][-4:]


@with_gil
@pytest.mark.parametrize("yields", [None, 0.05])
def test_yields_open_what_the_gil_closes(yields: float | None) -> None:
    pool = Peek()

    def work() -> None:
        pool.use()
        assert not pool.twice

    with pytest.raises((AssertionError, IndexError)):
        hammer(work, seconds=20, yields=yields)


@pytest.mark.parametrize("yields", [None, 0, 0.5])
def test_which_threads_are_traced(yields: float | None) -> None:
    traced: dict[int, bool] = {}
    hammer(lambda me: traced.update({me.thread: sys.gettrace() is not None}), threads=4, calls=1, yields=yields)
    on = has_gil() if yields is None else bool(yields)
    assert traced == {thread: on and thread % 2 == 1 for thread in range(4)}


@pytest.mark.parametrize(("yields", "least", "most"), [(0, 0, 0), (0.01, 10, 2_000), (0.2, 200, 20_000)])
def test_traced_threads_sleep_as_often_as_they_should(
    monkeypatch: pytest.MonkeyPatch, yields: float, least: int, most: int
) -> None:
    slept: list[str] = []
    monkeypatch.setattr(time, "sleep", lambda seconds: slept.append(threading.current_thread().name))

    def work() -> None:  # more than 1,500 bytecodes, more than 500 lines
        for _ in range(250):
            len(slept)

    for _ in range(3):  # without a GIL CPython 3.13 may lose a thread's tracing when another runs the same code
        slept.clear()
        hammer(work, threads=2, calls=3, yields=yields, seed=5)
        if has_gil() or len(slept) >= least:
            break
    assert least <= len(slept) <= most
    assert set(slept) <= {"hammer-1"}


def test_own_functions_are_not_slept_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause between the pool's acquire and the record of it would hide what `Checked` looks for."""
    slept: list[str] = []
    monkeypatch.setattr(time, "sleep", lambda seconds: slept.append(sys._getframe(2).f_code.co_filename))
    checked: Checked[list[int]] = Checked(list, id)
    hammer(lambda: checked.release(checked.acquire()), threads=1, calls=20, yields=1)
    assert __file__ in slept
    assert not [file for file in slept if file.startswith(testing.__path__[0])]


def test_threads_that_are_traced_already_are_left_alone() -> None:
    def tracer(frame: FrameType, event: str, arg: Any) -> None:
        return None

    before = getattr(threading, "_trace_hook", None)
    seen = []
    threading.settrace(tracer)
    try:
        hammer(lambda: seen.append(sys.gettrace()), threads=2, calls=2, yields=0.5)
    finally:
        threading.settrace(before)
    assert seen == [tracer] * 4


# ---- Ctrl-C ---------------------------------------------------------------------------------------------

INTERRUPTED = """if True:
    import signal, sys, threading, time
    from deferpool.testing import hammer
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is told to ignore it
    before = sys.getswitchinterval()
    def work(me):
        if me.thread == me.calls == 0:
            print("running", flush=True)
        time.sleep(0.001)
    try:
        hammer(work, threads=4, seconds=600)
    except KeyboardInterrupt:
        assert threading.active_count() == 1, threading.enumerate()
        assert sys.getswitchinterval() == before
        print("ended")
"""


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_ends_the_threads_first() -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(deferpool.__file__).parent.parent)}
    began = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED], env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "ended\n"
    assert process.returncode == 0
    assert time.monotonic() - began < 200


# ---- the crew -------------------------------------------------------------------------------------------

def test_nobody_starts_before_all_are_there() -> None:
    crew = Crew()
    settled: list[int] = []
    seen: list[int] = []

    def settle(index: int) -> None:
        time.sleep(0.01 * index)
        settled.append(index)

    for index in range(4):
        crew.start(index, lambda: seen.append(len(settled)), before=lambda index=index: settle(index))  # type: ignore[misc]
    assert seen == []
    crew.go()
    assert crew.join(20)
    assert seen == [4] * 4
    crew.start(4, lambda: seen.append(9))  # the gate is open
    assert crew.join(20)
    assert seen[4:] == [9]
    crew.go()  # and stays so


def test_failures_have_their_index_and_are_told_at_once() -> None:
    told = []
    crew = Crew("mine", on_failure=lambda failure: told.append((failure.index, threading.current_thread().name)))
    crew.start(7, lambda: None)
    crew.start(8, lambda: 1 / 0)
    crew.start(9, lambda: pytest.fail("it ran"), before=lambda: [][0])  # fails before the gate: no one waits
    crew.go()
    assert crew.join(20)
    assert sorted((each.index, type(each.error)) for each in crew.failures) == [(8, ZeroDivisionError), (9, IndexError)]
    assert sorted(told) == [(8, "mine-8"), (9, "mine-9")]


def test_called_off() -> None:
    crew = Crew()
    for index in range(3):
        crew.start(index, lambda: pytest.fail("it ran"))
    crew.call_off()
    assert crew.join(20)
    assert crew.failures == []


def test_join_says_whether_all_ended_and_stacks_where_they_are() -> None:
    crew, end = Crew(), threading.Event()
    crew.start(0, lambda: None)
    stuck = crew.start(1, lambda: end.wait(20))
    crew.go()
    assert not crew.join(0.2)
    assert crew.running() == [stuck]
    assert "end.wait(20)" in stacks(crew.running())
    end.set()
    assert crew.join(20)
    assert "it has ended" in stacks([stuck])


def test_every_public_name_is_there() -> None:
    from deferpool import testing

    assert [name for name in testing.__all__ if not hasattr(testing, name)] == []
    assert set(testing.__all__) <= set(dir(testing))
    assert not hasattr(testing, "nothing")
