"""resize: the number of Ps goes up and down between 1 and 16 while threads churn.

It is what a container does whose share of CPUs changes. On most of these steps the mode changes too: fewer Ps than
CPUs is portable mode, more are sections again.
"""
from __future__ import annotations

import random
from dataclasses import replace

from stress import machine
from stress.plan import SAMPLES, Options, Plan
from stress.runner import Running
from stress.scenarios import churn

THREADS = 8
WORKING_SET = 32
STEPS = 1_000
MOST = 16


def plans(options: Options) -> list[Plan]:
    threads = options.threads or THREADS
    most = max(MOST, len(machine.usable_cpus()))
    return [
        replace(churn.plan("resize", replace(options, ops=None), threads, WORKING_SET, mode, calls),
                seconds=None, during=during, most_procs=most)
        for calls in options.calls for mode in options.modes
    ]


def during(running: Running) -> None:
    sched = running.pool.sched
    rng = random.Random(running.plan.options.seed)
    steps = STEPS if running.plan.options.seconds is None else 1 << 62
    few = max(1, len(machine.usable_cpus()) - 1)  # so few are portable mode
    done = refused = crossings = 0
    mode = sched.mode
    while (done < steps or not running.seen_enough()) and not running.load.stopping:
        n = rng.randint(1, rng.choice((few, running.plan.most_procs)))
        try:
            sched.procresize(n)
        except MemoryError:  # where the allocator fails on purpose
            refused += 1
        crossings += sched.mode != mode
        mode = sched.mode
        done += 1
        if done % 16 == 0:
            running.tick(min(done / steps, running.load.samples / SAMPLES))
        if running.out_of_time():
            break
    running.notes.append(f"{done:,} changes of the number of Ps, {crossings:,} of the mode, {refused:,} refused")
