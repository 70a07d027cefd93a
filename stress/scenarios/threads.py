"""threads: a hundred threads start, work a little and end with records alive, a hundred times; memory stays flat.

It is what short-lived threads do to every cache that belongs to a thread: it goes with them, or it stays for ever. And
what they leave behind, in queues and in shared tables, other threads give back.
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


def during(running: Running) -> None:
    threads, ops = running.plan.threads, running.plan.options.ops
    each = OPS if ops is None else max(1, min(OPS, ops // (4 * threads)))
    left = 0

    def body(load: Load, pool: deferpool.RecordPool, thread: int) -> None:
        load.run_churn(thread, WORKING_SET, each, leaves=True)

    def step() -> None:
        nonlocal left
        for thread in [running.start(index, body) for index in range(threads)]:
            thread.join()
        running.threads.clear()
        books = running.load.books()
        left += books["takes"] - books["gives"]
        gc.collect()
        running.resident.append(machine.resident_bytes())

    done = running.disturb(step, ROUNDS if ops is None else -(-ops // (threads * each)))
    mib = [f"{running.resident[done * part // 4 - 1] / 2**20:.1f}" for part in (1, 2, 3, 4)] if done >= 4 else []
    running.notes.append(f"{done:,} rounds of {threads:,} threads, {left:,} records given back by other threads than "
                         f"took them; MiB resident after each quarter: {', '.join(mib)}")
