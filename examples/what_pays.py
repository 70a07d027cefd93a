"""What it costs to make an object, beside leasing it from a Pool: which objects are worth it. For bytes, a BufferPool.

    python examples/what_pays.py

What is made anew is clean. What is used again may have to be made so by `reset`, and a call of a Python function costs
more than the pool does. Connections are closed when they are not pooled. Not here are objects that cannot be used
again, such as an LZMACompressor after flush(), and those that threads can share, such as an SSLContext.
"""
from __future__ import annotations

import decimal
import io
import random
import sqlite3
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

from _compare import arguments, compare, heading

from deferpool import BufferPool, Pool


def rewind(stream: io.BytesIO) -> None:
    stream.seek(0)
    stream.truncate()


class Kind(NamedTuple):
    make: Callable[[], Any]
    reset: Callable[[Any], object] | None = None
    close: Callable[[Any], object] | None = None
    share: int = 1                          # one of so many operations is done: it takes long


KINDS = {
    "object()": Kind(object),
    "[], list.clear": Kind(list, list.clear),
    "io.BytesIO(), rewound": Kind(io.BytesIO, rewind),
    "decimal.Context(), clear_flags": Kind(decimal.Context, decimal.Context.clear_flags),
    "zlib.compressobj()": Kind(zlib.compressobj),
    "random.Random()": Kind(random.Random, share=10),
    "sqlite3.connect(':memory:')": Kind(lambda: sqlite3.connect(":memory:", check_same_thread=False),
                                        close=sqlite3.Connection.close, share=100),
}


def compare_kind(name: str, kind: Kind, rounds: int, count: int) -> None:
    pool = Pool(kind.make, reset=kind.reset, on_drop=kind.close)

    def without() -> None:
        make = kind.make
        for _ in range(count):
            make()

    def without_but_closed() -> None:
        assert kind.close is not None
        for _ in range(count):
            kind.close(kind.make())

    def pooled() -> None:
        lease = pool.lease
        for _ in range(count):
            with lease():
                pass

    compare(name, without_but_closed if kind.close else without, pooled, rounds=rounds, operations=count)


def compare_bytes(size: int, rounds: int, count: int) -> None:
    buffers = BufferPool()

    def without() -> None:
        for _ in range(count):
            bytearray(size)

    def pooled() -> None:
        for _ in range(count):
            with buffers.get(size):
                pass

    compare(f"bytearray({size}), or a Buffer", without, pooled, rounds=rounds, operations=count)


def main() -> None:
    options = arguments("what it costs to make an object, and to lease it", count=100000)
    heading("one object, made or leased")
    for name, kind in KINDS.items():
        compare_kind(name, kind, options.rounds, max(options.count // kind.share, 1))
    for size in (4096, 65536, 2**20):
        compare_bytes(size, options.rounds, max(options.count * 4096 // size, 1))


if __name__ == "__main__":
    main()
