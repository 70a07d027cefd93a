"""Bounded object pools with small local caches over a locked central pool, on real OS threads."""

import gc as _gc
from pathlib import Path as _Path
from typing import Any as _Any

from deferpool._defer import defer
from deferpool._deferring import deferring
from deferpool._exitstack import AsyncExitStack, ExitStack
from deferpool._goexit import Goexit, goexit
from deferpool._recover import recover
from deferpool._sched import Sched
from deferpool._sched import default as _default
from deferpool._sched import on_collection as _on_collection
from deferpool.buffers import Buffer, BufferPool
from deferpool.objects import Pool
from deferpool.records import Record, RecordPool

__all__ = [
    "AsyncExitStack", "Buffer", "BufferPool", "ExitStack", "Goexit", "Pool", "Record", "RecordPool", "Sched",
    "clearpools", "defer", "deferring", "get_include", "goexit", "procresize", "procs", "recover", "stats",
]


def procs() -> int:
    """The number of Ps of the runtime. Thread-safe."""
    return _default().procs


def procresize(n: int) -> int:
    """Changes the number of Ps of the runtime to n while threads work, and returns the number before.

    See Sched.procresize for the errors. Thread-safe.
    """
    return _default().procresize(n)


def clearpools() -> None:
    """Gives every item of the central pools back to its allocator; local caches stay. Thread-safe."""
    _default().clearpools()


def stats() -> dict[str, _Any]:
    """What the runtime is doing: mode, Ps, and the figures of every pool. See Sched.stats. Thread-safe."""
    return _default().stats()


def get_include() -> str:
    """The folder of the headers, for builds that do not find it through Cython's own dependencies."""
    return str(_Path(__file__).parent)


_gc.callbacks.append(_on_collection)
