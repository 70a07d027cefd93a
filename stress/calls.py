"""A take and a give through the Python face, reported to the harness as the nogil threads report theirs."""
from __future__ import annotations

import deferpool
from stress._load import Load


def take(load: Load, pool: deferpool.RecordPool, thread: int, size: int) -> deferpool.Record | None:
    load.taking(thread)
    try:
        record = pool.new(size)
    except MemoryError:
        load.took(thread, 0, size)
        return None
    load.took(thread, record.address or 0, size)
    return record


def give(load: Load, pool: deferpool.RecordPool, thread: int, record: deferpool.Record, owner: int) -> None:
    load.giving(thread, record.address or 0, record.size, owner)
    pool.free(record)
    load.gave(thread)
