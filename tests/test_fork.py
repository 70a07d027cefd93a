"""fork: a child process can use every pool at once, whatever other threads were doing at the fork."""
import faulthandler
import os
import select
import signal
import subprocess
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from helpers import CountingAllocator, Mode, assert_conserved, burst, fill, in_thread, local, run_threads

import deferpool

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs fork, and Linux's way to watch a child")

FORKS = 40
PATIENCE = 20  # seconds until a child counts as hanging; one that works needs milliseconds


@pytest.fixture(autouse=True)
def _watchdog() -> Iterator[None]:
    """A fork that hangs in its hooks hangs this process with the GIL held: only a thread of C ends that."""
    faulthandler.dump_traceback_later(6 * PATIENCE, exit=True, file=2)
    yield
    faulthandler.cancel_dump_traceback_later()


def fork() -> int:
    with warnings.catch_warnings():  # 3.12 and later warn of a fork while threads run; here that is the point
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def in_child(work: Callable[[], object]) -> None:
    """Forks; the child does the work, and nothing else of this process, and must end well."""
    child = fork()
    if child == 0:
        status = 1
        signal.alarm(PATIENCE)
        try:
            work()
            status = 0
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(status)
    watched = os.pidfd_open(child)
    try:
        ended, _, _ = select.select([watched], [], [], PATIENCE + 5)
        if not ended:  # not even its alarm was set: it hangs in the hooks
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    finally:
        os.close(watched)
    ending = os.waitstatus_to_exitcode(status)
    assert ending not in (-signal.SIGALRM, -signal.SIGKILL), "the child hung"
    assert ending == 0


def use(pool: deferpool.RecordPool) -> None:
    """1,000 records, pairs and bursts; each is zeroed and one's own, and the pool still keeps its bound."""
    for _ in range(300):
        pool.free(pool.new(16))
    for _ in range(10):
        records = [pool.new(16) for _ in range(70)]
        assert len({record.address for record in records}) == 70
        for record in records:
            with memoryview(record) as view:
                assert view == bytes(16)
                view[:] = b"\xff" * 16
        for record in records:
            pool.free(record)
    stats = pool.stats()
    assert all(counts[0] <= pool.cap for counts in stats["per_p"])
    assert 0 < stats["cached"] <= stats["bound"]


def use_all_ways(pool: deferpool.RecordPool) -> None:
    use(pool)
    for n in (1, pool.sched.procs + 3, pool.sched.cpus):
        pool.sched.procresize(n)
        use(pool)
    pool.sched.clearpools()
    assert pool.stats()["central"] == 0
    pool.clear()
    assert pool.stats()["cached"] == 0
    use(deferpool.RecordPool([16], cap=4, sched=pool.sched))
    use(deferpool.RecordPool([16], cap=4, sched=deferpool.Sched(3)))


def fork_amid(hammers: list[Callable[[], object]], forked: Callable[[], None], forks: int = FORKS) -> None:
    """Forks again and again while threads repeat what they do."""
    left = [forks]

    def repeat(hammer: Callable[[], object]) -> None:
        while left[0]:
            hammer()

    def fork_once() -> None:
        if left[0]:
            try:
                forked()
                left[0] -= 1
            except BaseException:
                left[0] = 0
                raise

    run_threads(*[partial(repeat, hammer) for hammer in hammers], watch=fork_once)
    assert left == [0]


def hammers_of(pool: deferpool.RecordPool) -> list[Callable[[], object]]:
    """Eight: five take and give, and three hold the locks that a fork wants, without the GIL."""

    def resize() -> None:
        for n in (1, 5, pool.sched.cpus, 2):
            pool.sched.procresize(n)

    def make_and_drop() -> None:
        fill(deferpool.RecordPool([16, 32], cap=4, sched=pool.sched), 20)
        fill(deferpool.RecordPool([16, 32], cap=4, sched=deferpool.Sched(2)), 20)

    return [*[burst(pool, rounds=3, depth=40)] * 5, pool.clear, resize, make_and_drop]


def test_while_threads_work(mode: Mode) -> None:
    pool = deferpool.RecordPool([16], cap=4, limit=100, sched=mode.sched(2))
    fork_amid(hammers_of(pool), partial(in_child, partial(use, pool)))
    assert_conserved(pool)
    assert pool.stats()["live"] == 0
    use_all_ways(pool)


def test_child_has_everything(mode: Mode) -> None:
    """Not only records: resizing, clearing, new pools and Scheds, and the runtime's own pools."""
    pool = deferpool.RecordPool([16], cap=4, limit=100, sched=mode.sched(2))
    common = deferpool.RecordPool([16])

    def work() -> None:
        use_all_ways(pool)
        use(common)
        run_threads(*[burst(pool, rounds=5, depth=30)] * 3)
        assert pool.stats()["cached"] <= pool.bound

    fork_amid([*hammers_of(pool), burst(common, rounds=3, depth=40)], partial(in_child, work), forks=10)
    assert_conserved(pool)


class Holding:
    """An `on_drop` that is held at the n-th object, until a child has been forked then."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.dropped = 0
        self.held, self.end = threading.Event(), threading.Event()

    def __call__(self, _item: object) -> None:
        self.dropped += 1
        if self.dropped == self.at:
            self.held.set()
            assert self.end.wait(PATIENCE)

    def fork(self, check: Callable[[], object]) -> None:
        """Once, however often it is called."""
        assert self.held.wait(PATIENCE)
        try:
            if not self.end.is_set():
                in_child(check)
        finally:
            self.end.set()


def test_what_another_thread_had_in_hand_is_live_in_the_child(mode: Mode) -> None:
    """It is held where it drops an object, which its caller has given back already."""
    drop = Holding(1)
    pool = deferpool.Pool(object, on_drop=drop, sched=mode.sched(1))
    item = pool.acquire()

    def check() -> None:
        assert_conserved(pool)
        assert pool.stats()["live"] == 1

    run_threads(partial(pool.discard, item), watch=partial(drop.fork, check))
    assert_conserved(pool)
    assert pool.stats()["live"] == 0


def test_what_another_thread_was_dropping_is_not_taken_back_in_the_child(mode: Mode) -> None:
    """In the middle of a spill past the limit some count as taken, and are dropped already."""
    drop = Holding(3)
    pool = deferpool.Pool(object, on_drop=drop, cap=8, limit=0, sched=mode.sched(1))
    items = [pool.acquire() for _ in range(12)]

    def release() -> None:
        for item in items:
            pool.release(item)

    def check() -> None:
        assert_conserved(pool)
        assert pool.stats()["gets"] >= 12

    run_threads(release, watch=partial(drop.fork, check))
    assert_conserved(pool)


def test_several_scheds(mode: Mode) -> None:
    """All of them are taken and given back, whatever their mode."""
    scheds = [deferpool.Sched(1, portable=True), mode.sched(2), deferpool.Sched(), mode.sched(5)]
    pools = [deferpool.RecordPool([16], cap=4, limit=60, sched=sched) for sched in scheds for _ in range(2)]
    hammers: list[Callable[[], object]] = [burst(pool, rounds=3, depth=30) for pool in pools]

    def work() -> None:
        for pool in pools:
            use(pool)
        for sched in scheds:
            sched.procresize(sched.procs + 1)
            sched.clearpools()

    fork_amid(hammers + [sched.clearpools for sched in scheds], partial(in_child, work), forks=20)
    for pool in pools:
        assert_conserved(pool)
        assert pool.stats()["live"] == 0


def test_child_can_fork_again(mode: Mode) -> None:
    pool = deferpool.RecordPool([16], cap=4, limit=100, sched=mode.sched(2))

    def generation(n: int) -> None:
        use(pool)
        if n:
            in_child(partial(generation, n - 1))
        use_all_ways(pool)

    fork_amid(hammers_of(pool), partial(in_child, partial(generation, 3)), forks=5)
    assert_conserved(pool)


def test_both_sides_go_on_as_before(mode: Mode) -> None:
    """The child finds what was cached, each side has its own from then on, and local caches are in use again."""
    sched = mode.sched(2)
    pool = deferpool.RecordPool([16], cap=8, limit=100, sched=sched)
    fill(pool, 50)
    live = pool.new(16)
    before = pool.stats()
    seen = (sched.procs, sched.mode)

    def local_caches_work() -> None:
        fresh = deferpool.RecordPool([16], cap=8, sched=sched)
        fill(fresh, 4)
        assert (fresh.stats()["central"], local(fresh.stats())) == (0, 4)

    def work() -> None:
        assert (sched.procs, sched.mode) == seen
        assert pool.stats() == before
        local_caches_work()
        pool.free(live)
        pool.clear()
        assert (pool.stats()["cached"], pool.stats()["live"]) == (0, 0)

    for _ in range(3):
        in_child(work)
        assert pool.stats() == before
        local_caches_work()
    pool.free(live)
    assert_conserved(pool)


def test_removed_ps_stay_removed(mode: Mode) -> None:
    sched = mode.sched(6)
    pool = deferpool.RecordPool([16], cap=8, sched=sched)
    run_threads(*[partial(fill, pool, 8)] * 6)
    n = sched.cpus if mode.name == "sections" else 2
    sched.procresize(n)

    def work() -> None:
        run_threads(*[partial(fill, pool, 40)] * 6)
        assert len(pool.stats()["per_p"]) == n
        assert_conserved(pool)  # what a removed P holds is in no sum of the others
        sched.procresize(6)
        run_threads(*[partial(fill, pool, 40)] * 6)
        assert_conserved(pool)

    in_child(work)
    work()


def test_quarantine(mode: Mode) -> None:
    """In debug mode dropped records pass one more lock; a child must not find it taken for ever."""
    pool = deferpool.RecordPool([16], cap=4, limit=20, debug=True, sched=mode.sched(2))

    def drop() -> None:
        fill(pool, 40)
        pool.clear()

    fork_amid([drop] * 8, partial(in_child, partial(use, pool)), forks=3 * FORKS)
    assert_conserved(pool)


def test_other_programs_are_started(mode: Mode) -> None:
    """subprocess may use vfork, which shares this process's memory for a while and calls no hooks."""
    pool = deferpool.RecordPool([16], cap=4, limit=100, sched=mode.sched(2))

    def start() -> None:
        subprocess.run(["/bin/sh", "-c", ":"], check=True)

    fork_amid(hammers_of(pool), start, forks=10)
    assert_conserved(pool)
    assert pool.stats()["live"] == 0


def test_in_the_middle_of_a_resize() -> None:
    """The child has Ps that were removed and not yet drained, and nobody goes on with it: the larger bound holds."""
    sched = deferpool.Sched(8, portable=True, clear_on_gc=False)
    allocator = CountingAllocator(meta=False)
    pool = deferpool.RecordPool([16], cap=8, limit=0, sched=sched, allocator=allocator.capsule)
    for _ in range(8):
        in_thread(lambda: fill(pool, 8))
    assert pool.stats()["cached"] == 64
    results: list[object] = []

    def check() -> None:
        stats = pool.stats()
        assert 8 < stats["cached"] <= stats["bound"] == pool.bound
        sched.procresize(1)
        assert pool.stats()["cached"] <= pool.bound == 8

    def fork_at_the_first_drop(size: int) -> None:
        allocator.items.on_release = None
        try:
            in_child(check)
            results.append("done")
        except AssertionError as error:  # it could not pass through C
            results.append(error)

    allocator.items.on_release = fork_at_the_first_drop
    sched.procresize(1)
    assert results == ["done"]
    assert pool.stats()["cached"] <= pool.bound == 8
    pool.clear()
