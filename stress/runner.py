"""Runs one plan: threads, sampler and disturbance, and then the books. Judges nothing."""
from __future__ import annotations

import gc
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import deferpool
from deferpool.testing import Crew, Failure
from stress import machine
from stress._baselines import PerP, PerThread, Unbounded
from stress._designs import Face
from stress._faces import Buffers, LocalLists, Objects, living_cells
from stress._ledger import Ledger
from stress._load import Load
from stress.plan import (
    BUFFERS,
    DEFERPOOL,
    LOCAL_LISTS,
    OBJECTS,
    PER_P,
    PER_THREAD,
    SAMPLES,
    Cleared,
    Plan,
    Result,
)

if TYPE_CHECKING:
    from stress.plan import Pools

SAMPLE_EVERY_US = 150
PATIENCE_S = 60.0
EVIDENCE = 4  # pieces kept of what is seen against one check
OPS_A_STEP = 2_000  # of all threads, where operations are given: so often the scenario disturbs them
BASELINES: dict[str, type[Unbounded]] = {PER_P: PerP, PER_THREAD: PerThread, LOCAL_LISTS: LocalLists}
Tick = Callable[[float, int, int, int | None], None]  # share of the run done, operations, cached, bound


class Running:
    """A run that is under way, for those who disturb it and for the progress bar."""

    def __init__(self, plan: Plan, load: Load, design: Any, pool: Pools | None, ledger: Ledger, tick: Tick) -> None:
        self.plan = plan
        self.load = load
        self.ledger = ledger
        self.evidence = evidence = list[str]()
        self.violated = violated = Counter[str]()
        self.counts: Counter[str] = Counter(forks=0, resizes=0, resizes_refused=0, pools_refused=0, refused_pool=0)
        self.resident: list[int] = []
        self.notes: list[str] = []
        self._pool = pool
        self._design = design
        self._tick = tick
        self._began = time.monotonic()

        def died(failure: Failure) -> None:  # knows nothing of self: a cycle would keep the pool alive
            violated["alive"] += 1
            evidence.append(f"alive: thread {failure.index} died: {failure.error!r}")
            failure.error.with_traceback(None)  # its frames would, too
            load.stop()

        self._crew = Crew(plan.scenario, on_failure=died)

    @property
    def threads(self) -> list[threading.Thread]:
        return self._crew.threads

    @property
    def pool(self) -> Pools:
        assert self._pool is not None, "a baseline has no pool"
        return self._pool

    def start(self, index: int, body: Callable[[Load, Any, int], object]) -> threading.Thread:
        """A new thread with the tracks of number `index`."""

        def settle() -> None:
            if self.plan.cpu is not None:
                machine.pin(self.plan.cpu(index))
            if self.plan.spread:
                self.load.spread(index)

        def work() -> None:
            body(self.load, self._design, index)

        return self._crew.start(index, work, before=settle)

    def saw(self, check: str, text: str) -> None:
        """Evidence against a check: all of it is counted, and the first few pieces are kept."""
        self.violated[check] += 1
        if self.violated[check] <= EVIDENCE:
            self.evidence.append(f"{check}: {text}")

    def procresize(self, n: int) -> bool:
        """Changes the number of Ps and looks at those that went. False: the allocator refused it, on purpose."""
        self.counts["resizes"] += 1
        try:
            self.pool.sched.procresize(n)
        except MemoryError:
            self.counts["resizes_refused"] += 1
            return False
        for p, cls, items in self.load.beyond(n):
            self.saw("resize", f"procresize({n}) has returned, and P {p} holds {items} items of class {cls}")
        return True

    def go(self) -> None:
        """Lets the threads start once all are there: one that runs already makes the next one wait for a CPU."""
        self._began = time.monotonic()
        self._crew.go()

    def tick(self, share: float | None = None) -> None:
        """Shows where the run is. `share`: how much of it is done, where operations and time do not tell."""
        ops, cached = self.load.now()
        if share is None and self.plan.ops:
            share = ops / self.plan.ops
        elif share is None:
            share = (time.monotonic() - self._began) / (self.plan.seconds or 1)
        self._tick(min(1.0, share), ops, cached, None if self._pool is None else self._pool.bound)

    def out_of_time(self) -> bool:
        """Whether the seconds that the command line allows are over, and the sampler has seen enough."""
        seconds = self.plan.options.seconds
        return seconds is not None and time.monotonic() > self._began + seconds and self.seen_enough()

    def seen_enough(self) -> bool:
        """Whether the sampler has had its thousand looks; on a crowded machine it may have to wait for its turns."""
        return self.load.samples >= SAMPLES or time.monotonic() > self._began + PATIENCE_S

    def disturb(self, step: Callable[[], object], times: int, seconds: float | None = None) -> int:
        """Calls step() again and again and returns how often: as long as the command line says, else so many times and
        at most so many seconds. A given number of operations is waited for, and has its share of the steps however long
        they take: two runs with one seed do the same."""
        options = self.plan.options
        if options.ops is not None:
            times = max(4, min(times, options.ops // OPS_A_STEP))
        done = 0
        while not self.load.stopping:
            if options.ops is not None and done >= times:
                break
            long = seconds is not None and options.ops is None and self.elapsed > seconds
            if options.seconds is None and (done >= times or long) and self.seen_enough():
                break
            step()
            done += 1
            by_steps = 0.0 if options.seconds else done / times
            length = options.seconds or (seconds if options.ops is None else None)
            self.tick(max(by_steps, self.elapsed / length if length else 0.0))
            if self.out_of_time():
                break
        if options.ops is not None:
            self.wait()
        return done

    @property
    def busy(self) -> bool:
        """Whether a thread is still at work that nobody has asked to end."""
        return not self.load.stopping and any(thread.is_alive() for thread in self.threads)

    @property
    def elapsed(self) -> float:
        """Seconds since the threads were let go."""
        return time.monotonic() - self._began

    def wait(self) -> None:
        """Until the threads have done their operations, or the time is over and the sampler has seen enough."""
        end = None if self.plan.seconds is None else self._began + self.plan.seconds
        while self.busy:
            self.tick()
            rest = 0.1 if end is None else min(0.1, end - time.monotonic())
            if rest <= 0:
                if self.seen_enough():
                    break
                rest = 0.1
            next((thread for thread in self.threads if thread.is_alive()), self.threads[0]).join(rest)


class Interruption:
    """Ctrl-C while it is entered: asks the run that is on to end, where an exception could lose what it holds.

    The second Ctrl-C is the usual one. Where the signal is ignored, as in a shell's background jobs, it stays so.
    """

    def __init__(self) -> None:
        self.asked = False
        self._load: Load | None = None
        self._before: object = None

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.getsignal(signal.SIGINT)
            if self._before is not signal.SIG_IGN:
                signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._before not in (None, signal.SIG_IGN):
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def watch(self, load: Load | None) -> None:
        self._load = load
        if self.asked and load is not None:
            load.stop()

    def _on_signal(self, number: int, frame: object) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._load is not None:
            self._load.stop()


def run(plan: Plan, tick: Tick, interruption: Interruption | None = None) -> Result:
    """Runs the plan to its end, or until Ctrl-C, and closes the books."""
    interruption = interruption or Interruption()
    options = plan.options
    result = Result(plan)
    ledger = Ledger()
    before = living_cells()
    sched = pool = None
    bound = None
    design: Pools | Unbounded
    if plan.design == DEFERPOOL:
        sched = deferpool.Sched(plan.procs, portable=plan.mode == "portable", clear_on_gc=plan.collects)
        design = pool = _pool(plan, sched, ledger)
        result.mode_at_start, result.procs = sched.mode, sched.procs
        if plan.limit is not None:
            bound = max(plan.most_procs, sched.procs) * len(plan.sizes) * options.cap + plan.limit
    else:
        design = BASELINES[plan.design](ledger)
    result.bound = bound
    load = Load(design, ledger, plan.threads, options.seed, options.checks, bound, options.cap, plan.limit)
    interruption.watch(load)
    running = Running(plan, load, design, pool, ledger, tick)
    ledger.failing(options.fail, options.seed)

    sampler = threading.Thread(target=load.run_sampler, args=(SAMPLE_EVERY_US,), daemon=True)
    if plan.body is not None:
        for index in range(plan.threads):
            running.start(index, plan.body)
    began, cpu_began = time.perf_counter(), time.process_time()
    load.begin()
    sampler.start()
    running.go()
    (plan.during or Running.wait)(running)
    load.stop()
    for thread in running.threads:
        thread.join()
    ledger.failing(0, 0)
    load.settle()
    result.seconds, result.cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    load.finish()
    sampler.join()
    interruption.watch(None)  # it would keep the pool alive
    result.interrupted = interruption.asked

    with _no_collections():
        result.books = {**load.books(), **running.counts}
        if isinstance(pool, Face):
            _add_calls_back(result.books, pool)
            if pool.error is not None:
                running.saw("alive", f"a call of the pool raised {pool.error!r}")
        result.curve = load.curve()
        result.decisions = load.decisions()
        result.evidence = load.first_evidence() + running.evidence
        result.violated = dict(running.violated + Counter(load.violated()))
        result.resident = running.resident
        result.notes = running.notes
        if pool is not None and sched is not None:
            result.stats = pool.stats()
            result.restarts = sched.stats()["restarts"]
            _at_rest(result, load, pool)
            result.left = {"records": ledger.created - ledger.destroyed}
            del running, load, design, pool     # the pool gives back its own memory with its last reference
            if plan.items == OBJECTS:
                gc.collect()                    # its on_drop is a method of what has it
                result.left["objects"] = living_cells() - before
            result.left["memory of the pool"] = ledger.meta_outstanding
    tick(1.0, result.operations, result.curve[-1][1] if result.curve else 0, bound)
    return result


def _pool(plan: Plan, sched: deferpool.Sched, ledger: Ledger) -> Pools:
    if plan.items == OBJECTS:
        return Objects(ledger, cap=plan.options.cap, limit=plan.limit, sched=sched)
    if plan.items == BUFFERS:
        return Buffers(plan.sizes, ledger, cap=plan.options.cap, limit=plan.limit, sched=sched)
    return deferpool.RecordPool(plan.sizes, cap=plan.options.cap, limit=plan.limit, sched=sched,
                                allocator=ledger.capsule(), debug=False)


def _add_calls_back(books: dict[str, int], face: Face) -> None:
    """What finalizers have taken and given back by themselves."""
    done, refused = face.called_back()
    books["takes"] += done
    books["gives"] += done
    books["failed"] += refused
    books["called_back"] = done


@contextmanager
def _no_collections() -> Iterator[None]:
    """What an automatic one cleared between two looks at a pool would be missing in one of them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _at_rest(result: Result, load: Load, pool: Pools) -> None:
    """The threads have ended and the books are closed: what clearing and the removal of Ps leave behind."""
    load.fill_up(3 * pool.cap)
    before = pool.stats()
    if result.plan.collects:
        gc.collect()
    else:
        pool.sched.clearpools()
    after = pool.stats()
    pool.sched.procresize(1)
    result.beyond = load.beyond(1)
    pool.sched.clearpools()
    result.one_p = pool.stats()["cached"]
    load.fill_up(3 * pool.cap)
    pool.clear()
    result.cleared = Cleared((before["central"], after["central"]), (before["per_p"], after["per_p"]),
                             pool.stats()["cached"])
