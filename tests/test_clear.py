"""clear: clearpools() empties the central pools and leaves the local caches; a pool's own clear() reaches both."""
import pytest
from helpers import CountingAllocator, Mode, assert_conserved, burst, fill, local, run_threads

import deferpool


def test_clearpools_leaves_local_caches(mode: Mode) -> None:
    sched = mode.sched(2)
    pools = [deferpool.RecordPool([16, 32], sched=sched) for _ in range(3)]
    for pool in pools:
        fill(pool, 200, 16)
        fill(pool, 200, 32)
    before = [pool.stats() for pool in pools]
    sched.clearpools()
    for pool, was in zip(pools, before, strict=True):
        stats = pool.stats()
        assert was["central"] > 0
        assert stats["central"] == 0
        assert stats["per_p"] == was["per_p"]
        assert stats["destroyed"] == was["central"]
        assert stats["dropped"] == 0
        assert_conserved(pool)


def test_clearpools_is_of_one_sched(mode: Mode) -> None:
    mine, other = (deferpool.RecordPool([16], sched=mode.sched(1)) for _ in range(2))
    fill(mine, 200)
    fill(other, 200)
    mine.sched.clearpools()
    assert mine.stats()["central"] == 0
    assert other.stats()["central"] > 0


def test_clear_reaches_local_caches(mode: Mode) -> None:
    allocator = CountingAllocator()
    pool = deferpool.RecordPool([16, 32], sched=mode.sched(4), allocator=allocator.capsule)
    run_threads(*[burst(pool, rounds=1, depth=100, size=size) for size in (16, 32, 16, 32)])
    live = pool.new(16)
    pool.clear()
    stats = pool.stats()
    assert (stats["cached"], local(stats), stats["central"], stats["live"]) == (0, 0, 0, 1)
    assert allocator.items.out == 1
    pool.free(live)


def test_clear_of_an_empty_pool(mode: Mode) -> None:
    pool = deferpool.RecordPool(sched=mode.sched(1))
    pool.clear()
    pool.sched.clearpools()
    assert pool.stats()["destroyed"] == 0
    fill(pool, 40)
    assert pool.stats()["cached"] == 40


def test_clearing_while_threads_run(mode: Mode) -> None:
    allocator = CountingAllocator()
    pool = deferpool.RecordPool([16], cap=4, sched=mode.sched(2), allocator=allocator.capsule)

    def clear() -> None:
        for _ in range(100):
            pool.clear()
            pool.sched.clearpools()

    run_threads(*[burst(pool, rounds=40, depth=30)] * 4, clear, clear)
    assert_conserved(pool)
    pool.clear()
    assert allocator.items.out == 0


@pytest.mark.parametrize("cap", [510, 514, 1000, 32_766])
def test_caches_of_many_hands_are_emptied_to_the_last(mode: Mode, cap: int) -> None:
    """What is taken from a stopped P at a time is limited."""
    pool = deferpool.RecordPool([16], cap=cap, limit=None, sched=mode.sched(1))
    fill(pool, cap)
    assert pool.stats()["cached"] == cap
    pool.clear()
    assert pool.stats()["cached"] == 0
    assert_conserved(pool)
