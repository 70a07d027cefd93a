"""The origin's arithmetic: one P, one class, cap 32, no limit, n records given back in a row."""
from collections.abc import Callable

import pytest
from helpers import Mode, local, one_cpu

import deferpool

EXPECTED = {32: 0, 33: 16, 48: 16, 49: 32, 64: 32, 65: 48, 100: 80, 10_000: 9_968}


def on_one_p(mode: Mode, work: Callable[[deferpool.RecordPool], int]) -> None:
    """Runs `work` until it has run on one P throughout: the kernel may give even a pinned thread another number.

    `work` returns how many records it left cached; fewer in one P's reach than that means that it moved.
    """
    for _ in range(10):
        sched = mode.sched(1)
        pool = deferpool.RecordPool([64], limit=None, sched=sched)
        with one_cpu(mode):
            left = work(pool)
        stats = pool.stats()
        if sum(map(any, stats["per_p"])) <= 1 and stats["cached"] == left:
            return
    pytest.fail("ten tries, and each time the thread was given another P meanwhile")


@pytest.mark.parametrize(("n", "central"), EXPECTED.items())
def test_arithmetic(mode: Mode, n: int, central: int) -> None:
    seen: list[tuple[int, int]] = []

    def work(pool: deferpool.RecordPool) -> int:
        for record in [pool.new(64) for _ in range(n)]:
            pool.free(record)
        stats = pool.stats()
        seen.append((local(stats), stats["central"]))
        return n

    on_one_p(mode, work)
    k = 0 if n <= 32 else -(-(n - 32) // 16)
    assert central == 16 * k
    assert seen[-1] == (n - central, central)


def test_order(mode: Mode) -> None:
    """Last in, first out; a spill takes the upper half, and a batch keeps its order."""
    seen: list[list[int]] = []

    def work(pool: deferpool.RecordPool) -> int:
        records = [pool.new(64) for _ in range(33)]
        number = {record.address: i for i, record in enumerate(records)}
        for record in records:
            pool.free(record)
        again = [pool.new(64) for _ in range(33)]
        seen.append([number.get(record.address, -1) for record in again])
        left: int = pool.stats()["cached"]
        for record in again:
            pool.free(record)
        return 33 + left  # left is 0, unless the thread moved: then this is never what is cached at the end

    on_one_p(mode, work)
    assert seen[-1] == [32, *range(15, -1, -1), *range(31, 15, -1)]


def test_no_ping_pong_at_the_edge(mode: Mode) -> None:
    """After a spill, or a refill and its pop, neither gives nor takes go to the central pool for a while."""
    seen: list[tuple[int, int]] = []

    def work(pool: deferpool.RecordPool) -> int:
        records = [pool.new(64) for _ in range(33)]
        for record in records:
            pool.free(record)
        for _ in range(100):
            pool.free(pool.new(64))
        records = [pool.new(64) for _ in range(18)]
        for _ in range(100):
            pool.free(pool.new(64))
        stats = pool.stats()
        seen.append((stats["spills"], stats["refills"]))
        for record in records:
            pool.free(record)
        return 33

    on_one_p(mode, work)
    assert seen[-1] == (1, 1)
