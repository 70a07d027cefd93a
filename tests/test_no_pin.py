"""no-pin: an item handed out refers to no other cached item."""
from helpers import CountingAllocator, Mode, fill

import deferpool


def test_records_hold_no_address(mode: Mode) -> None:
    """Nothing of the pool's own is in a record's bytes, whichever way it came: fresh, local or central."""
    pool = deferpool.RecordPool([64], cap=4, limit=None, sched=mode.sched(1))
    for _ in range(3):
        records = [pool.new(64) for _ in range(50)]
        for record in records:
            with memoryview(record) as view:
                assert view == bytes(64)
                view[:] = b"\xff" * 64
        for record in records:
            pool.free(record)


def test_one_live_record_keeps_no_other(mode: Mode) -> None:
    """With one record out, all the others can go, whatever batch they were in."""
    allocator = CountingAllocator()
    pool = deferpool.RecordPool([16], cap=4, limit=None, sched=mode.sched(1), allocator=allocator.capsule)
    fill(pool, 500)
    record = pool.new(16)
    pool.clear()
    assert allocator.items.out == 1
    pool.free(record)
    pool.clear()
    assert allocator.items.out == 0
