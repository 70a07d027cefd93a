"""BufferPool from Python: its arguments, and what a buffer is while it is out, viewed, released or gone."""
from __future__ import annotations

import contextlib
import ctypes
import gc
import io
import socket
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from helpers import PTRDIFF_MAX, CountingAllocator, Mode, assert_conserved, output_of, run_threads

import deferpool

MIB = 2**20


def private_sched(procs: int = 1) -> deferpool.Sched:
    return deferpool.Sched(procs, portable=True, clear_on_gc=False)


def content(buffer: deferpool.Buffer) -> bytes:
    with memoryview(buffer) as view:
        return bytes(view)


def overwrite(buffer: deferpool.Buffer, byte: bytes = b"\xff") -> None:
    with memoryview(buffer) as view:
        view[:] = byte * len(view)


# ---- arguments ------------------------------------------------------------------------------------------


def test_defaults() -> None:
    pool = deferpool.BufferPool(sched=private_sched())
    assert pool.classes == (4096, 16384, 65536, 262144, 1048576)
    assert pool.caps == (32,) * 5
    assert (pool.cap, pool.limit, pool.limit_bytes, pool.zero, pool.debug) == (32, None, 64 * MIB, False, False)
    assert pool.bound == 5 * 32 + 64 * MIB // 4096
    assert repr(pool) == "<deferpool.BufferPool: 5 classes, caps (32, 32, 32, 32, 32), limit_bytes 67108864>"


@pytest.mark.parametrize(
    ("classes", "rounded"),
    [([1], (4096,)), ([4096], (4096,)), ([4097], (8192,)), ((1, 5_000, 9_000), (4096, 8192, 12288)),
     (iter([4096, 64 * MIB]), (4096, 64 * MIB)), (range(4096, 33 * 4096, 4096), tuple(range(4096, 33 * 4096, 4096)))],
)
def test_classes_are_rounded_up_to_pages(classes: Any, rounded: tuple[int, ...]) -> None:
    assert deferpool.BufferPool(classes, sched=private_sched()).classes == rounded


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([0], "a class size must be from 1 to 67108864 bytes, not 0"),
        ([4096, -5], "a class size must be from 1 to 67108864 bytes, not -5"),
        ([64 * MIB + 1], "a class size must be from 1 to 67108864 bytes, not 67108865"),
        ([2**70], f"a class size must be from 1 to 67108864 bytes, not {2**70}"),
        ([], "there must be 1 to 32 classes, not 0"),
        (range(4096, 34 * 4096, 4096), "there must be 1 to 32 classes, not 33"),
        ([4096, 4096], r"classes must grow, in steps of 4096 bytes: \(4096, 4096\)"),
        ([1, 4096], r"classes must grow, in steps of 4096 bytes: \(1, 4096\)"),
        (iter([8192, 4096]), r"classes must grow, in steps of 4096 bytes: \(8192, 4096\)"),
    ],
)
def test_bad_classes(classes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{message}$"):
        deferpool.BufferPool(classes)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"classes": 4096}, "classes must be a sequence of sizes in bytes, not int"),
        ({"classes": None}, "classes must be a sequence of sizes in bytes, not NoneType"),
        ({"classes": ["4096"]}, "a class size must be an integer, not str"),
        ({"classes": [4096.0]}, "a class size must be an integer, not float"),
        ({"cap": 2.0}, "cap must be an integer, not float"),
        ({"limit": "5"}, "limit must be an integer or None, not str"),
        ({"limit_bytes": 5e6}, "limit_bytes must be an integer or None, not float"),
        ({"sched": 2}, "'sched' has incorrect type .* got int"),
        ({"allocator": 3}, "allocator must be a capsule named 'deferpool.Allocator', not int"),
        ({"colour": 1}, "unexpected keyword argument 'colour'"),
    ],
)
def test_arguments_of_a_wrong_type(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        deferpool.BufferPool(**wrong)


@pytest.mark.parametrize("cap", [0, 1, 3, -2, 32_770, 2**32 + 2, 2**80])
def test_bad_cap(cap: int) -> None:
    with pytest.raises(ValueError, match=rf"^cap must be even and from 2 to 32766, not {cap}$"):
        deferpool.BufferPool(cap=cap)


@pytest.mark.parametrize("name", ["limit", "limit_bytes"])
@pytest.mark.parametrize("limit", [-1, -(2**63), 2**63, 2**64 + 1])
def test_bad_limits(name: str, limit: int) -> None:
    wrong: dict[str, Any] = {name: limit}
    with pytest.raises(ValueError, match=rf"^{name} must be None or from 0 to 2\*\*63 - 1, not {limit}$"):
        deferpool.BufferPool(**wrong)


@pytest.mark.parametrize("limits", [(5, 5), (None, None), (None, 4096), (0, 0)])
def test_one_limit_or_the_other(limits: tuple[int | None, int | None]) -> None:
    with pytest.raises(ValueError, match=r"^give limit or limit_bytes, not both$"):
        deferpool.BufferPool(limit=limits[0], limit_bytes=limits[1])


@pytest.mark.parametrize("arguments", [{"limit": None}, {"limit_bytes": None}])
def test_none_is_no_limit(arguments: dict[str, Any]) -> None:
    pool = deferpool.BufferPool([4096], cap=2, sched=private_sched(), **arguments)
    assert (pool.limit, pool.limit_bytes, pool.bound) == (None, None, None)
    held = [pool.get(1) for _ in range(20_000)]
    del held
    stats = pool.stats()
    assert (stats["cached"], stats["dropped"], stats["bound"], stats["bound_bytes"]) == (20_000, 0, None, None)
    assert stats["cached_bytes"] == 20_000 * 4096


@pytest.mark.parametrize("limit", [0, 1, 2**63 - 1])
@pytest.mark.parametrize("name", ["limit", "limit_bytes"])
def test_extremes(mode: Mode, name: str, limit: int) -> None:
    arguments: dict[str, Any] = {name: limit}
    pool = deferpool.BufferPool([4096, 8192], cap=32_766, sched=mode.sched(1), **arguments)
    assert getattr(pool, name) == limit
    held = [pool.get(5_000) for _ in range(10)]
    del held
    assert pool.stats()["cached"] == 10
    assert_conserved(pool)


@pytest.mark.parametrize("use", [lambda pool: pool.get(1), deferpool.BufferPool.stats, repr])
def test_a_pool_that_is_being_made_is_nobodys_yet(use: Callable[[deferpool.BufferPool], object]) -> None:
    found: list[int] = []

    def pools() -> set[int]:
        return {id(each) for each in gc.get_objects() if type(each) is deferpool.BufferPool}

    class Size:
        def __index__(self) -> int:
            found.extend(pools() - before)
            return 4096

    before = pools()
    pool = deferpool.BufferPool([Size()], sched=private_sched())
    assert found == []
    assert any(each is pool for each in gc.get_objects())
    use(pool)


def test_what_cannot_be_made_leaves_nothing() -> None:
    allocator = CountingAllocator()
    sched = private_sched()
    bad: list[dict[str, Any]] = [{"cap": 3}, {"limit": -1}, {"limit_bytes": -1}, {"classes": []}]
    for arguments in bad:
        with pytest.raises(ValueError, match="must be"):
            deferpool.BufferPool(sched=sched, allocator=allocator.capsule, **arguments)
    assert sched.stats()["pools"] == []
    allocator.assert_nothing_left()


@pytest.mark.parametrize(
    "name", ["classes", "cap", "caps", "limit", "limit_bytes", "bound", "zero", "debug", "sched"])
def test_attributes_are_read_only(name: str) -> None:
    pool = deferpool.BufferPool(sched=private_sched())
    with pytest.raises(AttributeError):
        setattr(pool, name, 4)


@pytest.mark.parametrize("kind", [deferpool.BufferPool, deferpool.Buffer])
def test_are_final(kind: type) -> None:
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Mine", (kind,), {})


# ---- lengths --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "cls"), [(0, 0), (1, 0), (4096, 0), (4097, 1), (16384, 1), (16385, 2), (65536, 2)])
def test_smallest_class_that_fits(mode: Mode, n: int, cls: int) -> None:
    allocator = CountingAllocator()
    pool = deferpool.BufferPool([4096, 16384, 65536], sched=mode.sched(1), allocator=allocator.capsule)
    buffer = pool.get(n)
    assert (len(buffer), buffer.size) == (n, n)
    assert list(allocator.items.sizes.values()) == [pool.classes[cls]]
    assert pool.stats()["live_bytes"] == pool.classes[cls]
    buffer.release()
    counts = [sum(each) for each in zip(*pool.stats()["per_p"], strict=True)]
    assert counts == [int(i == cls) for i in range(3)]
    stats = pool.stats()
    assert (stats["bypassed"], stats["live_bytes"], stats["cached_bytes"]) == (0, 0, pool.classes[cls])


def test_length_zero_is_a_buffer(mode: Mode) -> None:
    pool = deferpool.BufferPool(sched=mode.sched(1))
    with pool.get(0) as first, pool.get(0) as second:
        assert first.address != second.address
        assert (len(first), content(first), pool.stats()["live"]) == (0, b"", 2)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("n", [16385, 100_000, 3 * MIB])
def test_past_the_last_class(mode: Mode, n: int, own: bool) -> None:
    """Bypasses the caches both ways, is counted, and its memory goes back at once."""
    allocator = CountingAllocator()
    given: Any = None if own else allocator.capsule
    pool = deferpool.BufferPool([4096, 16384], sched=mode.sched(1), allocator=given)
    for done in range(1, 4):
        buffer = pool.get(n)
        assert content(buffer) == bytes(n)
        overwrite(buffer)
        assert pool.stats()["live_bytes"] == (-(-n // 4096) * 4096 if own else n)
        assert allocator.items.out == (not own)
        assert_conserved(pool)
        buffer.release()
        assert allocator.items.out == 0
        assert_conserved(pool)
        stats = pool.stats()
        assert (stats["bypassed"], stats["gets"], stats["puts"], stats["created"], stats["destroyed"]) == (done,) * 5
        assert (stats["live"], stats["cached"], stats["dropped"], stats["live_bytes"]) == (0, 0, 0, 0)


@pytest.mark.parametrize("n", [2**62, PTRDIFF_MAX - 1, PTRDIFF_MAX, 2**63, 2**64, 2**64 + 16, 2**200])
def test_huge_lengths(mode: Mode, n: int) -> None:
    pool = deferpool.BufferPool(sched=mode.sched(1))
    with pytest.raises(MemoryError, match=rf"^no memory for a buffer of {n} bytes$"):
        pool.get(n)
    stats = pool.stats()
    assert (stats["gets"], stats["created"], stats["bypassed"], stats["live_bytes"]) == (0, 0, 0, 0)


def test_lengths_that_python_does_not_write_out() -> None:
    pool = deferpool.BufferPool(sched=private_sched())
    records = deferpool.RecordPool(sched=private_sched())
    for make, what in ((pool.get, "buffer"), (records.new, "record")):
        with pytest.raises(MemoryError, match=rf"^no memory for a {what} of 2\*\*16609 or more bytes$"):
            make(10**5000)
        with pytest.raises(ValueError, match=r"must not be negative: -2\*\*16609 or more$"):
            make(-(10**5000))


@pytest.mark.parametrize("n", [-1, -4096, -(2**63), -(2**64), -(2**200)])
def test_negative_lengths(n: int) -> None:
    pool = deferpool.BufferPool(sched=private_sched())
    with pytest.raises(ValueError, match=rf"^the length of a buffer must not be negative: {n}$"):
        pool.get(n)
    assert pool.stats()["gets"] == 0


@pytest.mark.parametrize(("n", "kind"), [(1.0, "float"), ("16", "str"), (None, "NoneType"), (b"16", "bytes")])
def test_lengths_that_are_no_integers(n: Any, kind: str) -> None:
    pool = deferpool.BufferPool(sched=private_sched())
    with pytest.raises(TypeError, match=rf"^the length of a buffer must be an integer, not {kind}$"):
        pool.get(n)
    assert pool.stats()["gets"] == 0


def test_whatever_has_an_index_is_a_length() -> None:
    class Forty:
        def __index__(self) -> int:
            return 40

    pool = deferpool.BufferPool(sched=private_sched())
    assert (len(pool.get(Forty())), len(pool.get(True))) == (40, 1)


# ---- memory ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 4096, 5_000, MIB, MIB + 1])
def test_page_aligned_and_apart(mode: Mode, n: int) -> None:
    pool = deferpool.BufferPool([4096, 12288, MIB], sched=mode.sched(1))
    buffers = [pool.get(n) for _ in range(40)]
    addresses = sorted(buffer.address or 0 for buffer in buffers)
    assert all(address and address % 4096 == 0 for address in addresses)
    assert all(after - before >= n for before, after in zip(addresses, addresses[1:], strict=False))
    for i, buffer in enumerate(buffers):
        overwrite(buffer, bytes([i]))
    assert [content(buffer) for buffer in buffers] == [bytes([i]) * n for i in range(40)]


@pytest.mark.parametrize("own", [True, False])
def test_zeroed_to_the_end_of_the_class(mode: Mode, own: bool) -> None:
    """Each buffer was written all over, by one who asked for less than the next one gets."""
    given: Any = None if own else CountingAllocator().capsule
    pool = deferpool.BufferPool([4096, 8192], cap=2, limit=6, zero=True, sched=mode.sched(1), allocator=given)
    for _ in range(3):
        for n in (4_000, 4_096, 1, 8_192, 5_000, 10_000):
            buffers = [pool.get(n) for _ in range(12)]
            for buffer in buffers:
                assert content(buffer) == bytes(n)
                overwrite(buffer)
            del buffer
            buffers[0].release()
            buffers.clear()


def test_a_buffer_holds_what_its_memory_held() -> None:
    pool = deferpool.BufferPool([4096], sched=private_sched())
    with pool.get(4096) as buffer:
        overwrite(buffer, b"a")
    assert content(pool.get(3)) == b"aaa"


@pytest.mark.parametrize("n", [100, 5_000])
def test_debug_fills_what_comes_back(n: int) -> None:
    pool = deferpool.BufferPool([8192], debug=True, sched=private_sched())
    with pool.get(n) as buffer:
        overwrite(buffer, b"a")
    assert content(pool.get(n)) == b"\xdf" * n
    zero = deferpool.BufferPool([8192], debug=True, zero=True, sched=private_sched())
    with zero.get(n) as buffer:
        overwrite(buffer, b"a")
    assert content(zero.get(n)) == bytes(n)


def test_buffer_protocol() -> None:
    pool = deferpool.BufferPool(sched=private_sched())
    buffer = pool.get(5)
    with memoryview(buffer) as view, memoryview(buffer) as other:
        assert (view.format, view.shape, view.strides, view.itemsize, view.ndim) == ("B", (5,), (1,), 1, 1)
        assert (view.readonly, view.c_contiguous, view.obj) == (False, True, buffer)
        view[:] = b"abcde"
        other[4] = 7
        assert other.tobytes() == b"abcd\x07"


class View(ctypes.Structure):
    """Py_buffer."""

    _fields_ = [("buf", ctypes.c_void_p), ("obj", ctypes.py_object), ("len", ctypes.c_ssize_t),
                ("itemsize", ctypes.c_ssize_t), ("readonly", ctypes.c_int), ("ndim", ctypes.c_int),
                ("format", ctypes.c_char_p), ("shape", ctypes.c_void_p), ("strides", ctypes.c_void_p),
                ("suboffsets", ctypes.c_void_p), ("internal", ctypes.c_void_p)]


@pytest.mark.parametrize("flags", [0, 0x1, 0x4, 0x8, 0x8 | 0x4, 0x10 | 0x8, 0x10 | 0x8 | 0x4, 0x100 | 0x10 | 0x8 | 0x4])
def test_what_is_not_asked_for_is_not_told(flags: int) -> None:
    """As bytearray does: PyBUF_FORMAT is 4, PyBUF_ND 8, and PyBUF_STRIDES has 0x10 and PyBUF_ND."""
    told: list[tuple[object, ...]] = []
    for source in (deferpool.BufferPool(sched=private_sched()).get(5), bytearray(5)):
        view = View()
        ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(source), ctypes.byref(view), flags)
        told.append((view.len, view.itemsize, view.readonly, view.ndim))
        told.append((view.format, bool(view.shape), bool(view.strides)))
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(view))
    assert told[:2] == told[2:]


def test_reads_and_receives_go_into_it() -> None:
    pool = deferpool.BufferPool(sched=private_sched())
    with pool.get(5) as buffer:
        assert io.BytesIO(b"hello, world").readinto(buffer) == 5
        assert content(buffer) == b"hello"
        left, right = socket.socketpair()
        with left, right:
            left.sendall(b"HEL")
            assert right.recv_into(buffer) == 3
            right.sendall(buffer)
            assert left.recv(10) == b"HELlo"


def test_numpy() -> None:
    numpy = pytest.importorskip("numpy")
    pool = deferpool.BufferPool(sched=private_sched())
    buffer = pool.get(80)
    array = numpy.frombuffer(buffer, dtype="i8")
    array[:] = range(10)
    assert int(array.sum()) == 45
    with pytest.raises(BufferError):
        buffer.release()
    del array
    buffer.release()


# ---- the end of a buffer ----------------------------------------------------------------------------------

ENDS: dict[str, Callable[[deferpool.Buffer], object]] = {
    "release": lambda buffer: buffer.release(),
    "with": lambda buffer: buffer.__exit__(None, None, None),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("n", [100, 100_000])
def test_no_end_while_a_view_exists(mode: Mode, n: int, end: Callable[[deferpool.Buffer], object]) -> None:
    pool = deferpool.BufferPool([4096], sched=mode.sched(1))
    buffer = pool.get(n)
    first, second = memoryview(buffer), memoryview(buffer)
    for view in (first, second):
        with pytest.raises(BufferError, match="cannot be released while a memoryview of it exists"):
            end(buffer)
        second[3] = 9
        assert (buffer.address is not None, pool.stats()["live"], pool.stats()["puts"]) == (True, 1, 0)
        view.release()
    end(buffer)
    assert pool.stats()["live"] == 0
    assert_conserved(pool)


def test_with(mode: Mode) -> None:
    pool = deferpool.BufferPool(sched=mode.sched(1))
    with pool.get(10) as buffer:
        assert (pool.stats()["live"], buffer.pool) == (1, pool)
    assert (pool.stats()["live"], pool.stats()["cached"], buffer.address, len(buffer)) == (0, 1, None, 10)
    with pytest.raises(KeyError), pool.get(10):
        raise KeyError
    assert pool.stats()["live"] == 0
    with pool.get(10) as buffer:  # released inside: no error at the end
        buffer.release()
    stats = pool.stats()
    assert (stats["puts"], stats["live"], stats["created"]) == (3, 0, 1)
    with pytest.raises(ValueError, match="is free"), buffer:
        pytest.fail("entered")


def test_with_and_a_view_that_stays() -> None:
    pool = deferpool.BufferPool(sched=private_sched())
    buffer = pool.get(10)
    view = memoryview(buffer)
    with pytest.raises(BufferError) as caught, buffer:
        raise KeyError
    assert isinstance(caught.value.__context__, KeyError)
    view[:] = b"0123456789"
    assert pool.stats()["live"] == 1
    view.release()
    buffer.release()
    assert pool.stats()["live"] == 0


@pytest.mark.parametrize("n", [100, 100_000])
def test_second_release(mode: Mode, n: int) -> None:
    """Even when the memory is out again, as another buffer."""
    pool = deferpool.BufferPool([4096], sched=mode.sched(1))
    buffer = pool.get(n)
    buffer.release()
    again = pool.get(n)
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"^double free: <deferpool.Buffer: {n} bytes, free> is free already$"):
            buffer.release()
        with pytest.raises(ValueError, match="is free"):  # and the failed view counts as none
            memoryview(buffer)
    stats = pool.stats()
    assert (stats["live"], stats["puts"], again.address is not None) == (1, 1, True)
    assert_conserved(pool)


@pytest.mark.parametrize("n", [100, 100_000])
def test_the_last_reference_gives_back(mode: Mode, n: int) -> None:
    pool = deferpool.BufferPool([4096], sched=mode.sched(1))
    view = memoryview(pool.get(n))
    view[:3] = b"abc"
    assert (bytes(view[:3]), pool.stats()["live"]) == (b"abc", 1)
    del view
    stats = pool.stats()
    assert (stats["live"], stats["gets"], stats["puts"]) == (0, 1, 1)


def test_a_buffer_keeps_its_pool() -> None:
    pool = deferpool.BufferPool(sched=private_sched())
    seen = weakref.ref(pool)
    buffers = [pool.get(n) for n in (10, 10, 3 * MIB)]
    del pool
    gc.collect()
    assert all(buffer.pool is seen() for buffer in buffers)
    overwrite(buffers[0])
    buffers.pop().release()
    again: deferpool.Buffer | None = buffers[0].pool.get(100)
    assert again is not None
    buffers.clear()
    gc.collect()
    assert seen() is again.pool
    again = None
    gc.collect()
    assert seen() is None


def test_buffers_are_made_by_pools_only() -> None:
    with pytest.raises(TypeError, match=r"buffers are made by BufferPool\.get"):
        deferpool.Buffer()
    empty = deferpool.Buffer.__new__(deferpool.Buffer)
    nothing: Any = (empty.pool, empty.address, len(empty))
    assert nothing == (None, None, 0)
    for use in (empty.release, empty.__enter__, lambda: memoryview(empty)):
        with pytest.raises(ValueError, match="is free"):
            use()
    empty.__exit__(None, None, None)


def test_methods_are_of_their_types() -> None:
    pool = deferpool.BufferPool(sched=private_sched())
    wrong: Any = pool
    for method in (deferpool.Buffer.release, deferpool.Buffer.__enter__, deferpool.Buffer.__exit__):
        with pytest.raises(TypeError, match="doesn't apply to a"):
            method(wrong)
    assert pool.stats()["puts"] == 0


def test_no_copies() -> None:
    assert (
        output_of("""if True:
            import copy, pickle, deferpool
            buffer = deferpool.BufferPool().get(16)
            for attempt in (copy.copy, copy.deepcopy, pickle.dumps, lambda buffer: buffer.__reduce_ex__(2)):
                try:
                    attempt(buffer)
                except TypeError as error:
                    print("neither copied nor pickled" in str(error))
        """).split()
        == ["True"] * 4
    )


def test_a_release_and_a_view_at_once() -> None:
    """Whoever comes first, no view is of memory that went back."""
    pool = deferpool.BufferPool([4096], sched=private_sched())
    rounds = 3_000
    buffers = [pool.get(10) for _ in range(rounds)]
    views: list[memoryview | None] = [None] * rounds
    released = [0] * rounds

    def look() -> None:
        for i, buffer in enumerate(buffers):
            with contextlib.suppress(ValueError):
                views[i] = memoryview(buffer)

    def release() -> None:
        for i, buffer in enumerate(buffers):
            with contextlib.suppress(BufferError, ValueError):
                buffer.release()
                released[i] += 1

    run_threads(look, release, release)
    for view, ended in zip(views, released, strict=True):
        assert ended <= 1
        assert (view is None) == (ended == 1)
    assert pool.stats()["live"] == rounds - sum(released)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Buffer of collections.abc is of Python 3.12")
def test_is_a_buffer_to_abc() -> None:
    from collections.abc import Buffer  # type: ignore[attr-defined,unused-ignore]

    assert isinstance(deferpool.BufferPool(sched=private_sched()).get(1), Buffer)
