"""threads: a hundred threads start, work a little and end, a hundred times; memory stays flat.

It is what short-lived threads do to every cache that belongs to a thread: it goes with them, or it stays for ever.
"""
from __future__ import annotations

import gc

import deferpool
from stress import machine
from stress._load import Load
from stress.plan import Options, Plan
from stress.runner import Running

THREADS = 100
ROUNDS = 100
WORKING_SET = 16
OPS = 2_000


def plans(options: Options) -> list[Plan]:
    threads = options.threads or THREADS
    return [
        Plan(scenario="threads", options=options, mode=mode, threads=threads, procs=options.procs,
             most_live=threads * WORKING_SET, during=during)
        for mode in options.modes
    ]


def body(load: Load, pool: deferpool.RecordPool, thread: int) -> None:
    load.run_churn(thread, WORKING_SET, OPS)


def during(running: Running) -> None:
    rounds = ROUNDS if running.plan.options.seconds is None else 1 << 62
    done = 0
    while (done < rounds or not running.seen_enough()) and not running.load.stopping:
        for thread in [running.start(index, body) for index in range(running.plan.threads)]:
            thread.join()
        running.threads.clear()
        done += 1
        gc.collect()
        running.resident.append(machine.resident_bytes())
        running.tick(done / rounds)
        if running.out_of_time():
            break
    mib = [f"{running.resident[done * part // 4 - 1] / 2**20:.1f}" for part in (1, 2, 3, 4)] if done >= 4 else []
    running.notes.append(f"{done:,} rounds of {running.plan.threads:,} threads, MiB resident after each quarter: "
                         f"{', '.join(mib)}")
