"""Bounds of BufferPool, in buffers and in bytes: caps of classes, one limit for all of them, and what goes back."""
from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import pytest
from helpers import CountingAllocator, Mode, Source, assert_conserved, local, one_cpu, output_of, run_threads

import deferpool

KIB, MIB = 2**10, 2**20
THREE = (4096, 16384, 65536)


def fill(pool: deferpool.BufferPool, n: int, size: int) -> None:
    held = [pool.get(size) for _ in range(n)]
    for buffer in held:
        buffer.release()


def bytes_out(source: Source) -> int:
    with source.lock:
        return sum(source.sizes.values())


def local_bytes(pool: deferpool.BufferPool) -> int:
    return sum(cap * size for cap, size in zip(pool.caps, pool.classes, strict=True)) * pool.sched.procs


# ---- caps -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("procs", [1, 2, 3, 4, 16, 64, 500, 1024])
@pytest.mark.parametrize(
    "classes",
    [(4096, 16384, 65536, 262144, 1048576), (4096,), (64 * MIB,), (2 * MIB, 32 * MIB), range(4096, 2**17, 4096)],
)
def test_local_caches_hold_64_mib_by_default(procs: int, classes: Any) -> None:
    sched = deferpool.Sched(procs, portable=True, clear_on_gc=False)
    pool = deferpool.BufferPool(classes, sched=sched, allocator=CountingAllocator(meta=False).capsule)
    assert all(cap % 2 == 0 and 0 <= cap <= 32 for cap in pool.caps)
    assert local_bytes(pool) <= 64 * MIB
    assert pool.stats()["bound_bytes"] == local_bytes(pool) + 64 * MIB
    assert pool.bound == procs * sum(pool.caps) + 64 * MIB // pool.classes[0]


def test_caps_shrink_as_ps_and_classes_grow() -> None:
    def caps(procs: int, classes: Any = (4096, 16384, 65536, 262144, 1048576)) -> tuple[int, ...]:
        return deferpool.BufferPool(classes, sched=deferpool.Sched(procs, portable=True)).caps

    assert caps(1) == (32, 32, 32, 32, 32)
    assert caps(2) == (32, 32, 32, 32, 20)
    assert caps(8) == (32, 32, 32, 10, 2)
    assert caps(64) == (32, 14, 2, 0, 0)
    assert caps(1024) == (2, 0, 0, 0, 0)
    assert caps(64, [65536]) == (16,)
    assert caps(64, [65536, 131072]) == (8, 4)


@pytest.mark.parametrize("portable", [True, False])
def test_a_class_without_local_caches(portable: bool) -> None:
    """Straight to the central pool and back: nothing is spilled or refilled, and nothing is made that is there."""
    sched = deferpool.Sched(256, portable=portable, clear_on_gc=False)
    pool = deferpool.BufferPool(sched=sched)
    assert pool.caps[-1] == 0
    for _ in range(3):
        fill(pool, 10, MIB)
    stats = pool.stats()
    assert (stats["central"], local(stats), stats["created"], stats["central_bytes"]) == (10, 0, 10, 10 * MIB)
    assert (stats["refills"], stats["spills"], stats["gets"], stats["puts"]) == (0, 0, 30, 30)
    fill(pool, 70, MIB)
    stats = pool.stats()
    assert (stats["central_bytes"], stats["dropped"]) == (64 * MIB, 6)
    assert_conserved(pool)
    run_threads(*[partial(fill, pool, 8, MIB)] * 6)
    assert_conserved(pool)
    sched.procresize(300)
    sched.procresize(2)
    pool.clear()
    stats = pool.stats()
    assert (stats["cached"], stats["cached_bytes"], stats["created"]) == (0, 0, stats["destroyed"])


def test_classes_have_caps_of_their_own(mode: Mode) -> None:
    """On one P the local cache of each class fills up to its cap, and no further."""
    pool = deferpool.BufferPool(sched=mode.sched(8), limit_bytes=0)
    assert len(set(pool.caps)) > 2
    with one_cpu(mode):
        for size in pool.classes:
            fill(pool, 50, size)
    fullest = [max(each) for each in zip(*pool.stats()["per_p"], strict=True)]
    for most, cap in zip(fullest, pool.caps, strict=True):
        assert cap // 2 <= most <= cap
    assert_conserved(pool)


def test_a_cap_given_is_of_every_class() -> None:
    pool = deferpool.BufferPool(cap=6, sched=deferpool.Sched(500, portable=True))
    assert (pool.caps, pool.cap) == ((6,) * 5, 6)


def test_bound_follows_the_ps() -> None:
    sched = deferpool.Sched(2, portable=True, clear_on_gc=False)
    pool = deferpool.BufferPool(sched=sched)
    for procs in (7, 1, 64):
        sched.procresize(procs)
        assert pool.stats()["bound_bytes"] == local_bytes(pool) + 64 * MIB
        assert pool.bound == procs * sum(pool.caps) + 64 * MIB // 4096


# ---- one limit for all classes ----------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 4095, 4096, 65535, 65536, 100_000, 1_000_000])
def test_limit_in_bytes(mode: Mode, limit: int) -> None:
    allocator = CountingAllocator()
    pool = deferpool.BufferPool(THREE, cap=2, limit_bytes=limit, sched=mode.sched(1), allocator=allocator.capsule)
    assert (pool.limit, pool.limit_bytes) == (None, limit)
    for size in (65536, 4096, 16384, 4096, 65536):
        fill(pool, 300, size)
        stats = pool.stats()
        assert stats["central_bytes"] <= limit
        assert stats["cached_bytes"] <= stats["bound_bytes"] == local_bytes(pool) + limit
        assert stats["cached"] <= stats["bound"]
        assert bytes_out(allocator.items) == stats["cached_bytes"]
        assert_conserved(pool)
        pool.sched.clearpools()


def test_room_goes_from_class_to_class(mode: Mode) -> None:
    """What small buffers have had, large ones can have, to the last unit that fits; and back."""
    pool = deferpool.BufferPool(THREE, cap=2, limit_bytes=10 * 65536, sched=mode.sched(1))
    kept: list[deferpool.Buffer] = []
    for size in (4096, 65536, 16384) * 3:
        fill(pool, 400, size)
        assert pool.stats()["central_bytes"] == 10 * 65536
        taken = [pool.get(size) for _ in range(10 * 65536 // size + 50)]
        assert pool.stats()["central"] == 0
        kept.clear()  # into the room that those have left
        pool.sched.clearpools()
        kept = taken


def test_what_is_too_little_for_one_class_is_not_lost(mode: Mode) -> None:
    pool = deferpool.BufferPool(THREE, cap=2, limit_bytes=65536 + 4096 + 100, sched=mode.sched(1))
    for _ in range(3):
        fill(pool, 20, 65536)
        assert pool.stats()["central_bytes"] == 65536
        fill(pool, 20, 4096)
        assert pool.stats()["central_bytes"] == 65536 + 4096
        pool.clear()
        fill(pool, 40, 4096)
        assert pool.stats()["central_bytes"] == 17 * 4096
        pool.clear()


def test_room_for_a_part_of_a_buffer_is_room_for_none() -> None:
    """A spill has left it with its stripe; then the items of a removed P come there one by one."""
    allocator = CountingAllocator()
    sched = deferpool.Sched(2, portable=True, clear_on_gc=False)
    pool = deferpool.BufferPool([12288], cap=4, limit_bytes=16384, sched=sched, allocator=allocator.capsule)
    for _ in range(4):
        run_threads(partial(fill, pool, 8, 1), partial(fill, pool, 8, 1))  # new threads: one on each P
        sched.procresize(1)
        stats = pool.stats()
        assert bytes_out(allocator.items) == stats["cached_bytes"] <= stats["bound_bytes"]
        assert stats["central_bytes"] == 12288
        assert_conserved(pool)
        sched.procresize(2)


def test_limit_in_buffers(mode: Mode) -> None:
    pool = deferpool.BufferPool(THREE, cap=2, limit=10, sched=mode.sched(1))
    assert (pool.limit, pool.limit_bytes) == (10, None)
    fill(pool, 40, 65536)
    stats = pool.stats()
    assert (stats["central"], stats["central_bytes"]) == (10, 10 * 65536)
    assert stats["bound_bytes"] == local_bytes(pool) + 10 * 65536
    assert pool.bound == stats["bound"] == pool.sched.procs * 6 + 10
    fill(pool, 40, 4096)
    assert pool.stats()["central"] == 10


@pytest.mark.parametrize("threads", [2, 16])
def test_limit_in_bytes_while_threads_run(mode: Mode, threads: int) -> None:
    """The allocator's own count: what is out is held by a thread, cached, or in the one batch that each moves."""
    allocator = CountingAllocator()
    sched = mode.sched(2)
    limit, cap, depth, rounds = 150_000, 4, 9, 240 // threads
    pool = deferpool.BufferPool(THREE, cap=cap, limit_bytes=limit, sched=sched, allocator=allocator.capsule)
    bound = local_bytes(pool) + limit

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(rounds):
            fill(pool, depth, chance.choice(THREE))

    def watch() -> None:
        out = bytes_out(allocator.items)
        stats = pool.stats()
        assert stats["central_bytes"] <= limit
        assert stats["cached_bytes"] <= bound
        assert out <= bound + threads * (depth + cap // 2) * THREE[-1]

    run_threads(*[partial(work, seed) for seed in range(threads)], watch=watch)
    assert bytes_out(allocator.items) == pool.stats()["cached_bytes"] <= bound
    assert_conserved(pool)
    pool.clear()
    fill(pool, 100, 4096)  # no room was lost on the way
    assert pool.stats()["central_bytes"] == limit // 4096 * 4096
    pool.clear()
    assert allocator.items.out == 0


# ---- clear, collections, resize ---------------------------------------------------------------------------


def test_clear_and_clearpools(mode: Mode) -> None:
    pool = deferpool.BufferPool(cap=2, sched=mode.sched(1))
    for size in pool.classes:
        fill(pool, 20, size)
    before = pool.stats()
    assert before["central"] > 0
    pool.sched.clearpools()
    stats = pool.stats()
    assert (stats["central"], stats["central_bytes"], local(stats)) == (0, 0, local(before))
    pool.clear()
    stats = pool.stats()
    assert (stats["cached"], stats["cached_bytes"]) == (0, 0)
    assert_conserved(pool)


def test_removed_ps_hold_nothing() -> None:
    sched = deferpool.Sched(6, portable=True, clear_on_gc=False)
    pool = deferpool.BufferPool(cap=4, limit_bytes=MIB, sched=sched)
    run_threads(*[partial(fill, pool, 6, size) for size in pool.classes * 2])
    sched.procresize(1)
    stats = pool.stats()
    assert len(stats["per_p"]) == 1
    assert stats["cached"] == local(stats) + stats["central"]
    assert stats["cached_bytes"] <= stats["bound_bytes"]
    assert_conserved(pool)


# ---- allocations that fail --------------------------------------------------------------------------------


def attempt(operation: Callable[[], object]) -> bool:
    try:
        operation()
    except MemoryError:
        return False
    return True


@pytest.mark.parametrize("procs", [2, 200])  # with 200 the largest class has no local caches
@pytest.mark.parametrize("kind", ["items", "meta"])
@pytest.mark.parametrize("lasting", [True, False])
def test_at_every_call_of_the_allocator(kind: str, lasting: bool, procs: int) -> None:
    sched = deferpool.Sched(procs, portable=True, clear_on_gc=False)
    failed = points = 0
    for n in count():
        allocator = CountingAllocator()
        source: Source = getattr(allocator, kind)
        pools: list[deferpool.BufferPool] = []
        held: list[deferpool.Buffer] = []

        def make(allocator: CountingAllocator = allocator, pools: list[deferpool.BufferPool] = pools) -> None:
            pools.append(deferpool.BufferPool((4096, 2 * MIB), limit_bytes=10 * MIB, sched=sched, cap=None,
                                              allocator=allocator.capsule))

        if kind == "meta":
            source.before_failure = n % 4
            if not attempt(make):
                allocator.assert_nothing_left()
                assert sched.stats()["pools"] == []
                failed += 1
            source.before_failure = -1
        if not pools:
            make()
        (pool,) = pools
        calls = source.created
        source.before_failure = n
        for i in range(60):
            size = (4096, 2 * MIB, 3 * MIB)[i % 3]
            if not attempt(lambda pool=pool, held=held, size=size: held.append(pool.get(size))):  # type: ignore[misc]
                failed += 1
                if not lasting:
                    source.before_failure = -1
            assert pool.stats()["live"] == len(held) <= allocator.items.out
        while held:
            held.pop(0).release()
            stats = pool.stats()
            assert (stats["created"], stats["destroyed"]) == (allocator.items.created, allocator.items.destroyed)
            assert stats["cached"] == allocator.items.out - len(held) <= stats["bound"]
            assert stats["cached_bytes"] <= stats["bound_bytes"]
        assert_conserved(pool)
        points = source.created - calls
        source.before_failure = -1
        pool.clear()
        fill(pool, 40, 2 * MIB)  # no room went with what failed
        assert pool.stats()["central_bytes"] == 10 * MIB
        del pool, pools, make
        allocator.assert_nothing_left()
        if points <= n:
            break
    assert failed > (0 if kind == "meta" else 4)


PYTHON_OBJECTS = """if True:
    import _testcapi, gc, deferpool
    gc.disable()
    pool = deferpool.BufferPool((4096, 16384), cap=4, sched=deferpool.Sched(2, clear_on_gc=False))

    def release():
        pool.get(16).release()

    def inside():
        with pool.get(16):
            pass

    def large():
        pool.get(50_000)

    def view():
        memoryview(pool.get(16))[0] = 1

    def make():
        deferpool.BufferPool((4096,), sched=pool.sched, debug=False).get(16)

    for operation in (release, inside, large, view, make, pool.stats, pool.clear):
        operation()
        failed = 0
        for start in range(200):
            _testcapi.set_nomemory(start, start + 1)
            try:
                operation()
            except MemoryError:
                failed += 1
            finally:
                _testcapi.remove_mem_hooks()
        stats = pool.stats()
        assert stats["live"] == stats["live_bytes"] == 0, (operation, stats)
        assert stats["created"] == stats["cached"] + stats["destroyed"], (operation, stats)
        assert len(pool.sched.stats()["pools"]) == 1, operation
        print(operation.__name__, failed > 0)
"""


def test_no_memory_for_python_objects() -> None:
    pytest.importorskip("_testcapi", reason="this Python was built without its test modules")
    assert output_of(PYTHON_OBJECTS).splitlines() == [
        "release True", "inside True", "large True", "view True", "make True", "stats True", "clear False"]


NO_SPACE = """if True:
    import resource, deferpool
    pool = deferpool.BufferPool((4096, 1048576), limit_bytes=None)
    held = [pool.get(4096)]
    now = int(open("/proc/self/statm").read().split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (now + (70 << 20), now + (70 << 20)))
    said = None
    try:
        while True:
            held.append(pool.get(1048576))
    except MemoryError as error:
        said = str(error)
    print(said)
    try:
        pool.get(200 << 20)
    except MemoryError as error:
        print(error)
    stats = pool.stats()
    assert stats["live"] == len(held) and stats["live_bytes"] == 4096 + (len(held) - 1 << 20), stats
    before = len(held)
    held.clear()
    pool.clear()
    held = [pool.get(1048576) for _ in range(before - 1)]    # what was given up can be had again
    print(len({buffer.address for buffer in held}) == len(held) > 20)
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "sched_getaffinity"), reason="reads Linux's own figures")
def test_no_address_space() -> None:
    assert output_of(NO_SPACE).splitlines() == [
        "no memory for a buffer of 1048576 bytes", "no memory for a buffer of 209715200 bytes", "True"]


# ---- fork -------------------------------------------------------------------------------------------------

FORK = """if True:
    import os, threading, warnings, deferpool
    warnings.simplefilter("ignore")
    pool = deferpool.BufferPool((4096, 65536), cap=2, limit_bytes=300_000)
    ended = []
    def work():
        while not ended:
            held = [pool.get(size) for size in (100, 60_000, 200_000) * 4]
            del held
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    good = 0
    for _ in range(25):
        child = os.fork()
        if child == 0:
            held = [pool.get(size) for size in (100, 60_000, 200_000) * 9]
            distinct = len({buffer.address for buffer in held}) == 27
            del held
            pool.clear()
            stats = pool.stats()
            os._exit(0 if distinct and stats["cached_bytes"] == 0 else 1)
        good += os.waitpid(child, 0)[1] == 0
    ended.append(True)
    for thread in threads:
        thread.join()
    print(good, pool.stats()["live"])
"""


@pytest.mark.parametrize("portable", [None, "1"])
@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork here")
def test_forks_while_threads_work(portable: str | None) -> None:
    assert output_of(FORK, **({"DEFERPOOL_PORTABLE": portable} if portable else {})) == "25 0"


def test_what_found_no_room_takes_none_with_it() -> None:
    """A large buffer is dropped past the limit: the room that is too little for it is for small ones again."""
    large = 64 * MIB
    pool = deferpool.BufferPool((4 * KIB, large), limit_bytes=large + 8 * KIB, sched=deferpool.Sched(2, portable=True))
    assert pool.caps[1] == 0
    for _ in range(3):
        held = [pool.get(large), pool.get(large)]
        for buffer in held:
            buffer.release()
    fill(pool, 200, 4 * KIB)
    assert pool.stats()["central_bytes"] == large + 8 * KIB
    assert_conserved(pool)
