"""starve: memory runs out at every site where the pool asks for it, while threads churn and burst.

It is what a container does at its memory limit: a call fails here, another one there, and the program goes on. First
one call at a time, site by site, counted from a moment when the next call there is sure to come; then one in 20 at
random everywhere.
"""
from __future__ import annotations

import random
import time

import deferpool
from stress._ledger import Ledger
from stress._load import Load
from stress.plan import Options, Plan, Site
from stress.runner import Running
from stress.scenarios import burst, churn

THREADS = 8
WORKING_SET = 32
SITES: tuple[Site, ...] = ("record", "batch")  # of the threads; the other two are asked by the hand that disturbs
CALLS = 8  # at each site: the first call is refused, then the second one, ...
MOST_PROCS = 64
ONE_IN = 20
STEPS = 400
SECONDS = 2.0
PATIENCE_S = 0.2  # for the threads to come to the call that is to fail


def plans(options: Options) -> list[Plan]:
    threads = options.threads or THREADS
    ops = None if options.ops is None else max(1, options.ops // threads)
    return [
        Plan(scenario="starve", options=options, mode=mode, threads=threads, procs=options.procs,
             most_procs=MOST_PROCS, most_live=threads * burst.LENGTH, ops=options.ops,
             body=body_for(ops or 0), during=during, clears=True, refuses=True)
        for mode in options.modes
    ]


def body_for(ops: int) -> churn.Body:
    def body(load: Load, pool: deferpool.RecordPool, thread: int) -> None:
        if thread % 2:
            load.run_burst(thread, burst.LENGTH, ops)
        else:
            load.run_churn(thread, WORKING_SET, ops)
    return body


def during(running: Running) -> None:
    seed = running.plan.options.seed
    rng = random.Random(seed)
    for nth in range(1, CALLS + 1):  # whatever the time: a run without them would show nothing
        if running.load.stopping:
            return
        for site in SITES:
            _refuse(running, site, nth)
            running.tick()
        _refuse_caches(running, nth)
        _refuse_a_new_pool(running)
    running.ledger.failing(running.plan.options.fail or ONE_IN, seed)

    def step() -> None:
        running.procresize(rng.randint(1, MOST_PROCS))
        rng.choice((running.pool.clear, running.pool.sched.clearpools, lambda: _refuse_a_new_pool(running)))()
        time.sleep(0.001)

    running.disturb(step, STEPS, running.elapsed + SECONDS)
    running.notes.append("refused: " + ", ".join(
        f"{n:,} for {what}" for what, n in (
            ("records", running.ledger.refused_at("record")), ("batches", running.ledger.refused_at("batch")),
            ("caches of Ps", running.ledger.refused_at("caches")), ("new pools", running.counts["refused_pool"]))))


def _refuse(running: Running, site: Site, nth: int) -> None:
    """One call of the threads', the nth after all that was cached is dropped: they must ask for all of it anew."""
    before = running.ledger.refused_at(site)
    running.ledger.refuse(site, nth)
    running.pool.clear()
    end = time.monotonic() + PATIENCE_S
    while running.ledger.refused_at(site) == before and time.monotonic() < end and running.busy:
        time.sleep(0.0005)


def _refuse_caches(running: Running, nth: int) -> None:
    """The caches of one P of several that a procresize adds: the pool keeps those that it got before."""
    procs = running.pool.sched.procs
    running.ledger.refuse("caches", nth)
    running.procresize(min(procs + CALLS, MOST_PROCS))
    running.procresize(procs)


def _refuse_a_new_pool(running: Running) -> None:
    """Every call in turn that the making of another pool needs; all it had got by then goes back."""
    sched = running.pool.sched
    for nth in range(1, 3 + sched.procs):
        ledger = Ledger()
        ledger.refuse("caches", nth)
        pool = None
        try:
            pool = deferpool.RecordPool((32,), sched=sched, allocator=ledger.capsule(), debug=False)
        except MemoryError:
            running.counts["pools_refused"] += 1
        running.counts["refused_pool"] += ledger.refused
        ledger.failing(0, 0)  # the pool that is there may ask for a batch yet
        if pool is not None:
            pool.free(pool.new(32))
            del pool
        if ledger.created != ledger.destroyed or ledger.meta_outstanding:
            running.saw("failure", f"a new pool that was refused its memory at call {nth} kept "
                                   f"{ledger.meta_outstanding + ledger.created - ledger.destroyed} allocations")
