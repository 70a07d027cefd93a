"""local-bound: 0 <= len(local cache) <= cap, for every P and class, at every instant."""
import pytest
from helpers import Mode, burst, fill, run_threads

import deferpool


@pytest.mark.parametrize("cap", [2, 6, 32])
def test_while_threads_run(mode: Mode, cap: int) -> None:
    pool = deferpool.RecordPool([16, 64], cap=cap, limit=256, sched=mode.sched(4))

    def watch() -> None:
        for counts in pool.stats()["per_p"]:
            assert len(counts) == 2
            assert all(0 <= n <= cap for n in counts)

    run_threads(*[burst(pool, rounds=40, depth=cap * 2 + 1, size=(16, 64)[i % 2]) for i in range(8)], watch=watch)
    watch()


@pytest.mark.parametrize("cap", [2, 4, 100, 32_766])
def test_each_cap_is_kept(mode: Mode, cap: int) -> None:
    """What one local cache cannot hold is in the central pool: 3 * cap records fill any of them past its cap."""
    sched = mode.sched(1)
    pool = deferpool.RecordPool([16], cap=cap, limit=None, sched=sched)
    fill(pool, 3 * cap)
    stats = pool.stats()
    assert all(counts[0] <= cap for counts in stats["per_p"])
    assert stats["cached"] == 3 * cap
    assert stats["central"] >= 3 * cap - sched.procs * cap


def test_classes_do_not_share_room(mode: Mode) -> None:
    pool = deferpool.RecordPool([16, 32, 48], cap=4, sched=mode.sched(1))
    for size in (16, 32, 48):
        for _ in range(4):
            fill(pool, 1, size)
    counts = [sum(each) for each in zip(*pool.stats()["per_p"], strict=True)]
    assert all(1 <= n <= 4 * pool.sched.procs for n in counts)
    assert pool.stats()["spills"] == 0
