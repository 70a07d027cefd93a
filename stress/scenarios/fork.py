"""fork: children are forked while threads hammer the pool, and each can use it at once: all that is cached in it too.

It is what multiprocessing and pre-forking servers do, at the worst moment every time.
"""
from __future__ import annotations

import os
import select
import signal
import warnings
from dataclasses import replace

from stress.plan import Options, Plan
from stress.runner import Running
from stress.scenarios import churn

THREADS = 8
WORKING_SET = 32
FORKS = 200
CHILD_TAKES = 1_000
PATIENCE_S = 20.0


def plans(options: Options) -> list[Plan]:
    if not hasattr(os, "pidfd_open"):  # Linux's way to wait for a child with a time-out
        return []
    threads = options.threads or THREADS
    return [
        replace(churn.plan("fork", replace(options, ops=None), threads, WORKING_SET, mode, "nogil"),
                seconds=None, during=during)
        for mode in options.modes
    ]


def during(running: Running) -> None:
    forks = FORKS if running.plan.options.seconds is None else 1 << 62
    done = 0
    while (done < forks or not running.seen_enough()) and not running.load.stopping:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what is tested here
            pid = os.fork()
        if pid == 0:
            _child(running)
        done += 1
        if (how := _end_of(pid)) is not None:
            running.broken.append(f"fork: child {done} of {forks} {how}")
            break
        running.tick(done / forks)
        if running.out_of_time():
            break
    running.notes.append(f"{done:,} children took and gave back {CHILD_TAKES:,} records each")


def _child(running: Running) -> None:
    status = 3
    try:
        if running.load.exercise(CHILD_TAKES):
            status = 0
        else:
            os.write(2, f"{running.load.first_evidence()[-1:]} {running.pool.stats()}\n".encode())
    finally:
        os._exit(status)


def _end_of(pid: int) -> str | None:
    """None when the child did its work; else what became of it."""
    watched = os.pidfd_open(pid)
    try:
        ended, _, _ = select.select([watched], [], [], PATIENCE_S)
        if not ended:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    finally:
        os.close(watched)
    if not ended:
        return f"hung for {PATIENCE_S:.0f} s"
    code = os.waitstatus_to_exitcode(status)
    return None if code == 0 else f"ended with {code}"
