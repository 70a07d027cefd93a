"""What a BufferPool gives up goes back to the operating system: measured as resident memory."""
from __future__ import annotations

import sys
from functools import partial

import pytest
from helpers import output_of, run_threads

import deferpool

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's own figures")

MEASURE = """if True:
    import gc, deferpool
    MIB = 2**20

    def resident():
        with open("/proc/self/statm") as figures:
            return int(figures.read().split()[1]) * 4096

    def mappings():
        with open("/proc/self/maps") as figures:
            return sum(1 for _ in figures)

    def write(buffer):
        memoryview(buffer)[::4096] = b"x" * (len(buffer) // 4096)      # every page of it

    def written(pool, size, total):
        buffers = [pool.get(size) for _ in range(total // size)]
        for buffer in buffers:
            write(buffer)
        return buffers
"""


def test_1_gib_left_alone_for_two_collections() -> None:
    """What stays is what the local caches hold, and a hundredth for all that Python and malloc keep."""
    assert output_of(MEASURE + """
    pool = deferpool.BufferPool(limit_bytes=None)
    before = resident()
    buffers = [written(pool, size, 2**30 // 8 * part) for size, part in ((4096, 1), (16384, 1), (65536, 2), (MIB, 4))]
    assert resident() - before >= 2**30, resident() - before
    buffers.clear()
    assert pool.stats()["cached_bytes"] == 2**30
    assert resident() - before >= 2**30
    gc.collect()
    gc.collect()
    stats = pool.stats()
    assert stats["central_bytes"] == 0, stats
    local = stats["cached_bytes"]
    assert local <= 64 * MIB, stats
    assert resident() - before <= local + 2**30 // 100, (resident() - before, local)
    pool.clear()
    assert resident() - before <= 2**30 // 100, resident() - before
    print("gone")
    """) == "gone"


@pytest.mark.parametrize("size", [4096, 12288, 65536, 2**20])
def test_each_second_buffer(size: int) -> None:
    """Between others that stay: their memory goes too, without a mapping for each."""
    assert output_of(MEASURE + f"""
    size = {size}
    pool = deferpool.BufferPool([size], sched=deferpool.Sched(2, portable=True, clear_on_gc=False), limit_bytes=None)
    before, mapped = resident(), mappings()
    buffers = written(pool, size, 128 * MIB)
    del buffers[::2]
    pool.clear()
    assert resident() - before <= 76 * MIB, resident() - before
    assert mappings() - mapped < 30, mappings() - mapped
    assert all(set(memoryview(buffer)[::4096]) == {{120}} for buffer in buffers)
    again = [pool.get(size) for _ in range(len(buffers))]       # in the places of those that went
    assert mappings() - mapped < 30
    assert len({{buffer.address for buffer in buffers + again}}) == len(buffers) * 2
    assert not any(any(memoryview(buffer)[::4096]) for buffer in again)
    print("gone")
    """) == "gone"


def test_past_the_limit_and_past_the_last_class() -> None:
    assert output_of(MEASURE + """
    pool = deferpool.BufferPool([MIB], cap=2, limit_bytes=8 * MIB)
    before = resident()
    for _ in range(3):
        del written(pool, MIB, 100 * MIB)[:]
        buffer = pool.get(100 * MIB)
        write(buffer)
        buffer.release()
    assert resident() - before <= pool.stats()["bound_bytes"] + 2 * MIB, resident() - before
    print("gone")
    """) == "gone"


def test_a_pool_that_ends_gives_back_its_address_space() -> None:
    assert output_of(MEASURE + """
    def mapped():
        with open("/proc/self/statm") as figures:
            return int(figures.read().split()[0]) * 4096

    del written(deferpool.BufferPool(), 65536, MIB)[:]
    before = mapped()
    for _ in range(20):
        del written(deferpool.BufferPool(), 65536, 20 * MIB)[:]
    assert mapped() - before <= 16 * MIB, mapped() - before
    print("gone")
    """) == "gone"


def test_untouched_memory_is_not_resident() -> None:
    """A get writes nothing, not even where buffers are zeroed: pages become resident when they are used."""
    assert output_of(MEASURE + """
    pool = deferpool.BufferPool([64 * MIB], zero=True)
    before = resident()
    buffers = [pool.get(64 * MIB) for _ in range(20)]
    assert resident() - before <= 4 * MIB, resident() - before
    print(len(buffers))
    """) == "20"


@pytest.mark.parametrize("classes", [(4096,), (4096, 2**20)])
def test_no_block_is_given_twice(classes: tuple[int, ...]) -> None:
    """Nearly all are made and dropped at once by many threads; each finds in its buffers what it wrote."""
    pool = deferpool.BufferPool(classes, cap=2, limit_bytes=0)

    def work(stamp: int) -> None:
        for turn in range(40):
            buffers = [pool.get(classes[i % len(classes)]) for i in range(30)]
            for i, buffer in enumerate(buffers):
                memoryview(buffer)[:3] = bytes([stamp, i, turn])
            for i, buffer in enumerate(buffers):
                assert bytes(memoryview(buffer)[:3]) == bytes([stamp, i, turn])

    run_threads(*[partial(work, stamp) for stamp in range(6)])
    stats = pool.stats()
    assert stats["live"] == stats["central"] == 0
    assert stats["dropped"] > 6 * 40 * 20
    pool.clear()
    assert pool.stats()["cached_bytes"] == pool.stats()["live_bytes"] == 0


def test_pages_are_those_of_the_pool() -> None:
    """One more check that regions of different pools are apart: each pool's own byte is in each of its buffers."""
    pools = [deferpool.BufferPool([4096, 8192], sched=deferpool.Sched(1, portable=True)) for _ in range(3)]
    held = [(i, pool.get(size)) for i, pool in enumerate(pools) for size in (4096, 8192) for _ in range(300)]
    for i, buffer in held:
        memoryview(buffer)[:] = bytes([i + 1]) * len(buffer)
    assert all(set(memoryview(buffer)) == {i + 1} for i, buffer in held[::20])
    assert len({buffer.address for _, buffer in held}) == len(held)


def test_a_large_buffer_is_not_written_when_it_goes() -> None:
    """It is unmapped: nobody will ever see what it held, and memory that was never touched is not there yet."""
    for options in ("zero=True", "debug=True"):
        assert output_of(MEASURE + f"""
    import resource
    pool = deferpool.BufferPool({options})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pool.get(2**40).release()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4096)
""") == "True"
