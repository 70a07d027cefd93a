"""numpy arrays for the steps of a calculation: new ones each time, or arrays over buffers from a BufferPool.

    python examples/scratch_arrays.py

An array made by numpy.frombuffer looks into the buffer, which cannot be given back before the array and all its views
are gone (BufferError). So the scratch arrays stay inside one function, and what it returns is a number.
"""
from __future__ import annotations

import sys
from typing import Any

from _compare import arguments, compare, heading

from deferpool import BufferPool

try:
    import numpy
except ImportError:
    sys.exit("this example needs numpy: pip install numpy")


def distance(a: Any, b: Any, difference: Any, square: Any) -> float:
    """Of two points in many dimensions, with two arrays to work in."""
    numpy.subtract(a, b, out=difference)
    numpy.multiply(difference, difference, out=square)
    return float(numpy.sqrt(square.sum()))


def with_new_arrays(a: Any, b: Any) -> float:
    return distance(a, b, numpy.empty(a.size), numpy.empty(a.size))


def with_buffers(a: Any, b: Any, buffers: BufferPool) -> float:
    with buffers.get(a.nbytes) as first, buffers.get(a.nbytes) as second:
        return distance(a, b, numpy.frombuffer(first), numpy.frombuffer(second))


def main() -> None:
    options = arguments("numpy scratch arrays from a BufferPool", count=2000)
    buffers = BufferPool(limit_bytes=16 << 20)
    heading("a distance, two scratch arrays")
    for size in (512, 8192, 131072):
        a = numpy.linspace(0, 1, size)
        b = numpy.linspace(1, 3, size)
        if with_new_arrays(a, b) != with_buffers(a, b, buffers):
            raise SystemExit("the two distances differ")
        count = max(options.count * 8192 // max(size, 8192), 1)

        def without(a: Any = a, b: Any = b, count: int = count) -> None:
            for _ in range(count):
                with_new_arrays(a, b)

        def pooled(a: Any = a, b: Any = b, count: int = count) -> None:
            for _ in range(count):
                with_buffers(a, b, buffers)

        compare(f"{size * 8 // 1024} KiB each", without, pooled, rounds=options.rounds, operations=count)


if __name__ == "__main__":
    main()
