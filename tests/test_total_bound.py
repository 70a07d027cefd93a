"""total-bound: cached items never exceed procs * classes * cap + limit, however many threads run.

The proof is the allocator's own count: what is out of it is live, cached, or in the one batch that a thread moves.
"""
import pytest
from helpers import CountingAllocator, Mode, burst, fill, run_threads

import deferpool


@pytest.mark.parametrize("threads", [4, 48])
@pytest.mark.parametrize("limit", [0, 5, 64])
def test_while_threads_run(mode: Mode, threads: int, limit: int) -> None:
    cap, depth = 4, 24
    allocator = CountingAllocator()
    sched = mode.sched(2)
    pool = deferpool.RecordPool([16, 64], cap=cap, limit=limit, sched=sched, allocator=allocator.capsule)
    bound = sched.procs * 2 * cap + limit
    assert pool.bound == bound

    def watch() -> None:
        stats = pool.stats()
        assert stats["cached"] <= bound
        assert stats["central"] <= limit

    work = [burst(pool, rounds=480 // threads, depth=depth, size=(16, 64)[i % 2]) for i in range(threads)]
    run_threads(*work, watch=watch)
    assert allocator.items.out <= bound
    assert allocator.items.peak <= bound + threads * (cap // 2) + threads * depth


def test_what_passes_the_limit_is_dropped(mode: Mode) -> None:
    allocator = CountingAllocator()
    sched = mode.sched(1)
    pool = deferpool.RecordPool([16], limit=100, sched=sched, allocator=allocator.capsule)
    fill(pool, 5_000)
    stats = pool.stats()
    assert stats["central"] == 100
    assert 100 < stats["cached"] <= pool.bound == 32 * sched.procs + 100
    assert stats["dropped"] == stats["destroyed"] == 5_000 - stats["cached"]
    assert allocator.items.out == stats["cached"]


def test_no_limit_holds_everything(mode: Mode) -> None:
    pool = deferpool.RecordPool([16], limit=None, sched=mode.sched(1))
    fill(pool, 20_000)
    stats = pool.stats()
    assert stats["cached"] == 20_000
    assert (stats["dropped"], stats["bound"], pool.bound) == (0, None, None)


def test_limit_is_of_all_classes_together(mode: Mode) -> None:
    pool = deferpool.RecordPool([16, 32], limit=64, sched=mode.sched(1))
    fill(pool, 500, 16)
    assert pool.stats()["central"] == 64
    fill(pool, 500, 32)
    assert pool.stats()["central"] == 64


def test_limit_zero_keeps_local_caches_only(mode: Mode) -> None:
    pool = deferpool.RecordPool([16], limit=0, sched=mode.sched(1))
    fill(pool, 500)
    stats = pool.stats()
    assert stats["central"] == 0
    assert 16 <= stats["cached"] <= pool.bound


def test_spare_batches_are_bounded(mode: Mode) -> None:
    """What holds the items is memory too: it goes when the items go."""
    allocator = CountingAllocator()
    pool = deferpool.RecordPool([16], cap=2, limit=10_000, sched=mode.sched(1), allocator=allocator.capsule)
    before = allocator.meta.out
    fill(pool, 10_000)
    assert allocator.meta.out > before + 9_000
    records = [pool.new(16) for _ in range(10_000)]
    assert allocator.meta.out <= before + 16 * 64
    pool.clear()
    assert allocator.meta.out == before
    del records


def test_room_that_another_stripe_has_to_spare_is_found() -> None:
    """Threads of two stripes: what the first has emptied, the second can fill up to the limit."""
    pool = deferpool.RecordPool([16], cap=2, limit=8, sched=deferpool.Sched(4, portable=True))
    records: list[deferpool.Record] = []

    def give_all() -> None:
        while records:
            pool.free(records.pop())

    for _ in range(3):  # each thread is new, and begins at the P after the last one's
        records += [pool.new(16) for _ in range(10)]
        run_threads(give_all)
        stats = pool.stats()
        assert stats["central"] == 8
        assert stats["dropped"] == 0


def test_a_pool_that_is_cleared_counts_no_room(mode: Mode) -> None:
    pool = deferpool.RecordPool([16, 32], cap=2, limit=20, sched=mode.sched(1))
    for size in (16, 32, 16):
        fill(pool, 40, size)
        assert pool.stats()["central"] == 20
        pool.clear()
        assert pool.stats()["cached"] == 0
