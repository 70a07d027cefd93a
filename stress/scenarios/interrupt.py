"""interrupt: the four primitives, again and again, while timers and a busy hand on the CPU masks break them off.

It is what preemption does on a crowded machine, made dense: each thread gets a signal every 50 microseconds, and
somebody pushes the threads from CPU to CPU. A section that is broken off must start over as if nothing had been.
"""
from __future__ import annotations

import threading
from functools import partial

import deferpool
from stress import machine
from stress._interrupts import Timer, push_about, signals
from stress._load import Load
from stress.plan import Options, Plan
from stress.runner import Running

TIMER_US = 50
PUSH_US = 200
EACH = 10_000_000  # operations of each primitive
PORTION = 20_011  # of each primitive in turn, by each thread, again and again where seconds say how long


def plans(options: Options) -> list[Plan]:
    threads = options.threads or 2 * len(machine.usable_cpus())
    each = EACH if options.ops is None else max(1, options.ops // 4)
    return [plan(options, threads, each, mode) for mode in options.modes]


def plan(options: Options, threads: int, each: int, mode: str) -> Plan:
    done: list[tuple[int, int, int, int]] = []  # by each thread: pops, pushes, popns, pushns
    return Plan(
        scenario="interrupt", options=options, mode=mode, threads=threads, procs=options.procs, sizes=(64,),
        most_live=4 * threads * options.cap, ops=None if options.seconds else 2 * each * (1 + options.cap // 2),
        seconds=options.seconds, body=partial(body, PORTION if options.seconds else -(-each // threads), done),
        during=partial(during, done), spread=False,
    )


def body(
    each: int, done: list[tuple[int, int, int, int]], load: Load, pool: deferpool.RecordPool, thread: int
) -> None:
    timer = Timer(TIMER_US)
    try:
        done.append(load.run_primitives(thread, each, each))
        while each == PORTION and not load.stopping:  # seconds say how long
            done.append(load.run_primitives(thread, each, each))
    finally:
        timer.stop()


def during(done: list[tuple[int, int, int, int]], running: Running) -> None:
    signals_before = signals()
    tids = [thread.native_id for thread in running.threads if thread.native_id is not None]
    over = threading.Event()

    def push() -> None:
        pushed = push_about(tids, machine.usable_cpus(), PUSH_US, running.plan.options.seed, over.is_set)
        running.notes.append(f"threads were pushed to another CPU {pushed:,} times")

    pusher = threading.Thread(target=push, daemon=True)
    pusher.start()
    try:
        running.wait()
    finally:
        over.set()
        pusher.join()
    running.load.stop()
    for thread in running.threads:
        thread.join()
    running.notes.append(f"{signals() - signals_before:,} signals were delivered")
    totals = [sum(each) for each in zip(*done, strict=True)]
    counted = (f"{total:,} {name}" for name, total in zip(("pop", "push", "popn", "pushn"), totals, strict=False))
    running.notes.append(", ".join(counted))
