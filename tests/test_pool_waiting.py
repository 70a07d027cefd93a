"""max_live: what is out and cached together is bounded, acquire waits its turn, and nobody who waits is forgotten."""
from __future__ import annotations

import gc
import os
import queue
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from helpers import CPUS, Mode, output_of, run_threads
from pool_helpers import Thing, assert_at_rest, fill, raising, small

from deferpool import Pool

PATIENCE = 10  # seconds for what needs milliseconds


def until(condition: Callable[[], object]) -> None:
    """What must come true soon."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0)


def waiting(pool: Pool[Any], n: int) -> None:
    until(lambda: pool.stats()["waiting"] == n)


class Waiters:
    """Threads that acquire one after the other, in an order that is sure."""

    def __init__(self, pool: Pool[Any]) -> None:
        self.pool = pool
        self.threads: list[threading.Thread] = []
        self.served: list[tuple[int, Any]] = []
        self.errors: list[BaseException] = []
        self.ended: list[int] = []

    def add(self, timeout: float | None = None) -> None:
        number = len(self.threads)

        def work() -> None:
            try:
                thing = self.pool.acquire(PATIENCE if timeout is None else timeout)
                self.served.append((number, thing))
            except BaseException as error:
                self.errors.append(error)
            self.ended.append(number)

        self.threads.append(threading.Thread(target=work, daemon=True))
        self.threads[-1].start()
        until(lambda: self.pool.stats()["waiting"] + len(self.ended) == len(self.threads))

    def join(self) -> None:
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


def test_no_more_than_max_live(mode: Mode) -> None:
    made: list[Thing] = []
    most = 3
    pool = small(mode, new=lambda: made.append(Thing()) or made[-1], max_live=most)  # type: ignore[func-returns-value]
    out: deque[int] = deque()
    highest: list[int] = []

    def work() -> None:
        for i in range(300):
            with pool.lease(timeout=PATIENCE) as thing:
                out.append(1)
                highest.append(len(out))
                if i % 10 == 0:
                    time.sleep(0.0001)
                out.pop()
                assert type(thing) is Thing

    run_threads(*[work] * 8)
    assert max(highest) <= most
    assert len(made) <= most
    assert_at_rest(pool)
    assert pool.stats()["waiting"] == 0
    assert pool.bound == most == pool.max_live


def test_first_come_first_served(mode: Mode) -> None:
    pool = small(mode, max_live=1)
    thing = pool.acquire()
    waiters = Waiters(pool)
    for _ in range(10):
        waiters.add()
    for n in range(10):
        pool.release(thing)
        until(lambda n=n: len(waiters.served) == n + 1)  # type: ignore[misc]
    waiters.join()
    assert waiters.served == [(n, thing) for n in range(10)]
    pool.release(thing)
    assert_at_rest(pool)


def test_nobody_is_passed_over_by_later_ones_in_10_000_waits(mode: Mode) -> None:
    """Who is served goes to the end of the line, and is waited for there: so the order of coming is sure."""
    crowd = 4
    pool = small(mode, max_live=1)
    thing = pool.acquire()
    served: queue.SimpleQueue[int] = queue.SimpleQueue()
    go = [threading.Semaphore(0) for _ in range(crowd)]
    ended = threading.Event()

    def stand_in_line(number: int) -> None:
        while go[number].acquire() and not ended.is_set():
            assert pool.acquire(timeout=PATIENCE) is thing
            served.put(number)

    def conduct() -> None:
        for number in range(crowd):
            go[number].release()
            waiting(pool, number + 1)
        try:
            for step in range(10_000):
                pool.release(thing)
                assert served.get(timeout=PATIENCE) == step % crowd
                if step < 10_000 - crowd:
                    go[step % crowd].release()
                    waiting(pool, crowd)
        finally:
            ended.set()
            for number in range(crowd):
                go[number].release()

    run_threads(conduct, *[partial(stand_in_line, number) for number in range(crowd)])
    pool.release(thing)
    assert_at_rest(pool)
    assert pool.stats()["created"] == 1


def test_who_comes_while_others_wait_does_not_take_what_is_cached(mode: Mode) -> None:
    """The first in line is being woken, the object is its own: nobody else gets it, with or without a time-out."""
    pool = small(mode, max_live=1)
    thing = pool.acquire()
    waiters = Waiters(pool)
    waiters.add()
    for timeout in (0, 0.001):
        with pytest.raises(TimeoutError, match=f"nothing became free within {float(timeout)} s"):
            pool.acquire(timeout)
    pool.release(thing)
    waiters.join()
    assert waiters.served == [(0, thing)]


@pytest.mark.parametrize("way", ["release", "discard", "clear", "reset raises", "drop"])
def test_whoever_makes_room_serves_the_line(mode: Mode, way: str) -> None:
    pool = small(mode, max_live=1, reset=raising(ValueError("no")) if way == "reset raises" else None)
    thing = pool.acquire()
    waiters = Waiters(pool)
    waiters.add()
    if way == "release":
        pool.release(thing)
    elif way == "discard":
        pool.discard(thing)
    elif way == "reset raises":
        with pytest.raises(ValueError, match="no"):
            pool.release(thing)
    elif way == "drop":  # a lease that is forgotten
        pool.release(thing)
        waiters.join()
        pool.release(waiters.served.pop()[1])
        lease = pool.lease()
        thing = lease.__enter__()
        waiters.add()
        del lease
    else:
        pool.release(thing)
        pool.clear()
    waiters.join()
    assert [number for number, _ in waiters.served] == [len(waiters.threads) - 1]
    pool.release(waiters.served[0][1]) if way != "reset raises" else pool.discard(waiters.served[0][1])
    assert_at_rest(pool)


@pytest.mark.skipif(CPUS < 2, reason="needs two CPUs")
def test_the_only_free_object_lies_on_an_idle_p(mode: Mode) -> None:
    sched = mode.sched(CPUS)
    cpus = sorted(os.sched_getaffinity(0))
    pool = Pool(Thing, max_live=1, sched=sched)
    kept: list[Thing] = []
    ready, done = threading.Event(), threading.Event()

    def elsewhere() -> None:
        os.sched_setaffinity(0, {cpus[1]})
        kept.append(pool.acquire())
        pool.release(kept[0])
        ready.set()
        done.wait(PATIENCE)  # a thread that lives on, so that nothing is given back at its end

    def here() -> None:
        os.sched_setaffinity(0, {cpus[0]})
        ready.wait(PATIENCE)
        try:
            holding = [i for i, counts in enumerate(pool.stats()["per_p"]) if counts[0]]
            assert len(holding) == 1
            assert pool.acquire(timeout=PATIENCE) is kept[0]
        finally:
            done.set()

    run_threads(elsewhere, here)
    assert_at_rest(pool, live=1)
    stats = pool.stats()
    assert (stats["created"], stats["gets"], stats["puts"]) == (1, 2, 1)


def test_a_wait_that_ends_leaves_no_trace(mode: Mode) -> None:
    pool = small(mode, max_live=1)
    thing = pool.acquire()
    for _ in range(300):
        with pytest.raises(TimeoutError):
            pool.acquire(timeout=0)
    assert pool.stats()["waiting"] == 0
    waiters = Waiters(pool)
    waiters.add(timeout=0.02)
    waiters.add(timeout=PATIENCE)
    until(lambda: waiters.errors)
    pool.release(thing)
    waiters.join()
    assert [number for number, _ in waiters.served] == [1]
    assert [type(error) for error in waiters.errors] == [TimeoutError]
    pool.release(thing)
    assert_at_rest(pool)


def test_time_outs_and_releases_at_the_same_moment_lose_nothing(mode: Mode) -> None:
    pool = small(mode, max_live=2)
    got = []

    def impatient() -> None:
        for i in range(400):
            try:
                thing = pool.acquire(timeout=(i % 7) * 1e-5)
            except TimeoutError:
                continue
            got.append(1)
            pool.release(thing)

    run_threads(*[impatient] * 6)
    assert got
    stats = pool.stats()
    assert (stats["waiting"], stats["live"]) == (0, 0)
    assert stats["created"] <= 2
    assert_at_rest(pool)
    assert len({pool.acquire(timeout=0) for _ in range(2)}) == 2


def test_a_bad_object_is_replaced_without_losing_the_turn(mode: Mode) -> None:
    pool = small(mode, max_live=1, check=lambda thing: thing.held != "bad")
    thing = pool.acquire()
    waiters = Waiters(pool)
    waiters.add()
    waiters.add()
    thing.held = "bad"
    pool.release(thing)
    until(lambda: len(waiters.served) == 1)
    assert waiters.served[0][0] == 0
    assert waiters.served[0][1] is not thing
    pool.release(waiters.served[0][1])
    waiters.join()
    assert pool.stats()["created"] == 2
    assert_at_rest(pool, live=1)


def test_when_new_raises_the_next_in_line_may_try(mode: Mode) -> None:
    broken = threading.Event()

    def new() -> Thing:
        if broken.is_set():
            broken.clear()
            raise ValueError("once")
        return Thing()

    pool = small(mode, new=new, max_live=1)
    thing = pool.acquire()
    waiters = Waiters(pool)
    waiters.add()
    waiters.add()
    broken.set()
    pool.discard(thing)
    waiters.join()
    assert [str(error) for error in waiters.errors] == ["once"]
    assert [number for number, _ in waiters.served] == [1]
    assert_at_rest(pool, live=1)


def test_close_tells_those_who_wait(mode: Mode) -> None:
    pool = small(mode, max_live=1, name="ended")
    thing = pool.acquire()
    waiters = Waiters(pool)
    for _ in range(3):
        waiters.add()
    pool.close()
    waiters.join()
    assert [str(error) for error in waiters.errors] == ["<deferpool.Pool 'ended' of Thing> is closed"] * 3
    pool.release(thing)
    assert_at_rest(pool)


def test_closed_between_the_look_and_the_line() -> None:
    """A finalizer closes the pool when the one who is to wait has looked already: it must not wait for ever."""
    code = """
import gc, threading
from deferpool import Pool
pool = Pool(list, max_live=1)
thing = pool.acquire()
class Closer:
    def __del__(self):
        pool.close()
def use():
    gc.disable()
    closer = Closer()
    closer.me = closer
    del closer
    gc.set_threshold(1)
    gc.enable()
    try:
        pool.acquire()
    except RuntimeError as error:
        print(error)
thread = threading.Thread(target=use, daemon=True)
thread.start()
thread.join(0.5)
if not pool.closed:                             # where the collector waits for the next bytecode
    pool.close()
thread.join(10)
assert not thread.is_alive()
pool.release(thing)
print(pool.stats()["created"])
"""
    assert output_of(code) == "<deferpool.Pool of list> is closed\n1"


def test_nothing_is_made_in_a_closed_pool(mode: Mode) -> None:
    pool = small(mode, new=lambda: pool.close() or Thing(), max_live=1)  # type: ignore[func-returns-value]
    with pytest.raises(RuntimeError, match="is closed"):
        pool.acquire()
    assert_at_rest(pool)


def test_the_same_object_twice_is_refused(mode: Mode) -> None:
    same = Thing()
    pool = small(mode, new=lambda: same, max_live=2)
    assert pool.acquire() is same
    with pytest.raises(ValueError, match="new returned an object that is out already"):
        pool.acquire()
    pool.release(same)
    assert pool.acquire(timeout=0) is same


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("new", [Thing, bytearray, list])
def test_one_that_was_lost_does_not_stand_in_the_way_of_one_in_its_place(
    mode: Mode, new: Callable[[], Any], debug: bool
) -> None:
    """Python makes the next object where the last one was."""
    pool = small(mode, new=new, max_live=200, debug=debug)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for _ in range(50):
            pool.acquire()
        for _ in range(50):
            thing = pool.acquire()
            pool.discard(thing)
            del thing
        assert pool.stats()["live"] == 50
        del pool


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
def test_nobody_waits_in_a_forked_child() -> None:
    """Those who did have stayed behind, and are not counted."""
    code = """if True:
        import os, threading, time, deferpool
        pool = deferpool.Pool(list, max_live=1)
        thing = pool.acquire()
        waiting = threading.Thread(target=pool.acquire)
        waiting.start()
        while not pool.stats()["waiting"]:
            time.sleep(0.001)
        child = os.fork()
        if child == 0:
            os._exit(pool.stats()["waiting"])
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), pool.stats()["waiting"])
        pool.release(thing)
        waiting.join()
    """
    assert output_of(code) == "0 1"


def test_drain_waits_for_what_is_out(mode: Mode) -> None:
    for most in (None, 4):
        pool = small(mode, max_live=most)
        things = [pool.acquire() for _ in range(4)]
        ended = threading.Event()

        def drain(pool: Pool[Any] = pool, ended: threading.Event = ended) -> None:
            pool.drain(timeout=PATIENCE)
            ended.set()

        thread = threading.Thread(target=drain)
        thread.start()
        until(lambda pool=pool: pool.closed)  # type: ignore[misc]
        for thing in things:
            assert not ended.is_set()
            pool.release(thing)
        thread.join(PATIENCE)
        assert ended.is_set()
        assert_at_rest(pool)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer that signals")
def test_ctrl_c_while_waiting(mode: Mode) -> None:
    pool = small(mode, max_live=1)
    thing = pool.acquire()
    before = signal.signal(signal.SIGALRM, lambda *_: signal.default_int_handler(signal.SIGINT, None))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            pool.acquire(timeout=PATIENCE)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert pool.stats()["waiting"] == 0
    pool.release(thing)
    assert pool.acquire(timeout=0) is thing


def test_what_is_not_out_cannot_be_released(mode: Mode) -> None:
    pool = small(mode, max_live=2, name="two")
    thing = pool.acquire()
    pool.release(thing)
    for call in (pool.release, pool.discard):
        for wrong in (thing, Thing()):
            with pytest.raises(ValueError, match="is not out of <deferpool.Pool 'two' of Thing>"):
                call(wrong)
    assert_at_rest(pool)
    assert len({pool.acquire(timeout=0) for _ in range(2)}) == 2
    with pytest.raises(TimeoutError):
        pool.acquire(timeout=0)


def test_max_live_below_what_the_caches_could_hold(mode: Mode) -> None:
    pool = small(mode, max_live=5, cap=32, limit=None)
    fill(pool, 5)
    assert pool.stats()["cached"] == pool.bound == 5


def test_finalizers_that_release_while_others_wait(mode: Mode) -> None:
    """An object that is dropped gives another one back: in the middle of whatever the pool is doing."""
    pool = small(mode, max_live=3, cap=2, limit=0)

    class Keeper:
        def __init__(self, thing: Thing) -> None:
            self.thing = thing
            self.me = self  # only the collector ends it

        def __del__(self) -> None:
            pool.release(self.thing)

    def work() -> None:
        for i in range(120):
            Keeper(pool.acquire(timeout=PATIENCE))
            if i % 3 == 0:
                gc.collect(0)

    def collector() -> None:
        for _ in range(4_000):
            gc.collect(0)
            if not any(thread.is_alive() for thread in workers):
                break
            time.sleep(0.0005)

    gc.collect()
    gc.freeze()  # without a GIL each collection is of all there is: not of what other tests have left
    try:
        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers:
            worker.start()
        collector()
        until(lambda: gc.collect() >= 0 and not any(worker.is_alive() for worker in workers))
    finally:
        gc.unfreeze()
    gc.collect()
    assert_at_rest(pool)
    assert pool.stats()["created"] <= 3 + pool.stats()["destroyed"]


def test_a_check_that_raises_leaves_its_permit_to_others() -> None:
    fails = [True]

    def check(_thing: Thing) -> bool:
        if fails:
            raise ValueError("no")
        return True

    pool = Pool(Thing, check=check, max_live=1)
    pool.release(pool.acquire())
    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            pool.acquire(timeout=PATIENCE)
        pool.release(pool.acquire(timeout=PATIENCE))  # a new one
    fails.clear()
    pool.release(pool.acquire(timeout=PATIENCE))
    assert_at_rest(pool)


def test_to_drain_without_patience_is_refused_at_once() -> None:
    pool = Pool(Thing)
    thing = pool.acquire()
    with pytest.raises(TimeoutError):
        pool.drain(timeout=0)
    pool.release(thing)
    pool.drain(timeout=0)
