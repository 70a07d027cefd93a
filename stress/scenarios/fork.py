"""fork: children are forked while threads hammer the pool, and each can use it at once: all that is cached in it too.

It is what multiprocessing and pre-forking servers do, at the worst moment every time.
"""
from __future__ import annotations

from dataclasses import replace

from stress import machine
from stress.children import POSSIBLE, TAKES, fork_one
from stress.plan import Options, Plan
from stress.runner import Running
from stress.scenarios import churn

THREADS = 8
WORKING_SET = 32
FORKS = 200
SECONDS = 60.0 if machine.has_gil() else 12.0  # at most: without the GIL a fork takes a tenth of one and more


def plans(options: Options) -> list[Plan]:
    if not POSSIBLE:
        return []
    return [
        replace(churn.plan("fork", options, options.threads or THREADS, WORKING_SET, mode, "nogil"), seconds=None,
                during=during)
        for mode in options.modes
    ]


def during(running: Running) -> None:
    def step() -> None:
        if not fork_one(running):
            running.load.stop()

    done = running.disturb(step, FORKS, SECONDS)
    running.notes.append(f"{done:,} children took and gave back {TAKES:,} records of each class")
