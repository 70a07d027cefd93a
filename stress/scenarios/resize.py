"""resize: the number of Ps goes up and down between 1 and 16 while threads churn.

It is what a container does whose share of CPUs changes. On most of these steps the mode changes too: fewer Ps than
CPUs is portable mode, more are sections again.
"""
from __future__ import annotations

import random
from dataclasses import replace

from stress import machine
from stress.plan import Options, Plan
from stress.runner import Running
from stress.scenarios import churn

THREADS = 8
WORKING_SET = 32
STEPS = 1_000
MOST = 16


def plans(options: Options) -> list[Plan]:
    threads = options.threads or THREADS
    return [
        replace(churn.plan("resize", options, threads, WORKING_SET, mode, calls), seconds=None, during=during,
                most_procs=max(MOST, len(machine.usable_cpus())))
        for calls in options.calls for mode in options.modes
    ]


def during(running: Running) -> None:
    sched = running.pool.sched
    rng = random.Random(running.plan.options.seed)
    few = max(1, len(machine.usable_cpus()) - 1)  # so few are portable mode
    crossings = 0

    def step() -> None:
        nonlocal crossings
        mode = sched.mode
        running.procresize(rng.randint(1, rng.choice((few, running.plan.most_procs))))
        crossings += sched.mode != mode

    done = running.disturb(step, STEPS)
    running.notes.append(f"{done:,} changes of the number of Ps, {crossings:,} of the mode, "
                         f"{running.counts['resizes_refused']:,} refused")
