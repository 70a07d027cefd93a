"""Pool with threads: bounds, one owner, nothing lost; objects that finalizers give back; pools that threads share."""
from __future__ import annotations

import gc
import os
import sys
import threading
import weakref
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from helpers import Mode, output_of, run_python, run_threads
from pool_helpers import Thing, assert_at_rest, fill, small

import deferpool
from deferpool import Pool
from deferpool.testing import Checked
from stress import machine


def assert_bounded(pool: Pool[Any]) -> None:
    assert pool.stats()["cached"] <= pool.bound


@pytest.mark.parametrize("limit", [0, 7, 64])
def test_bounds_and_one_owner(mode: Mode, limit: int) -> None:
    pool = small(mode, cap=4, limit=limit)
    checked: Checked[Thing] = Checked(pool)

    def work() -> None:
        for depth in (1, 3, 9, 20) * 15:
            things = [checked.acquire() for _ in range(depth)]
            for thing in things:
                checked.release(thing)

    def watch() -> None:
        stats = pool.stats()
        assert stats["cached"] <= pool.bound
        assert stats["central"] <= limit

    run_threads(*[work] * 8, watch=watch)
    checked.close()
    assert_at_rest(pool)


def test_taken_on_one_thread_and_given_back_on_another(mode: Mode) -> None:
    import queue

    pool = small(mode, limit=50)
    line: queue.SimpleQueue[Any] = queue.SimpleQueue()
    n = 5_000

    def produce() -> None:
        for _ in range(n):
            line.put(pool.acquire())

    def consume() -> None:
        for _ in range(n):
            pool.release(line.get())

    run_threads(produce, consume, watch=partial(assert_bounded, pool))
    assert_at_rest(pool)


def test_clear_close_and_resize_while_threads_work(mode: Mode) -> None:
    sched = mode.sched(2)
    procs = sched.procs
    dropped: list[int] = []
    pool = Pool(Thing, cap=4, limit=40, sched=sched, on_drop=lambda _: dropped.append(1))
    closed = 0

    def work() -> None:
        nonlocal closed
        for _ in range(150):
            try:
                things = [pool.acquire() for _ in range(12)]
            except RuntimeError:
                closed += 1
                return
            for thing in things:
                pool.release(thing)

    def disturb() -> None:
        for i in range(30):
            pool.clear()
            sched.procresize(procs + i % 3)
            sched.clearpools()
            gc.collect()
        pool.close()

    run_threads(work, work, work, disturb)
    # what a thread had in hand when it met the closed pool went with it
    pool.drain(timeout=0) if pool.stats()["live"] == 0 else None
    stats = pool.stats()
    assert stats["cached"] == 0
    assert stats["created"] == stats["live"] + stats["destroyed"]
    assert len(dropped) == stats["destroyed"]


def test_closing_leaves_nothing_behind(mode: Mode) -> None:
    """A release that began before the pool was closed ends after it."""
    for _ in range(60):
        pool = small(mode, cap=4)
        things = [pool.acquire() for _ in range(40)]
        parts = [things[i::4] for i in range(4)]

        def give_back(part: list[Thing], pool: Pool[Any] = pool) -> None:
            for thing in part:
                pool.release(thing)

        run_threads(*[partial(give_back, part) for part in parts], pool.close)
        stats = pool.stats()
        assert (stats["cached"], stats["live"], stats["destroyed"]) == (0, 0, 40), stats


def test_one_lease_for_many_threads_breaks_nothing(mode: Mode) -> None:
    """That is not what it is for: one gets the object, others an error."""
    pool = small(mode)
    lease: Any = pool.lease()

    def work() -> None:
        for i in range(2_000):
            for call in (lease.__enter__, lambda: lease.__exit__(None, None, None), lease.discard)[: 2 + (i % 5 == 0)]:
                with suppress(RuntimeError):
                    call()

    run_threads(*[work] * 4)
    with suppress(RuntimeError):
        lease.__exit__(None, None, None)
    assert_at_rest(pool)


# ---- the collector, and finalizers ----------------------------------------------------------------------------------

def cycle() -> tuple[weakref.ref[Any], weakref.ref[Any]]:
    pool: Pool[Any] = Pool(Thing)
    thing = pool.acquire()
    thing.held = pool
    pool.release(thing)
    return weakref.ref(pool), weakref.ref(thing)


def test_an_object_that_refers_to_its_pool_is_collected_with_it() -> None:
    found = [cycle() for _ in range(20)]
    gc.collect()
    assert [(pool(), thing()) for pool, thing in found] == [(None, None)] * 20


def test_so_is_one_in_the_central_pool_and_one_that_cannot_be_cleared() -> None:
    gc.collect()
    gc.disable()
    try:
        box: list[Any] = []
        pool: Pool[Any] = Pool(lambda: (box[0],), clear_on_gc=False)
        box.append(pool)
        fill(pool, 100)
        assert pool.stats()["central"] > 0
        reference = weakref.ref(pool)
        del pool
        box.clear()
        gc.collect()
        assert reference() is None
    finally:
        gc.enable()


def test_the_collector_sees_what_is_cached_and_nothing_else() -> None:
    pool: Pool[Any] = Pool(Thing, clear_on_gc=False)
    things = [pool.acquire() for _ in range(50)]
    assert not [thing for thing in gc.get_referents(pool) if type(thing) is Thing]
    for thing in things:
        pool.release(thing)
    found = [id(thing) for thing in gc.get_referents(pool) if type(thing) is Thing]
    assert sorted(found) == sorted(map(id, things))


def test_functions_that_refer_to_their_pool() -> None:
    class Owner:
        def __init__(self) -> None:
            self.pool: Pool[Any] = Pool(self.new, reset=self.reset, check=self.reset, on_drop=self.reset)

        def new(self) -> Thing:
            return Thing()

        def reset(self, thing: Thing) -> bool:
            return True

    owner = Owner()
    fill(owner.pool, 40)
    reference = weakref.ref(owner)
    del owner
    gc.collect()
    assert reference() is None


def test_a_lease_in_a_cycle() -> None:
    pool: Pool[Any] = Pool(Thing)
    thing = Thing()
    thing.held = [thing, pool.lease()]
    thing.held[1].__enter__()
    reference = weakref.ref(thing)
    del thing
    gc.collect()
    assert reference() is None
    assert_at_rest(pool)


def test_thousands_of_finalizers_call_back(mode: Mode) -> None:
    pool = small(mode, cap=4, limit=10)
    ended: list[int] = []

    class Restless:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            ended.append(1)
            if len(ended) < 9_000 and not pool.closed:
                thing = pool.acquire()
                pool.release(Restless())
                pool.release(thing)
                pool.stats()

    def work() -> None:
        for _ in range(400):
            pool.release(Restless())
            things = [pool.acquire() for _ in range(5)]
            for thing in things:
                pool.release(thing)
            del things, thing

    def collect() -> None:
        for _ in range(30):
            gc.collect()
            deferpool.clearpools()
            pool.clear()

    run_threads(work, work, work, collect, watch=partial(assert_bounded, pool))
    gc.collect()
    assert len(ended) > 1_000
    stats = pool.stats()
    # the restless are foreign: given back without having been taken
    assert stats["created"] + (stats["puts"] - stats["gets"]) == stats["cached"] + stats["destroyed"]


# ---- many pools, and pools that many share --------------------------------------------------------------------------

def test_100_000_pools_leave_memory_flat() -> None:
    code = """
import gc, threading, ctypes
from deferpool import Pool
from deferpool.testing import Memory
class Thing: pass
def use(pool):
    for _ in range(8):
        pool.release(pool.acquire())
def rounds(n):
    for i in range(n):
        pool = Pool(Thing)
        use(pool)
        if i % 500 == 0:
            threads = [threading.Thread(target=use, args=(pool,)) for _ in range(2)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
def resident():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(open("/proc/self/statm").read().split()[1]) * 4096
rounds(25_000)
before = resident()
rounds(75_000)
print(resident() - before)
""".replace("from deferpool.testing import Memory\n", "")
    assert int(output_of(code)) < 2**20


not_counted = pytest.mark.skipif(machine.has_gil(), reason="with the GIL a pool is counted like any object")
SHARED = """
import gc, sys, threading, weakref
from deferpool import BufferPool, Pool
class Thing: pass
def use(pool):
    pool.release(pool.acquire()) if isinstance(pool, Pool) else pool.get(16).release()
def share(pools):                               # two threads in turns, so often that it is noticed
    go = [threading.Semaphore(1), threading.Semaphore(0)]
    def work(me):
        for _ in range(510):
            go[me].acquire()
            for pool in pools: use(pool)
            go[1 - me].release()
    threads = [threading.Thread(target=work, args=(me,)) for me in range(2)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
def is_shared(pool):
    return sys.getrefcount(pool) > 1_000_000
"""


@not_counted
def test_no_more_than_64_shared_pools_are_kept() -> None:
    code = SHARED + """
pools = [Pool(Thing, limit=0) for _ in range(100)]
share(pools)
kept = [weakref.ref(pool) for pool in pools]
for pool in pools: pool.close()
del pools, pool
gc.collect()
print(sum(reference() is not None for reference in kept))
"""
    assert output_of(code) == "64"


@not_counted
def test_pools_of_all_kinds_are_64_together() -> None:
    code = SHARED + """
pools = [Pool(Thing) if i % 2 else BufferPool((4096,)) for i in range(72)]
share(pools)
print(sum(map(is_shared, pools)))
"""
    assert output_of(code) == "64"


@not_counted
def test_a_shared_pool_that_was_dropped_gives_back_what_it_holds() -> None:
    code = SHARED + """
pool = Pool(Thing, clear_on_gc=False)
share([pool])
assert is_shared(pool)
things = [pool.acquire() for _ in range(20)]
seen = [weakref.ref(thing) for thing in things]
for thing in things: pool.release(thing)
del things, thing, pool
for _ in range(4): gc.collect()
print(sum(reference() is not None for reference in seen))
"""
    assert output_of(code) == "0"


# ---- fork ---------------------------------------------------------------------------------------------------------

@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_is_not_kept_waiting_by_those_who_waited_in_its_parent() -> None:
    code = """
import os, signal, threading, time, warnings
from deferpool import Pool
warnings.simplefilter("ignore", DeprecationWarning)
pool = Pool(list, max_live=1)
thing = pool.acquire()
threads = [threading.Thread(target=lambda: pool.release(pool.acquire())) for _ in range(3)]
for thread in threads: thread.start()
while pool.stats()["waiting"] < 3: time.sleep(0.001)
for _ in range(5):
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        try:
            pool.release(thing)
            for _ in range(3):
                assert pool.acquire(timeout=2) is thing
                assert pool.stats()["waiting"] == 0
                pool.release(thing)
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
pool.release(thing)
for thread in threads: thread.join()
print(pool.stats()["created"], pool.stats()["waiting"])
"""
    assert output_of(code) == "1 0"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_children_forked_while_threads_use_the_pool() -> None:
    code = """
import os, signal, threading, warnings
from deferpool import Pool
warnings.simplefilter("ignore", DeprecationWarning)
class Thing: pass
pool = Pool(Thing, cap=4, limit=20)
ended = threading.Event()
def work():
    while not ended.is_set():
        things = [pool.acquire() for _ in range(10)]
        for thing in things: pool.release(thing)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for _ in range(20):
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        try:
            things = [pool.acquire() for _ in range(200)]
            assert len(set(map(id, things))) == 200
            for thing in things: pool.release(thing)
            pool.clear()
            assert pool.stats()["cached"] == 0
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
ended.set()
for thread in threads: thread.join()
print(pool.stats()["live"])
"""
    assert output_of(code) == "0"


# ---- the end of the process -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("options", ["", "max_live=3", "debug=True", "on_drop=len, check=bool, reset=list.clear"])
def test_exit_with_busy_daemon_threads_is_quiet(options: str) -> None:
    code = f"""
import threading, time
from deferpool import Pool
pool = Pool(lambda: [1], {options})
def work():
    while True:
        with pool.lease() as thing:
            thing.append(1)
for _ in range(6):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
"""
    for _ in range(3):
        done = run_python(code)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_pool_that_lives_to_the_end_tells_on_drop() -> None:
    code = """
from deferpool import Pool
pool = Pool(list, on_drop=lambda thing, print=print: print("dropped", thing))
pool.release(pool.acquire())
"""
    assert output_of(code) == "dropped []"


def test_a_debugged_pool_that_lives_to_the_end_is_quiet() -> None:
    code = """
from deferpool import Pool
class Thing:
    def __init__(self):
        self.x = 1
pool = Pool(Thing, debug=True, on_drop=lambda thing, print=print: print(thing.x))
thing = pool.acquire()
pool.release(thing)
"""
    done = run_python(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_threads_that_end_leave_nothing(mode: Mode) -> None:
    pool = small(mode, cap=4, limit=16)
    for _ in range(30):
        threads = [threading.Thread(target=fill, args=(pool, 10)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert_at_rest(pool)
    assert pool.stats()["cached"] <= pool.bound
    assert sys.getrefcount(pool) < 1_000 or not machine.has_gil()
