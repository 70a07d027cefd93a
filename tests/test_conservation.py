"""conservation: at rest, created = live + cached + destroyed, and the allocator agrees."""
import random

import pytest
from helpers import CountingAllocator, Mode, assert_conserved, fill, run_threads

import deferpool

SIZES = [16, 32, 64, 200]  # the last one bypasses


@pytest.mark.parametrize("limit", [0, 30, None])
def test_after_random_work(mode: Mode, limit: int | None) -> None:
    allocator = CountingAllocator()
    sched = mode.sched(2)
    pool = deferpool.RecordPool(SIZES[:-1], cap=6, limit=limit, sched=sched, allocator=allocator.capsule)
    kept: list[deferpool.Record] = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        held: list[deferpool.Record] = []
        for _ in range(2_000):
            if len(held) < rng.randrange(30):
                held.append(pool.new(rng.choice(SIZES)))
            elif held:
                pool.free(held.pop(rng.randrange(len(held))))
        kept.extend(held)

    def disturb() -> None:
        for procs in (3, 1, 8, 2) * 5:
            sched.procresize(procs)
            pool.clear()
            sched.clearpools()

    run_threads(*[lambda seed=seed: work(seed) for seed in range(6)], disturb)
    assert_conserved(pool)
    stats = pool.stats()
    assert stats["live"] == len(kept)
    assert allocator.items.created == stats["created"]
    assert allocator.items.destroyed == stats["destroyed"]
    assert stats["bypassed"] > 0
    if limit is not None:
        assert stats["cached"] <= pool.bound

    kept.clear()  # handles that are dropped give back their records
    assert_conserved(pool)
    assert pool.stats()["live"] == 0
    pool.clear()
    assert (pool.stats()["cached"], allocator.items.out, allocator.items.strangers) == (0, 0, 0)


def test_step_by_step(mode: Mode) -> None:
    pool = deferpool.RecordPool([16], cap=2, limit=3, sched=mode.sched(1))
    held = []
    for _ in range(20):
        held.append(pool.new(16))
        assert_conserved(pool)
    while held:
        pool.free(held.pop())
        assert_conserved(pool)
    pool.clear()
    assert_conserved(pool)
    assert pool.stats()["destroyed"] == pool.stats()["created"] == 20


def test_dropped_pool_returns_all_memory(mode: Mode) -> None:
    allocator = CountingAllocator()
    pool = deferpool.RecordPool(cap=4, sched=mode.sched(2), allocator=allocator.capsule)
    for size in (16, 32, 48, 64, 80, 100):
        fill(pool, 300, size)
    assert allocator.items.out > 0
    assert allocator.meta.out > 0
    del pool
    allocator.assert_nothing_left()
