"""stats: each figure after work whose figures are known, and what may be relied on while threads work."""
import random
import re
from functools import partial
from typing import Any

import pytest
from helpers import CountingAllocator, Mode, assert_conserved, burst, fill, in_thread, local, one_cpu, run_threads

import deferpool


class Model:
    """One P, one class and one stripe: the origin's rules, and what each call adds to which figure."""

    def __init__(self, cap: int, limit: int, procs: int) -> None:
        self.cap, self.limit, self.procs = cap, limit, procs
        self.local = 0
        self.batches: list[int] = []
        self.peak = 0
        self.seen = dict.fromkeys(("created", "destroyed", "dropped", "gets", "puts", "refills", "spills"), 0)
        self.bypassed = 0

    def add(self, n: int = 1, *keys: str) -> None:
        for key in keys:
            self.seen[key] += n

    def new(self) -> None:
        self.add(1, "gets")
        if self.local:
            self.local -= 1
        elif self.batches:
            self.local = self.batches.pop() - 1
            self.add(1, "refills")
        else:
            self.add(1, "created")

    def free(self) -> None:
        self.add(1, "puts")
        half = self.cap // 2
        if self.local == self.cap:
            self.local -= half
            kept = min(half, self.limit - sum(self.batches))
            self.batches += [kept] * (kept > 0)
            self.add(1, "spills")
            self.add(half - kept, "destroyed", "dropped")
        self.local += 1

    def new_large(self) -> None:
        self.bypassed += 1
        self.add(1, "gets", "created")

    def free_large(self) -> None:
        self.add(1, "puts", "destroyed")

    def stats(self) -> dict[str, Any]:
        central = sum(self.batches)
        self.peak = max(self.peak, self.local + central)
        return {
            **self.seen,
            "name": None,
            "live": self.seen["gets"] - self.seen["puts"],
            "cached": self.local + central,
            "central": central,
            "bypassed": self.bypassed,
            "peak_cached": self.peak,
            "bound": self.procs * self.cap + self.limit,
            "per_p": self.local,
        }


def folded(stats: dict[str, Any]) -> dict[str, Any]:
    return {**stats, "per_p": local(stats)}


@pytest.mark.parametrize(("cap", "limit"), [(2, 3), (4, 0), (6, 20), (32, 100)])
def test_every_figure_after_every_call(mode: Mode, cap: int, limit: int) -> None:
    """The kernel may move even a pinned thread to another P: then, and only then, a try does not count."""
    for _ in range(1 if mode.name == "portable" else 10):
        pool = deferpool.RecordPool([16], cap=cap, limit=limit, sched=mode.sched(1))
        model = Model(cap, limit, pool.sched.procs)
        small: list[deferpool.Record] = []
        large: list[deferpool.Record] = []
        rng = random.Random(cap)
        agree = True
        with one_cpu(mode):
            for step in range(1_500):
                full = step // 150 % 2 == 0
                if rng.random() < 0.05:
                    large.append(pool.new(500))
                    model.new_large()
                elif large and rng.random() < 0.05:
                    pool.free(large.pop())
                    model.free_large()
                elif small and rng.random() < (0.2 if full else 0.8):
                    pool.free(small.pop())
                    model.free()
                else:
                    small.append(pool.new(16))
                    model.new()
                stats, expected = folded(pool.stats()), model.stats()
                agree = stats == expected
                if not agree:
                    break
        if agree:
            assert min(model.seen[key] for key in ("created", "gets", "puts", "spills")) > 0
            return
    assert stats == expected


def test_a_fresh_pool(mode: Mode) -> None:
    sched = mode.sched(3)
    pool = deferpool.RecordPool([16, 32], cap=4, limit=7, sched=sched)
    stats = pool.stats()
    assert stats.pop("per_p") == [[0, 0]] * sched.procs
    assert stats.pop("bound") == sched.procs * 2 * 4 + 7
    assert stats.pop("name") is None
    assert set(stats.values()) == {0}


def test_keys_are_those_documented() -> None:
    sched = deferpool.Sched(2)
    pool = deferpool.RecordPool([16], sched=sched)
    for thing in (pool, sched):
        assert set(re.findall(r"`(\w+)`", type(thing).stats.__doc__ or "")) == set(thing.stats())
    assert set(deferpool.stats()) == set(sched.stats())
    assert "See Sched.stats" in (deferpool.stats.__doc__ or "")


def test_no_limit_no_bound(mode: Mode) -> None:
    pool = deferpool.RecordPool([16], limit=None, sched=mode.sched(1))
    assert (pool.stats()["bound"], pool.bound, pool.limit) == (None, None, None)


def test_bound_follows_the_ps() -> None:
    sched = deferpool.Sched(2, portable=True)
    pool = deferpool.RecordPool([16, 32, 48], cap=6, limit=50, sched=sched)
    for n in (1, 9, 1024, 3):
        sched.procresize(n)
        assert pool.stats()["bound"] == pool.bound == n * 3 * 6 + 50
        assert len(pool.stats()["per_p"]) == n


def test_per_p_tells_ps_and_classes() -> None:
    """In portable mode each new thread starts on the next P."""
    pool = deferpool.RecordPool([16, 32, 48], cap=8, sched=deferpool.Sched(3, portable=True, clear_on_gc=False))
    work = [(3, 16), (5, 32), (7, 48)]
    for n, size in work:
        in_thread(partial(fill, pool, n, size))
    counts = pool.stats()["per_p"]
    first = next(i for i, each in enumerate(counts) if each[0])
    assert counts[first:] + counts[:first] == [[3, 0, 0], [0, 5, 0], [0, 0, 7]]


def test_destroyed_is_more_than_dropped(mode: Mode) -> None:
    """Only the limit drops; what is cleared is destroyed, and so is what a bypassed record was."""
    pool = deferpool.RecordPool([16], limit=10, sched=mode.sched(1))
    fill(pool, 100)
    before = pool.stats()
    assert before["dropped"] == before["destroyed"] == 100 - before["cached"] > 0
    fill(pool, 3, 500)
    pool.clear()
    stats = pool.stats()
    assert (stats["dropped"], stats["destroyed"], stats["created"]) == (before["dropped"], 103, 103)


def test_peak_is_seen_at_transfers() -> None:
    """Nobody reads while 100 are cached: the last spill saw 80 in the central pool and 16 on the P."""
    pool = deferpool.RecordPool([16], sched=deferpool.Sched(1, portable=True, clear_on_gc=False))
    records = [pool.new(16) for _ in range(100)]
    for record in records:
        pool.free(record)
    records = [pool.new(16) for _ in range(100)]
    stats = pool.stats()
    assert (stats["cached"], stats["peak_cached"]) == (0, 96)


def test_peak_outlives_clearing(mode: Mode) -> None:
    pool = deferpool.RecordPool([16], sched=mode.sched(1))
    fill(pool, 100)
    assert pool.stats()["peak_cached"] == 100
    pool.clear()
    assert (pool.stats()["cached"], pool.stats()["peak_cached"]) == (0, 100)


def test_sums_over_the_pools_of_a_sched(mode: Mode) -> None:
    sched = mode.sched(2)
    empty = sched.stats()
    assert {key: empty[key] for key in ("mode", "procs", "cpus")} == {
        "mode": mode.name, "procs": sched.procs, "cpus": sched.cpus
    }
    assert [empty[key] for key in ("cached", "live", "created", "destroyed", "bound", "pools")] == [0, 0, 0, 0, 0, []]
    pools = [deferpool.RecordPool([16], cap=4, limit=limit, sched=sched) for limit in (5, 50)]
    for pool in pools:
        fill(pool, 100)
    live = pools[0].new(16)
    stats = sched.stats()
    each = [pool.stats() for pool in pools]
    assert stats["pools"] == each
    for key in ("cached", "live", "created", "destroyed", "bound"):
        assert stats[key] == each[0][key] + each[1][key]
    assert stats["live"] == 1
    pools[0].free(live)
    pools.append(deferpool.RecordPool([16], limit=None, sched=sched))
    assert (sched.stats()["bound"], len(sched.stats()["pools"])) == (None, 3)
    pools.pop()
    del pool, live, pools[0]
    assert sched.stats()["pools"] == [pools[0].stats()]


def test_stats_of_the_runtime() -> None:
    pool = deferpool.RecordPool([32])
    fill(pool, 5, 1_000)
    stats = deferpool.stats()
    assert (stats["procs"], stats["mode"]) == (deferpool.procs(), pool.sched.mode)
    assert stats["pools"][-1] == pool.stats()
    assert stats["created"] >= 5


@pytest.mark.parametrize("resizing", [False, True])
def test_while_threads_work(mode: Mode, resizing: bool) -> None:
    """Read by two threads all the while: each part is within its bound, and what only grows never shrinks."""
    cap, limit, most = 4, 20, 8
    sched = mode.sched(2)
    allocator = CountingAllocator()
    pool = deferpool.RecordPool([16, 32], cap=cap, limit=limit, sched=sched, allocator=allocator.capsule)
    bound = max(most, sched.procs) * 2 * cap + limit
    growing = ("created", "destroyed", "bypassed", "gets", "refills", "spills", "dropped", "peak_cached")
    ended: list[bool] = []
    before: dict[str, dict[str, int]] = {}

    def look(who: str) -> None:
        stats = pool.stats()
        assert all(0 <= n <= cap for counts in stats["per_p"] for n in counts)
        assert 0 <= stats["central"] <= limit
        assert 0 <= stats["cached"] <= bound
        assert stats["cached"] <= stats["peak_cached"] <= bound
        assert stats["live"] >= 0
        if not resizing:
            assert stats["cached"] == local(stats) + stats["central"]
        for key in growing:
            assert stats[key] >= before.setdefault(who, {}).get(key, 0), key
            before[who][key] = stats[key]

    def look_all_the_while() -> None:
        while not ended:
            look("thread")
            assert 0 <= sched.stats()["cached"] <= bound

    def resize() -> None:
        for n in (1, most, 2, 5) * 10 * resizing:
            sched.procresize(n)

    work = [burst(pool, rounds=60, depth=12, size=(16, 32, 500)[i % 3]) for i in range(6)]

    def run() -> None:
        try:
            run_threads(*work, resize, watch=lambda: look("main"))
        finally:
            ended.append(True)

    run_threads(look_all_the_while, run)
    assert_conserved(pool)
    stats = pool.stats()
    assert (stats["gets"], stats["puts"], stats["live"]) == (6 * 60 * 12, 6 * 60 * 12, 0)
    assert stats["created"] == allocator.items.created
    assert stats["destroyed"] == allocator.items.destroyed
    assert stats["bypassed"] == 2 * 60 * 12
