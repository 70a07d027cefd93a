"""Sched and the runtime's own: arguments, environment, modes, collections, and what becomes of a dropped one."""
import ctypes
import gc
import os
import re
import sys
import sysconfig
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers import CPUS, CountingAllocator, Mode, assert_conserved, fill, local, output_of, run_python, run_threads

import deferpool

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


# ---- arguments ------------------------------------------------------------------------------------------


def test_defaults(mode: Mode) -> None:
    sched = deferpool.Sched(portable=mode.name == "portable")
    assert sched.mode == mode.name
    assert sched.cpus >= CPUS
    assert sched.procs == (sched.cpus if mode.name == "sections" else min(max(4 * sched.cpus, 16), 1024))
    assert sched.clear_on_gc is True


@pytest.mark.parametrize("procs", [1, 2, 17, 1024])
def test_procs(mode: Mode, procs: int) -> None:
    sched = deferpool.Sched(procs, portable=mode.name == "portable")
    assert sched.procs == procs
    assert sched.mode == (mode.name if procs >= sched.cpus else "portable")
    assert repr(sched) == f"<deferpool.Sched: {procs} Ps, {sched.mode}>"
    pool = deferpool.RecordPool([16], sched=sched)
    fill(pool, 100)
    assert len(pool.stats()["per_p"]) == procs
    assert_conserved(pool)


@pytest.mark.parametrize("procs", [0, -1, 1025, 2**32 + 1, 2**64 + 1, -(2**100)])
def test_procs_out_of_range(procs: int) -> None:
    for attempt in (deferpool.Sched, deferpool.Sched(2).procresize, deferpool.procresize):
        with pytest.raises(ValueError, match=rf"^procs must be from 1 to 1024, not {procs}$"):
            attempt(procs)


@pytest.mark.parametrize("procs", [2.0, "2", [2]])
def test_procs_that_is_no_integer(procs: Any) -> None:
    for attempt in (deferpool.Sched, deferpool.Sched(2).procresize, deferpool.procresize):
        with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
            attempt(procs)


@pytest.mark.parametrize(("arguments", "named"), [((2, True), {}), ((), {"colour": 1}), ((), {"proc": 2})])
def test_other_arguments(arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        deferpool.Sched(*arguments, **named)


@pytest.mark.parametrize("name", ["procs", "cpus", "mode", "clear_on_gc"])
def test_attributes_are_read_only(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(deferpool.Sched(2), name, 1)


# ---- the runtime's own ------------------------------------------------------------------------------------


def test_functions_of_the_runtime() -> None:
    pool = deferpool.RecordPool([16])
    elsewhere = deferpool.RecordPool([16], sched=deferpool.Sched(2, clear_on_gc=False))
    before = deferpool.procs()
    assert before == pool.sched.procs == deferpool.stats()["procs"]
    try:
        assert deferpool.procresize(before + 3) == before
        assert deferpool.procs() == pool.sched.procs == len(pool.stats()["per_p"]) == before + 3
    finally:
        assert deferpool.procresize(before) == before + 3
    assert elsewhere.sched.procs == 2
    for each in (pool, elsewhere):
        fill(each, 200)
    held = pool.stats()["central"]
    cached = local(pool.stats())
    deferpool.clearpools()
    assert held > 0
    assert (pool.stats()["central"], local(pool.stats())) == (0, cached)
    assert elsewhere.stats()["central"] > 0


def test_get_include() -> None:
    folder = Path(deferpool.get_include())
    assert folder.is_absolute()
    for header in ("platform", "sections", "thread", "interpreter"):
        assert f"DEFERPOOL_{header.upper()}_H" in (folder / f"{header}.h").read_text()
    assert (folder / "records.pxd").is_file()


def test_everything_public_is_named() -> None:
    assert sorted(deferpool.__all__) == [
        "AsyncExitStack", "Buffer", "BufferPool", "ExitStack", "Goexit", "Pool", "Record", "RecordPool", "Sched",
        "clearpools", "defer", "deferring", "get_include", "goexit", "procresize", "procs", "recover", "stats",
    ]
    assert all(getattr(deferpool, name).__doc__ for name in deferpool.__all__)


TELL = "import deferpool; print(deferpool.procs(), deferpool.stats()['mode'], deferpool.Sched().procs)"


@pytest.mark.parametrize("text", ["1", "3", " 7 ", "1024"])
def test_procs_from_the_environment(text: str) -> None:
    """It is the runtime's own number; the default of another Sched is not touched."""
    own, mode, other = output_of(TELL, DEFERPOOL_PROCS=text).split()
    _, usual, default = output_of(TELL).split()
    assert (int(own), other) == (int(text), default)
    assert mode == (usual if int(text) >= deferpool.Sched().cpus else "portable")


@pytest.mark.parametrize("text", ["0", "-1", "1025", "99999999999999999999", "2.0", "four", "0x4", "1 2"])
def test_bad_procs_in_the_environment(text: str) -> None:
    done = run_python("import deferpool", DEFERPOOL_PROCS=text)
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said == f"ValueError: DEFERPOOL_PROCS must be an integer from 1 to 1024, not {text!r}"


@pytest.mark.parametrize("text", ["1", " 1 "])
def test_portable_by_the_environment(text: str) -> None:
    cpus = deferpool.Sched().cpus
    assert output_of(TELL, DEFERPOOL_PORTABLE=text).split()[:2] == [str(min(max(4 * cpus, 16), 1024)), "portable"]


@pytest.mark.parametrize(("portable", "procs"), [("", ""), ("0", ""), (" ", " ")])
def test_empty_settings_are_no_settings(portable: str, procs: str) -> None:
    assert output_of(TELL, DEFERPOOL_PORTABLE=portable, DEFERPOOL_PROCS=procs) == output_of(TELL)


@pytest.mark.parametrize("text", ["2", "yes", "true", "-1", "01", "portable"])
def test_bad_portable_in_the_environment(text: str) -> None:
    done = run_python("import deferpool", DEFERPOOL_PORTABLE=text)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"ValueError: DEFERPOOL_PORTABLE must be 0 or 1, not {text!r}"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot keep a process on one CPU")
def test_procs_follow_the_cpus_of_the_process(mode: Mode) -> None:
    """Those it may use, not those of the machine; but a kernel without mm_cid numbers Ps by CPUs."""
    if mode.name == "sections" and ctypes.CDLL(None).getauxval(27) < 28:
        pytest.skip("P numbers are CPU numbers here")
    own, used, _ = output_of(
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n" + TELL,
        DEFERPOOL_PORTABLE="1" if mode.name == "portable" else None,
    ).split()
    assert (own, used) == ("1" if mode.name == "sections" else "16", mode.name)


def test_without_the_registration_of_the_libc() -> None:
    """The kernel still offers sections then, but every thread would read P number 0: so it is portable mode."""
    assert (
        output_of(
            """if True:
                import deferpool, threading
                pool = deferpool.RecordPool([16], cap=4, limit=10)
                def work():
                    for _ in range(50):
                        for record in [pool.new(16) for _ in range(20)]:
                            pool.free(record)
                threads = [threading.Thread(target=work) for _ in range(4)]
                for thread in threads: thread.start()
                for thread in threads: thread.join()
                stats = pool.stats()
                print(pool.sched.mode, stats["live"], stats["gets"], stats["cached"] <= stats["bound"])
            """,
            GLIBC_TUNABLES="glibc.pthread.rseq=0",
        )
        == "portable 0 4000 True"
    )


# ---- modes ------------------------------------------------------------------------------------------------


def test_fewer_ps_than_cpus_are_portable(mode: Mode) -> None:
    sched = mode.sched()
    pool = deferpool.RecordPool([16], cap=8, limit=1_000, sched=sched)
    held = pool.new(16)
    for n in (*range(1, sched.cpus), sched.cpus, sched.cpus + 1, 1, 1024, sched.cpus) * 3:
        sched.procresize(n)
        assert sched.mode == (mode.name if n >= sched.cpus else "portable")
        assert sched.stats()["mode"] == sched.mode
        fill(pool, 60)
        assert len(pool.stats()["per_p"]) == sched.procs == n
        assert_conserved(pool)
        assert pool.stats()["live"] == 1
    assert pool.stats()["dropped"] == 0
    pool.free(held)


def test_made_portable_and_grown(mode: Mode) -> None:
    """A Sched that starts with few Ps has sections later, unless it was made portable."""
    sched = deferpool.Sched(1, portable=mode.name == "portable", clear_on_gc=False)
    assert (sched.mode == "portable") == (mode.name == "portable" or sched.cpus > 1)
    pool = deferpool.RecordPool([16], sched=sched)
    fill(pool, 100)
    assert sched.procresize(sched.cpus) == 1
    assert sched.mode == mode.name
    fill(pool, 100)
    assert_conserved(pool)


def test_each_number_is_returned_once(mode: Mode) -> None:
    """procresize returns the number before, also when others resize: no two calls follow on the same one."""
    sched = mode.sched(500)
    pools = [deferpool.RecordPool([16], cap=2, sched=sched) for _ in range(20)]
    seen: list[int] = []

    def resize(first: int) -> None:
        seen.extend([sched.procresize(n) for n in range(first, first + 50)])

    run_threads(*[partial(resize, first) for first in (1, 101, 201, 301)])
    wanted = [*range(1, 51), *range(101, 151), *range(201, 251), *range(301, 351), 500]
    assert sorted([*seen, sched.procs]) == wanted
    assert all(len(pool.stats()["per_p"]) == sched.procs for pool in pools)


def test_pools_made_during_a_resize_are_drained() -> None:
    """A pool that is filled while others are looked at must not keep items on a P that goes."""
    sched = deferpool.Sched(4, portable=True, clear_on_gc=False)
    for _ in range(10):
        sched.procresize(4)
        old = [deferpool.RecordPool([16], cap=4, sched=sched) for _ in range(200)]
        made: list[deferpool.RecordPool] = []

        def make(made: list[deferpool.RecordPool] = made) -> None:
            for _ in range(20):
                made.append(deferpool.RecordPool([16], cap=4, sched=sched))
                fill(made[-1], 4)

        run_threads(make, make, make, lambda: sched.procresize(1))
        for pool in (*old, *made):
            assert_conserved(pool)  # what a P that has gone still holds is in no sum of the others


# ---- collections ------------------------------------------------------------------------------------------


@contextmanager
def no_automatic_collections() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_full_collections_clear(mode: Mode) -> None:
    with no_automatic_collections():
        sched = deferpool.Sched(portable=mode.name == "portable")
        pools = [deferpool.RecordPool([16], sched=sched) for _ in range(2)]
        for pool in pools:
            fill(pool, 200)
        before = [pool.stats() for pool in pools]
        gc.collect()
        for pool, was in zip(pools, before, strict=True):
            stats = pool.stats()
            assert was["central"] > 0
            assert (stats["central"], stats["destroyed"], stats["dropped"]) == (0, was["central"], 0)
            assert stats["per_p"] == was["per_p"]
            assert_conserved(pool)


@pytest.mark.parametrize("generation", [0, 1])
def test_young_collections_do_not(mode: Mode, generation: int) -> None:
    """A free-threaded build has full ones only, and calls its automatic ones generation 0."""
    with no_automatic_collections():
        pool = deferpool.RecordPool([16], sched=deferpool.Sched(portable=mode.name == "portable"))
        fill(pool, 200)
        before = pool.stats()
        gc.collect(generation)
        if FREE_THREADED:
            assert pool.stats()["central"] == 0
        else:
            assert pool.stats() == before


def test_automatic_collections(mode: Mode) -> None:
    """Hundreds of them: on a free-threaded build they are full and clear, on others the young ones do not."""
    garbage: list[Any] = []
    threshold = gc.get_threshold()
    with no_automatic_collections():
        pool = deferpool.RecordPool([16], sched=deferpool.Sched(portable=mode.name == "portable"))
        fill(pool, 200)
        before = pool.stats()["central"]
        full = gc.get_stats()[2]["collections"]
        young = gc.get_stats()[0]["collections"]
    gc.set_threshold(50, *((0, 0) if FREE_THREADED else (10_000, 10_000)))
    try:
        while len(garbage) < 200_000 and pool.stats()["central"] == before:
            garbage.append([[]])
    finally:
        gc.set_threshold(*threshold)
    if FREE_THREADED:
        assert pool.stats()["central"] == 0
    else:
        assert gc.get_stats()[0]["collections"] > young + 100
        assert pool.stats()["central"] == before or gc.get_stats()[2]["collections"] > full


def test_no_clearing_where_it_is_not_wanted(mode: Mode) -> None:
    sched = deferpool.Sched(portable=mode.name == "portable", clear_on_gc=False)
    assert sched.clear_on_gc is False
    pool = deferpool.RecordPool([16], sched=sched)
    fill(pool, 200)
    before = pool.stats()
    gc.collect()
    assert pool.stats() == before


def test_the_runtime_is_cleared_too() -> None:
    with no_automatic_collections():
        pool = deferpool.RecordPool([16])
        fill(pool, 200)
        assert pool.stats()["central"] > 0
        gc.collect()
        assert pool.stats()["central"] == 0


# ---- dropped ----------------------------------------------------------------------------------------------


def test_a_pool_keeps_its_sched(mode: Mode) -> None:
    sched = mode.sched(2)
    watch = weakref.ref(sched)
    pool = deferpool.RecordPool([16], sched=sched)
    del sched
    fill(pool, 100)
    assert pool.sched.stats()["pools"] == [pool.stats()]
    assert pool.sched is watch()
    del pool
    assert watch() is None


def test_a_sched_does_not_keep_its_pools(mode: Mode) -> None:
    allocator = CountingAllocator()
    sched = mode.sched(2)
    pools = [deferpool.RecordPool([16], sched=sched, allocator=allocator.capsule) for _ in range(5)]
    watches = [weakref.ref(pool) for pool in pools]
    for pool in pools:
        fill(pool, 50)
    del pool
    for i in (2, 0, 2, 1, 0):  # from the middle, the start and the end of its list
        del pools[i]
        assert len(sched.stats()["pools"]) == len(pools)
        sched.clearpools()
        sched.procresize(sched.procs + 1)
    assert [watch() for watch in watches] == [None] * 5
    allocator.assert_nothing_left()


def test_scheds_and_pools_leave_no_memory() -> None:
    """A Sched has 64 KiB, and so many pools; 1,000 of them are dropped, and a collection finds nothing."""
    grown, blocks, found = output_of("""if True:
        import gc, resource, sys, deferpool
        def rounds(n):
            for i in range(n):
                sched = deferpool.Sched(1 + i % 5, portable=i % 2 == 0)
                pools = [deferpool.RecordPool([16, 32], cap=4, sched=sched, debug=i % 3 == 0) for _ in range(3)]
                for pool in pools:
                    for record in [pool.new(size) for size in (16, 32, 500) * 20]:
                        pool.free(record)
                sched.procresize(1 + i % 7)
                kept = pools[0].new(16)
        rounds(100)
        gc.collect()
        gc.disable()
        size, blocks = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, sys.getallocatedblocks()
        rounds(1_000)
        blocks = sys.getallocatedblocks() - blocks
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - size, blocks, gc.collect())
    """).split()
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(grown) * unit < 8 * 2**20
    assert int(blocks) < 500
    assert int(found) == 0


def test_scheds_come_and_go_in_threads(mode: Mode) -> None:
    def work() -> None:
        for n in range(1, 40):
            sched = mode.sched(n)
            pool = deferpool.RecordPool([16], cap=4, sched=sched)
            fill(pool, 20)
            sched.procresize(1)
            assert_conserved(pool)
            assert re.fullmatch(r"<deferpool.Sched: 1 Ps, \w+>", repr(sched))

    run_threads(work, work, work, work, lambda: [gc.collect() for _ in range(10)])


@pytest.mark.skipif(CPUS < 2, reason="on one CPU there is nothing to choose")
def test_a_thread_that_is_pinned_may_be_the_first_to_import() -> None:
    code = """if True:
        import os, threading

        def first():
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
            import deferpool
            print(deferpool.stats()["cpus"])

        thread = threading.Thread(target=first)
        thread.start()
        thread.join()
    """
    assert output_of(code) == str(CPUS)
