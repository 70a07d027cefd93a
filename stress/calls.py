"""A take and a give through the Python face, reported to the harness as the nogil threads report theirs."""
from __future__ import annotations

import ctypes
from typing import Any, Protocol

from stress._load import Load


class Takes(Protocol):
    """A RecordPool, or what stands for one: its items have an address and a size."""

    def new(self, size: int) -> Any: ...
    def free(self, item: Any) -> None: ...


def take(load: Load, pool: Takes, thread: int, size: int) -> Any | None:
    load.taking(thread)
    try:
        record = pool.new(size)
    except MemoryError:
        load.took(thread, 0, size)
        return None
    if not load.took(thread, record.address or 0, size):
        _abandon(record)
        return None
    return record


def give(load: Load, pool: Takes, thread: int, record: Any, owner: int) -> None:
    if load.giving(thread, record.address or 0, record.size, owner):
        pool.free(record)
    else:
        _abandon(record)
    load.gave(thread)


def _abandon(record: Any) -> None:
    """Somebody else has the record: freed here, by its handle's end too, it would end the process unheard."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(record))
