"""RecordPool from Python: its arguments, and what a record is while it is out, cached, dropped or gone."""
import ctypes
import pickle
import sys
from typing import Any

import pytest
from helpers import PTRDIFF_MAX, CountingAllocator, Mode, assert_conserved, capsule, fill, output_of

import deferpool


def private_sched() -> deferpool.Sched:
    return deferpool.Sched(1, clear_on_gc=False)


def content(record: deferpool.Record) -> bytes:
    with memoryview(record) as view:
        return bytes(view)


def overwrite(record: deferpool.Record) -> None:
    with memoryview(record) as view:
        view[:] = b"\xff" * len(view)


# ---- arguments ------------------------------------------------------------------------------------------


def test_defaults() -> None:
    pool = deferpool.RecordPool()
    assert pool.sizes == (16, 32, 48, 64, 80)
    assert (pool.cap, pool.limit, pool.debug) == (32, 5 * 1024, False)
    assert pool.bound == deferpool.procs() * 5 * 32 + 5 * 1024
    assert repr(pool) == "<deferpool.RecordPool: 5 classes, cap 32, limit 5120>"


@pytest.mark.parametrize(
    ("sizes", "rounded"),
    [
        ([1], (16,)),
        ([16], (16,)),
        ([17], (32,)),
        ((1, 17, 1_000), (16, 32, 1_008)),
        (range(20, 80, 20), (32, 48, 64)),
        (iter([16, 64]), (16, 64)),
        ([2**20], (2**20,)),
        (range(16, 33 * 16, 16), tuple(range(16, 33 * 16, 16))),
    ],
)
def test_sizes_are_rounded_up(sizes: Any, rounded: tuple[int, ...]) -> None:
    pool = deferpool.RecordPool(sizes, sched=private_sched())
    assert pool.sizes == rounded
    assert pool.limit == 1024 * len(rounded)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([0], "a class size must be from 1 to 1048576 bytes, not 0"),
        ([16, -5], "a class size must be from 1 to 1048576 bytes, not -5"),
        ([2**20 + 1], "a class size must be from 1 to 1048576 bytes, not 1048577"),
        ([2**70], f"a class size must be from 1 to 1048576 bytes, not {2**70}"),
        ([], "there must be 1 to 32 sizes, not 0"),
        (range(16, 34 * 16, 16), "there must be 1 to 32 sizes, not 33"),
        ([16, 16], r"sizes must grow from class to class, in steps of 16 bytes: \(16, 16\)"),
        ([1, 16], r"sizes must grow from class to class, in steps of 16 bytes: \(1, 16\)"),
        ([32, 16], r"sizes must grow from class to class, in steps of 16 bytes: \(32, 16\)"),
        (iter([32, 16]), r"sizes must grow from class to class, in steps of 16 bytes: \(32, 16\)"),
    ],
)
def test_bad_sizes(sizes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{message}$"):
        deferpool.RecordPool(sizes)


@pytest.mark.parametrize(("sizes", "wrong"), [(16, "int"), (None, "NoneType"), (["16"], "str"), ([16.0], "float")])
def test_sizes_of_a_wrong_type(sizes: Any, wrong: str) -> None:
    with pytest.raises(TypeError, match=wrong):
        deferpool.RecordPool(sizes)


@pytest.mark.parametrize("cap", [0, 1, 3, -2, 31, 32_770, 2**32, 2**32 + 2, 2**80])
def test_bad_cap(cap: int) -> None:
    with pytest.raises(ValueError, match=rf"^cap must be even and from 2 to 32766, not {cap}$"):
        deferpool.RecordPool([16], cap=cap)


@pytest.mark.parametrize("limit", [-1, -(2**63), 2**63, 2**64, 2**64 + 1])
def test_bad_limit(limit: int) -> None:
    with pytest.raises(ValueError, match=rf"^limit must be None or from 0 to 2\*\*63 - 1, not {limit}$"):
        deferpool.RecordPool([16], limit=limit)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cap": 2.0}, "cap must be an integer, not float"),
        ({"cap": None}, "cap must be an integer, not NoneType"),
        ({"limit": "5"}, "limit must be an integer or None, not str"),
        ({"sched": 2}, "'sched' has incorrect type .* got int"),
        ({"allocator": 3}, "allocator must be a capsule named 'deferpool.Allocator', not int"),
        ({"name": b"mine"}, "name must be a str, not bytes"),
        ({"colour": 1}, "unexpected keyword argument 'colour'"),
    ],
)
def test_arguments_of_a_wrong_type(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        deferpool.RecordPool([16], **wrong)


@pytest.mark.parametrize("limit", [0, 1, 2**63 - 1, None])
@pytest.mark.parametrize("cap", [2, 32_766])
def test_extremes(mode: Mode, cap: int, limit: int | None) -> None:
    sched = mode.sched(1)
    pool = deferpool.RecordPool([16, 32], cap=cap, limit=limit, sched=sched)
    assert (pool.cap, pool.limit) == (cap, limit)
    assert pool.bound == (None if limit is None else sched.procs * 2 * cap + limit)
    fill(pool, 10)
    assert_conserved(pool)


def test_what_cannot_be_made_leaves_nothing() -> None:
    allocator = CountingAllocator()
    sched = private_sched()
    bad: list[dict[str, Any]] = [{"cap": 3}, {"limit": -1}, {"cap": 3, "debug": True}]
    for arguments in bad:
        with pytest.raises(ValueError, match="must be"):
            deferpool.RecordPool([16], sched=sched, allocator=allocator.capsule, **arguments)
    assert sched.stats()["pools"] == []
    allocator.assert_nothing_left()


@pytest.mark.parametrize("name", ["sizes", "cap", "limit", "bound", "debug", "sched"])
def test_attributes_are_read_only(name: str) -> None:
    pool = deferpool.RecordPool([16], sched=private_sched())
    with pytest.raises(AttributeError):
        setattr(pool, name, 4)


def test_is_final() -> None:
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Mine", (deferpool.RecordPool,), {})


# ---- sizes of records -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "cls"), [(0, 0), (1, 0), (16, 0), (17, 1), (32, 1), (33, 2), (79, 2), (80, 2)])
def test_smallest_class_that_fits(mode: Mode, size: int, cls: int) -> None:
    allocator = CountingAllocator()
    pool = deferpool.RecordPool([16, 32, 80], sched=mode.sched(1), allocator=allocator.capsule)
    record = pool.new(size)
    assert record.size == size
    assert list(allocator.items.sizes.values()) == [16 + pool.sizes[cls]]
    pool.free(record)
    counts = [sum(each) for each in zip(*pool.stats()["per_p"], strict=True)]
    assert counts == [int(i == cls) for i in range(3)]
    assert pool.stats()["bypassed"] == 0


def test_size_zero_is_a_record(mode: Mode) -> None:
    pool = deferpool.RecordPool([16], sched=mode.sched(1))
    first, second = pool.new(0), pool.new(0)
    assert first.address != second.address
    assert (first.size, content(first), pool.stats()["live"]) == (0, b"", 2)


@pytest.mark.parametrize("size", [33, 100, 2**20 + 1])
def test_past_the_last_class(mode: Mode, size: int) -> None:
    """Bypasses the caches both ways, is counted, and its memory goes back at once."""
    allocator = CountingAllocator()
    pool = deferpool.RecordPool([16, 32], sched=mode.sched(1), allocator=allocator.capsule)
    for n in range(1, 4):
        record = pool.new(size)
        assert content(record) == bytes(size)
        overwrite(record)
        assert allocator.items.out == 1
        assert_conserved(pool)
        pool.free(record)
        assert allocator.items.out == 0
        assert_conserved(pool)
        stats = pool.stats()
        assert (stats["bypassed"], stats["gets"], stats["puts"], stats["created"], stats["destroyed"]) == (n,) * 5
        assert (stats["live"], stats["cached"], stats["dropped"]) == (0, 0, 0)


@pytest.mark.parametrize("size", [2**62, PTRDIFF_MAX - 15, PTRDIFF_MAX, PTRDIFF_MAX + 1, 2**64, 2**64 + 16, 2**200])
def test_huge_sizes(mode: Mode, size: int) -> None:
    pool = deferpool.RecordPool(sched=mode.sched(1))
    with pytest.raises(MemoryError, match=rf"^no memory for a record of {size} bytes$"):
        pool.new(size)
    stats = pool.stats()
    assert (stats["gets"], stats["created"], stats["bypassed"], stats["live"]) == (0, 0, 0, 0)


@pytest.mark.parametrize("size", [-1, -16, -(2**63), -(2**64), -(2**200)])
def test_negative_sizes(size: int) -> None:
    pool = deferpool.RecordPool(sched=private_sched())
    with pytest.raises(ValueError, match=rf"^size must not be negative: {size}$"):
        pool.new(size)
    assert pool.stats()["gets"] == 0


@pytest.mark.parametrize("size", [1.0, "16", None, b"16"])
def test_sizes_that_are_no_integers(size: Any) -> None:
    pool = deferpool.RecordPool(sched=private_sched())
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        pool.new(size)
    assert pool.stats()["gets"] == 0


def test_whatever_has_an_index_is_a_size() -> None:
    class Forty:
        def __index__(self) -> int:
            return 40

    size: Any = Forty()
    pool = deferpool.RecordPool([size], sched=private_sched())
    assert (pool.sizes, pool.new(size).size) == ((48,), 40)


# ---- memory ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cap", [2, 32])
def test_zeroed_to_the_end_of_the_class(mode: Mode, cap: int) -> None:
    """Each record was written all over, by one who asked for less than the next one gets."""
    pool = deferpool.RecordPool([48, 1_024], cap=cap, limit=20, sched=mode.sched(1))
    for _ in range(4):
        for size, larger in ((33, 48), (48, 33), (1_000, 1_024), (1_024, 49)):
            for asked in (size, larger):
                records = [pool.new(asked) for _ in range(60)]
                for record in records:
                    assert content(record) == bytes(asked)
                    overwrite(record)
                for record in records:
                    pool.free(record)


@pytest.mark.parametrize("size", range(16, 161, 16))
def test_every_unit_is_zeroed(mode: Mode, size: int) -> None:
    pool = deferpool.RecordPool(range(16, 161, 16), sched=mode.sched(1))
    for _ in range(3):
        record = pool.new(size)
        assert content(record) == bytes(size)
        overwrite(record)
        pool.free(record)


@pytest.mark.parametrize("size", [0, 1, 16, 40, 80, 81, 1_000, 65_537])
def test_aligned(mode: Mode, size: int) -> None:
    pool = deferpool.RecordPool(sched=mode.sched(1))
    records = [pool.new(size) for _ in range(50)]
    addresses = sorted(record.address or 0 for record in records)
    assert all(address and address % 16 == 0 for address in addresses)
    assert all(after - before >= size for before, after in zip(addresses, addresses[1:], strict=False))


def test_buffer() -> None:
    pool = deferpool.RecordPool([16], sched=private_sched())
    record = pool.new(5)
    with memoryview(record) as view, memoryview(record) as other:
        assert (view.format, view.shape, view.strides, view.itemsize, view.ndim) == ("B", (5,), (1,), 1, 1)
        assert (view.readonly, view.c_contiguous, view.obj) == (False, True, record)
        view[1:3] = b"ab"
        other[4] = 7
        assert other.tobytes() == view.tobytes() == b"\0ab\0\x07"
        assert ctypes.string_at(record.address or 0, 5) == b"\0ab\0\x07"
        with pytest.raises(IndexError):
            view[5]


def test_no_free_while_a_view_exists() -> None:
    pool = deferpool.RecordPool([16], sched=private_sched())
    record = pool.new(16)
    first, second = memoryview(record), memoryview(record)
    for view in (first, second):
        with pytest.raises(BufferError, match="cannot be freed while a memoryview of it exists"):
            pool.free(record)
        second[3] = 9
        assert (record.address is not None, pool.stats()["live"]) == (True, 1)
        view.release()
    pool.free(record)
    assert pool.stats()["live"] == 0


def test_no_view_of_a_freed_record() -> None:
    pool = deferpool.RecordPool([16], sched=private_sched())
    record = pool.new(16)
    pool.free(record)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^<deferpool.Record: 16 bytes, free> is free$"):
            memoryview(record)
    with pytest.raises(ValueError, match="double free"):  # and no BufferError: what failed counts as no view
        pool.free(record)


def test_view_keeps_the_record() -> None:
    pool = deferpool.RecordPool([16], sched=private_sched())
    view = memoryview(pool.new(16))
    assert pool.stats()["live"] == 1
    assert pool.new(16).address != ctypes.addressof(ctypes.c_char.from_buffer(view))
    del view
    assert pool.stats()["live"] == 0


# ---- handles --------------------------------------------------------------------------------------------


def test_what_a_handle_tells(mode: Mode) -> None:
    pool = deferpool.RecordPool(sched=mode.sched(1))
    record = pool.new(40)
    assert (record.pool, record.size) == (pool, 40)
    assert repr(record) == f"<deferpool.Record: 40 bytes, at {record.address:#x}>"
    pool.free(record)
    assert (record.pool, record.size, record.address) == (pool, 40, None)
    assert repr(record) == "<deferpool.Record: 40 bytes, free>"


@pytest.mark.parametrize("size", [16, 500])
def test_double_free(mode: Mode, size: int) -> None:
    """Even when the memory is out again, as another record."""
    pool = deferpool.RecordPool([16], sched=mode.sched(1))
    record = pool.new(size)
    pool.free(record)
    again = pool.new(size)
    with pytest.raises(ValueError, match=rf"^double free: <deferpool.Record: {size} bytes, free> is free already$"):
        pool.free(record)
    stats = pool.stats()
    assert (stats["live"], stats["puts"], again.address is not None) == (1, 1, True)
    assert_conserved(pool)


@pytest.mark.parametrize("size", [16, 500])
def test_record_of_another_pool(mode: Mode, size: int) -> None:
    sched = mode.sched(1)
    mine, other = (deferpool.RecordPool([16], sched=sched) for _ in range(2))
    record = mine.new(size)
    with pytest.raises(ValueError, match=rf"^<deferpool.Record: {size} bytes, at .*> is a record of another pool$"):
        other.free(record)
    assert (mine.stats()["live"], other.stats()["puts"]) == (1, 0)
    mine.free(record)
    assert mine.stats()["live"] == 0


@pytest.mark.parametrize("wrong", [None, 0, "record", b"bytes"])
def test_free_of_what_is_no_record(wrong: Any) -> None:
    pool = deferpool.RecordPool([16], sched=private_sched())
    with pytest.raises(TypeError, match=f"expected deferpool.records.Record, got {type(wrong).__name__}"):
        pool.free(wrong)
    assert pool.stats()["puts"] == 0


def test_dropped_handle_gives_back(mode: Mode) -> None:
    pool = deferpool.RecordPool([16], sched=mode.sched(1))
    for size in (16, 500):
        record = pool.new(size)
        overwrite(record)
        del record
    stats = pool.stats()
    assert (stats["live"], stats["gets"], stats["puts"], stats["cached"]) == (0, 2, 2, 1)
    assert content(pool.new(16)) == bytes(16)


def test_handle_in_a_cycle_gives_back() -> None:
    """Whatever the collector clears first."""
    assert (
        output_of("""if True:
            import gc, deferpool
            pool = deferpool.RecordPool([16], sched=deferpool.Sched(2, clear_on_gc=False))
            cycle = [pool.new(16)]
            cycle.append(cycle)
            del cycle
            gc.collect()
            print(pool.stats()["live"], pool.stats()["puts"])
        """)
        == "0 1"
    )


def test_handle_keeps_its_pool(mode: Mode) -> None:
    allocator = CountingAllocator()
    record = deferpool.RecordPool([16], sched=mode.sched(1), allocator=allocator.capsule).new(16)
    overwrite(record)
    assert allocator.items.out == 1
    record.pool.free(record)
    assert record.pool.stats()["live"] == 0
    del record
    allocator.assert_nothing_left()


def test_pool_in_a_cycle() -> None:
    """With its Sched and a record that is out: whatever the collector clears first. It crashed once."""
    assert (
        output_of("""if True:
            import gc, deferpool
            for own_sched in (False, True):
                sched = deferpool.Sched(2, clear_on_gc=False)
                pool = deferpool.RecordPool([16], sched=sched)
                cycle = [pool, pool.new(16), sched if own_sched else None]
                cycle.append(cycle)
                pool.free(pool.new(16))
                if own_sched:
                    del sched
                del cycle, pool
                gc.collect()
                if not own_sched:
                    print(sched.stats()["pools"])
            deferpool.RecordPool([16]).new(16)
            print("alive")
        """)
        == "[]\nalive"
    )


def test_records_are_made_by_pools_only() -> None:
    with pytest.raises(TypeError, match=r"records are made by RecordPool\.new"):
        deferpool.Record()
    empty = deferpool.Record.__new__(deferpool.Record)
    assert empty.pool is None
    assert empty.address is None
    with pytest.raises(ValueError, match="another pool"):
        deferpool.RecordPool([16]).free(empty)
    with pytest.raises(ValueError, match="is free"):
        memoryview(empty)


def test_no_copies_of_a_handle() -> None:
    """Two handles of one record would give it back twice, and that aborts."""
    assert (
        output_of("""if True:
            import copy, pickle, deferpool
            record = deferpool.RecordPool([16]).new(16)
            for attempt in (copy.copy, copy.deepcopy, pickle.dumps, lambda record: record.__reduce_ex__(2)):
                try:
                    attempt(record)
                except TypeError:
                    print("TypeError")
        """).split()
        == ["TypeError"] * 4
    )


def test_no_pickles_of_a_pool() -> None:
    pool = deferpool.RecordPool([16], sched=private_sched())
    for thing in (pool, pool.sched):
        with pytest.raises(TypeError):
            pickle.dumps(thing)


# ---- debug mode -----------------------------------------------------------------------------------------


def test_dropped_records_are_quarantined(mode: Mode) -> None:
    """They are filled with 0xDF, stay with the pool and are not handed out again."""
    allocator = CountingAllocator()
    pool = deferpool.RecordPool([32], cap=2, limit=0, debug=True, sched=mode.sched(1), allocator=allocator.capsule)
    records = [pool.new(20) for _ in range(100)]
    addresses = [record.address or 0 for record in records]
    for record in records:
        pool.free(record)
    stats = pool.stats()
    assert stats["dropped"] == stats["destroyed"] == 100 - stats["cached"] >= 100 - 2 * pool.sched.procs
    assert allocator.items.out == 100
    filled = {address for address in addresses if ctypes.string_at(address, 32) == b"\xdf" * 32}
    assert len(filled) == stats["dropped"]
    again = [pool.new(32) for _ in range(100)]
    assert filled.isdisjoint(record.address for record in again)
    del again, record, records
    assert_conserved(pool)
    del pool
    allocator.assert_nothing_left()


def test_quarantine_keeps_the_newest_4096(mode: Mode) -> None:
    allocator = CountingAllocator()
    pool = deferpool.RecordPool([16], debug=True, sched=mode.sched(1), allocator=allocator.capsule)
    for size in range(17, 17 + 5_000):
        pool.free(pool.new(size))
    assert pool.stats()["destroyed"] == 5_000
    sizes = sorted(allocator.items.sizes.values())
    assert len(sizes) == 4_096
    assert sizes == list(range(sizes[-1] - 4_095, sizes[-1] + 1))
    address = pool.new(100).address
    assert address is not None
    assert ctypes.string_at(address, 100) == b"\xdf" * 100
    del pool
    allocator.assert_nothing_left()


def test_no_quarantine_without_debug(mode: Mode) -> None:
    allocator = CountingAllocator()
    pool = deferpool.RecordPool([16], cap=2, limit=0, debug=False, sched=mode.sched(1), allocator=allocator.capsule)
    fill(pool, 50)
    assert allocator.items.out == pool.stats()["cached"]


@pytest.mark.parametrize(("value", "debug"), [("1", True), ("0", False), (None, False)])
def test_debug_by_environment(value: str | None, debug: bool) -> None:
    code = (
        "from deferpool import RecordPool; "
        "print(*[RecordPool([16], debug=debug).debug for debug in (None, True, False)], RecordPool().debug)"
    )
    assert output_of(code, DEFERPOOL_DEBUG=value) == f"{debug} True False {debug}"


# ---- allocators -----------------------------------------------------------------------------------------


def test_allocator_must_have_its_name() -> None:
    memory = ctypes.create_string_buffer(64)
    for name in (b"deferpool.allocator", b"", b"Allocator"):
        with pytest.raises(TypeError, match="must be a capsule named 'deferpool.Allocator', not PyCapsule"):
            deferpool.RecordPool([16], allocator=capsule(ctypes.addressof(memory), name))


def test_allocator_is_kept(mode: Mode) -> None:
    allocator = CountingAllocator()
    counts = [sys.getrefcount(allocator.capsule)]
    pool = deferpool.RecordPool([16], sched=mode.sched(1), allocator=allocator.capsule)
    counts.append(sys.getrefcount(allocator.capsule))
    del pool
    counts.append(sys.getrefcount(allocator.capsule))
    assert [count - counts[0] for count in counts] == [0, 1, 0]


def test_allocator_without_meta(mode: Mode) -> None:
    """Only records come from it; what holds them comes from the C library."""
    allocator = CountingAllocator(meta=False)
    pool = deferpool.RecordPool([16], cap=4, sched=mode.sched(1), allocator=allocator.capsule)
    fill(pool, 100)
    assert (allocator.items.out, allocator.meta.created) == (100, 0)
    del pool
    allocator.assert_nothing_left()
