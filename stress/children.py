"""A child forked in the middle of a run: it uses the pool at once, says what it found, and the parent sees its end."""
from __future__ import annotations

import os
import select
import signal
import warnings

from deferpool.testing import assert_conserved
from stress.runner import Running

TAKES = 200  # of each class
PATIENCE_S = 20.0

POSSIBLE = hasattr(os, "pidfd_open")  # Linux's way to wait for a child with a time-out


def fork_one(running: Running) -> bool:
    """False when the child did not do its work; why is evidence against `fork` then."""
    told, tell = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what is tested here
        pid = os.fork()
    if pid == 0:
        _child(running, tell)
    os.close(tell)
    running.counts["forks"] += 1
    how = _end_of(pid)
    with os.fdopen(told, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    if how is None:
        return True
    running.saw("fork", f"child {running.counts['forks']:,} {how}{': ' if said else ''}{said}")
    return False


def _child(running: Running, tell: int) -> None:
    """Takes and gives back what is at hand; then, with one P left, all that was cached on any of them; and counts."""
    status, said = 3, ""
    load, pool = running.load, running.pool
    try:
        running.ledger.failing(0, 0)
        before = load.violated()
        if load.exercise(TAKES) and running.procresize(1) and load.exercise(0):
            assert_conserved(pool)
            status = 0
        else:
            said = f"{''.join(load.first_evidence()[-1:]) if load.violated() != before else ''} {pool.stats()}"
    except BaseException as error:
        said = repr(error)
    finally:
        os.write(tell, said[:4000].encode())
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
