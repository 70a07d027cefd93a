"""oversubscribe: 8 and 64 times more threads than CPUs; the bound does not move.

It is what thread-per-request servers do. With a list per thread the memory kept grows with the threads.
"""
from __future__ import annotations

from dataclasses import replace

from stress import machine
from stress.plan import Options, Plan
from stress.scenarios import churn

WORKING_SET = 8
LIMIT = 64  # small: the bound is to be met, not only kept
TIMES = (8, 64)


def plans(options: Options) -> list[Plan]:
    cpus = len(machine.usable_cpus())
    crowds = [options.threads] if options.threads else [times * cpus for times in TIMES]
    return [
        replace(churn.plan("oversubscribe", options, threads, WORKING_SET, mode, calls), usual_limit=LIMIT,
                label=f"x{max(1, threads // cpus)}")
        for calls in options.calls for threads in crowds for mode in options.modes
    ]
