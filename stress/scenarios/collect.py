"""collect: clearpools(), the pool's own clear() and full collections, all the time, while threads churn.

It is what a program does that is short of memory, and what Go's runtime does by itself: its collector clears the
central pools each time. Whoever takes or gives meanwhile must not notice.
"""
from __future__ import annotations

import gc
import random
from dataclasses import replace

from stress.plan import Options, Plan
from stress.runner import Running
from stress.scenarios import churn

THREADS = 8
WORKING_SET = 64
STEPS = 1 << 62  # as many as there is time for
SECONDS = 2.0


def plans(options: Options) -> list[Plan]:
    return [
        replace(churn.plan("collect", options, options.threads or THREADS, WORKING_SET, mode, calls), seconds=None,
                during=during, collects=True, clears=True)
        for calls in options.calls for mode in options.modes
    ]


def during(running: Running) -> None:
    rng = random.Random(running.plan.options.seed)
    calls = (running.pool.sched.clearpools, running.pool.clear, gc.collect)
    counts = [0, 0, 0]

    def step() -> None:
        which = rng.choices(range(3), (8, 8, 1))[0]
        calls[which]()
        counts[which] += 1

    running.disturb(step, STEPS, SECONDS)
    clearpools, clears, collections = counts
    running.notes.append(f"{clearpools:,} times clearpools(), {clears:,} times clear(), "
                         f"{collections:,} full collections")
