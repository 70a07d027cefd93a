"""reuse: a fresh item is made only when the caller's local cache and the central pool are empty."""
from functools import partial

import pytest
from helpers import CountingAllocator, Mode, burst, fill, in_thread, one_cpu, run_threads

import deferpool


def test_pairs_make_one_record(mode: Mode) -> None:
    pool = deferpool.RecordPool(sched=mode.sched(1))
    for _ in range(10_000):
        pool.free(pool.new(16))
    assert pool.stats()["created"] <= pool.sched.procs


def test_second_round_makes_nothing(mode: Mode) -> None:
    """All but what another P may hold: a thread that moves leaves at most a full cache behind."""
    sched = mode.sched(1)
    pool = deferpool.RecordPool([16], limit=2_000, sched=sched)
    with one_cpu(mode):
        for _ in range(20):
            fill(pool, 1_000)
    assert 1_000 <= pool.stats()["created"] <= 1_000 + (sched.procs - 1) * 32


def test_what_one_thread_gave_another_takes(mode: Mode) -> None:
    """Records in the central pool are anybody's: 200 less at most a full cache on each P."""
    sched = mode.sched(2)
    pool = deferpool.RecordPool([16], limit=None, sched=sched)
    in_thread(lambda: fill(pool, 200))
    in_thread(lambda: fill(pool, 200 - 32 * sched.procs))
    in_thread(lambda: fill(pool, 200 - 32 * sched.procs))
    assert pool.stats()["created"] == 200


def test_taken_here_given_back_there(mode: Mode) -> None:
    """The origin's fault: one thread only takes, another only gives back, and memory grows for ever."""
    allocator = CountingAllocator()
    sched = mode.sched(2)
    pool = deferpool.RecordPool([16], limit=256, sched=sched, allocator=allocator.capsule)

    def take_100(records: list[deferpool.Record]) -> None:
        records.extend(pool.new(16) for _ in range(100))

    def free_all(records: list[deferpool.Record]) -> None:
        for record in records:
            pool.free(record)

    for _ in range(50):
        records: list[deferpool.Record] = []
        in_thread(partial(take_100, records))
        in_thread(partial(free_all, records))
    assert allocator.items.created <= 100 + pool.bound


@pytest.mark.parametrize("threads", [4, 16])
def test_created_stays_below_peak_live_and_bound(mode: Mode, threads: int) -> None:
    allocator = CountingAllocator()
    depth = 40
    pool = deferpool.RecordPool([16], limit=threads * depth, sched=mode.sched(2), allocator=allocator.capsule)
    run_threads(*[burst(pool, rounds=1_000 // threads, depth=depth)] * threads)
    assert allocator.items.created <= threads * depth + pool.bound + threads * (pool.cap // 2)
    assert pool.stats()["gets"] == 1_000 // threads * threads * depth
