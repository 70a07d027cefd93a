"""burst: each thread takes 1,000 records and gives 1,000 back, far past the cap, again and again.

It is what recursion and batch work do: deep, then shallow. Nearly every record passes the central pool.
"""
from __future__ import annotations

from functools import partial

import deferpool
from stress import machine
from stress._load import Load
from stress.calls import give, take
from stress.plan import Options, Plan
from stress.scenarios import churn

LENGTH = 1_000
SIZE = 64


def plans(options: Options) -> list[Plan]:
    threads = options.threads or max(4, len(machine.usable_cpus()))
    ops = None if options.ops is None else max(1, options.ops // threads)
    return [
        Plan(
            scenario="burst", options=options, mode=mode, calls=calls, threads=threads, procs=options.procs,
            most_live=threads * LENGTH, ops=options.ops,
            seconds=options.seconds if options.seconds or options.ops else churn.SECONDS,
            body=partial(nogil if calls == "nogil" else through_python, ops or 0),
        )
        for calls in options.calls for mode in options.modes
    ]


def nogil(ops: int, load: Load, pool: deferpool.RecordPool, thread: int) -> None:
    load.run_burst(thread, LENGTH, ops)


def through_python(ops: int, load: Load, pool: deferpool.RecordPool, thread: int) -> None:
    done = 0
    while not load.stopping and (not ops or done < ops):
        for record in [take(load, pool, thread, SIZE) for _ in range(LENGTH)]:
            if record is not None:
                give(load, pool, thread, record, thread)
        done += 2 * LENGTH
