"""one-owner: an item is never with two callers, nor with a caller and in a cache."""
import random
import threading

import pytest
from helpers import Mode, run_threads

import deferpool


@pytest.mark.parametrize("threads", [2, 8])
def test_stamps(mode: Mode, threads: int) -> None:
    """Each thread stamps what it takes, keeps it for a while, and finds its own stamp at the end."""
    pool = deferpool.RecordPool([16], cap=4, limit=16, sched=mode.sched(2))
    owners: dict[int, int] = {}

    def work(me: int) -> None:
        stamp = bytes([me + 1]) * 16
        rng = random.Random(me)
        held: list[deferpool.Record] = []
        for _ in range(3_000):
            if len(held) < rng.randrange(20):
                record = pool.new(16)
                assert record.address is not None
                assert owners.setdefault(record.address, me) == me
                with memoryview(record) as view:
                    assert view == bytes(16)
                    view[:] = stamp
                held.append(record)
            elif held:
                record = held.pop(rng.randrange(len(held)))
                with memoryview(record) as view:
                    assert view == stamp
                assert owners.pop(record.address or 0) == me
                pool.free(record)
        for record in held:
            del owners[record.address or 0]
            pool.free(record)

    run_threads(*[lambda me=me: work(me) for me in range(threads)])
    assert owners == {}
    assert pool.stats()["live"] == 0


def test_all_that_is_out_is_different(mode: Mode) -> None:
    pool = deferpool.RecordPool([16], cap=4, limit=50, sched=mode.sched(2))
    for _ in range(5):
        records = [pool.new(16) for _ in range(300)]
        assert len({record.address for record in records}) == 300
        for record in records:
            pool.free(record)


def test_one_of_many_frees_succeeds(mode: Mode) -> None:
    """Threads that give back the same record: one does, the others are told."""
    pool = deferpool.RecordPool([16], sched=mode.sched(2))
    for _ in range(50):
        record = pool.new(16)
        done: list[bool] = []
        lock = threading.Lock()

        def work(record: deferpool.Record = record, done: list[bool] = done, lock: threading.Lock = lock) -> None:
            try:
                pool.free(record)
            except ValueError:
                return
            with lock:
                done.append(True)

        run_threads(*[work] * 4)
        assert done == [True]
    stats = pool.stats()
    assert (stats["live"], stats["gets"], stats["puts"]) == (0, 50, 50)
