"""churn: every thread takes and gives back at random, all classes and some past the last, holding a working set.

It is what long-running work does: sizes mix, records live for a while, and there is no order in it.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import partial

import deferpool
from stress import machine
from stress._load import Load
from stress.calls import give, take
from stress.plan import Options, Plan

Body = Callable[[Load, deferpool.RecordPool, int], None]

WORKING_SET = 64
SECONDS = 2.0
WORDS = 14  # of 8 bytes, at most, in a record: past the last class now and then


def plans(options: Options) -> list[Plan]:
    threads = options.threads or max(4, 2 * len(machine.usable_cpus()))
    return [
        plan("churn", options, threads, WORKING_SET, mode, calls) for calls in options.calls for mode in options.modes
    ]


def plan(name: str, options: Options, threads: int, working_set: int, mode: str, calls: str) -> Plan:
    """Also what other scenarios disturb."""
    ops = None if options.ops is None else max(1, options.ops // threads)
    body = nogil if calls == "nogil" else through_python
    return Plan(
        scenario=name, options=options, mode=mode, calls=calls, threads=threads, procs=options.procs,
        most_live=threads * working_set, ops=options.ops,
        seconds=options.seconds if options.seconds or options.ops else SECONDS,
        body=partial(body, working_set, ops or 0),
    )


def nogil(working_set: int, ops: int, load: Load, pool: deferpool.RecordPool, thread: int) -> None:
    load.run_churn(thread, working_set, ops)


def through_python(working_set: int, ops: int, load: Load, pool: deferpool.RecordPool, thread: int) -> None:
    held: list[deferpool.Record | None] = [None] * working_set
    full = [False] * working_set  # a take that fails leaves its place full: the next decision must not depend on it
    done = 0
    while not load.stopping and (not ops or done < ops):
        random = load.draw(thread)
        at = (random >> 8) % working_set
        if not full[at]:
            held[at] = take(load, pool, thread, 8 + 8 * ((random >> 32) % WORDS))
        elif (record := held[at]) is not None:
            give(load, pool, thread, record, thread)
            held[at] = None
        full[at] = not full[at]
        done += 1
    for record in held:
        if record is not None:
            give(load, pool, thread, record, thread)
