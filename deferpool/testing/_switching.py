"""Makes threads change places more often than the interpreter would.

A thread keeps the GIL for 5 ms unless it blocks: far longer than any race is open. Two things help. A tiny switch
interval makes threads change at each place where the interpreter looks whether it should; but since 3.10 those places
are few (calls and jumps backwards), and a check-then-act between two of them is never interrupted. So some threads are
traced, and sleep for a moment before bytecodes chosen at random: whatever the language does not promise to be one step
can then be seen in two.
"""
from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

INTERVAL_S = 1e-6
PAUSE_S = 1e-6  # the system makes some 50 us of it: time for others to do a lot
BY_LINES = sys.version_info[:2] == (3, 12)  # crashes when several threads trace bytecodes, not when they trace lines
A_LINE = 8  # bytecodes, roughly
HERE = os.path.dirname(__file__) + os.sep
LEFT_ALONE = (HERE, threading.__file__)

_lock = threading.Lock()
_users = 0
_before = 0.0


def has_gil() -> bool:
    """Whether threads take turns now. A free-threaded build can have the GIL switched on."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


@contextmanager
def tiny_switch_interval() -> Iterator[None]:
    """While it is entered, by any thread: the last one to leave restores what the first one found."""
    global _users, _before
    with _lock:
        if _users == 0:
            _before = sys.getswitchinterval()
            sys.setswitchinterval(INTERVAL_S)
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                sys.setswitchinterval(_before)


def begin_pauses(share: float, seed: str) -> bool:
    """Until `end_pauses`, which is wanted if this returns true, this thread sleeps for a moment before about `share` of
    its bytecodes, in functions that it calls from now on (from 3.13 on, not in the first call of each).

    On Python 3.12, where that crashes the interpreter, before as many of its lines. Not in this package's own functions
    or those of threading, which are right: `Checked` uses them. A thread that is traced already, by a debugger or for
    coverage, is left alone.
    """
    if share == 0 or sys.gettrace() is not None:
        return False
    draw = random.Random(seed).random
    sleep = time.sleep
    event_wanted = "line" if BY_LINES else "opcode"
    mean = 2 / (min(1.0, share * A_LINE) if BY_LINES else share)
    left = int(draw() * mean)

    def in_function(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal left
        if event == event_wanted:
            left -= 1
            if left < 0:
                left = int(draw() * mean)
                sleep(PAUSE_S)
        return in_function

    def at_call(frame: FrameType, event: str, arg: Any) -> Any:
        if frame.f_code.co_filename.startswith(LEFT_ALONE):
            return None
        frame.f_trace_opcodes = not BY_LINES
        frame.f_trace_lines = BY_LINES
        return in_function

    sys.settrace(at_call)
    return True


def end_pauses() -> None:
    sys.settrace(None)
