"""Every test here must pass: no false alarm."""
from __future__ import annotations

import queue

import pytest
from pools import Right

import deferpool
from deferpool.testing import Checked, Hammer, Worker, assert_bounded, assert_conserved


def use(pool: Checked[object], me: Worker) -> None:
    for item in [pool.get() for _ in range(me.random.randrange(1, 4))]:
        pool.put(item)


def test_locked(hammer: Hammer) -> None:
    right = Right()
    with Checked(right) as pool:
        assert hammer(lambda me: use(pool, me), watch=lambda: assert_bounded(right)).watches > 1


def test_queue(hammer: Hammer) -> None:
    made: queue.LifoQueue[object] = queue.LifoQueue()
    for _ in range(30):
        made.put(object())
    with Checked(made) as pool:
        hammer(lambda me: use(pool, me))


@pytest.fixture
def records() -> deferpool.RecordPool:
    return deferpool.RecordPool(sizes=(64,), cap=4, limit=8)


def test_records(hammer: Hammer, records: deferpool.RecordPool) -> None:
    def work(me: Worker) -> None:
        for record in [checked.new(64) for _ in range(me.random.randrange(1, 9))]:
            checked.free(record)

    with Checked(records, key=lambda record: record.address) as checked:
        hammer(work, watch=lambda: assert_bounded(records))
    assert_conserved(records, live=0)


@pytest.mark.hammer(threads=4, calls=50)
def test_marker(records: deferpool.RecordPool) -> None:
    records.free(records.new(64))
