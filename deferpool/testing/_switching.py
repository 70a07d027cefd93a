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
HERE = os.path.dirname(__file__) + os.sep

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


@contextmanager
def pauses(share: float, seed: str) -> Iterator[None]:
    """This thread sleeps for a moment before about `share` of its bytecodes, in functions that it calls from now on.

    Not in this package's own. A thread that is traced already, by a debugger or for coverage, is left alone.
    """
    if share == 0 or sys.gettrace() is not None:
        yield
        return
    draw = random.Random(seed).random
    sleep = time.sleep
    mean = 2 / share
    left = int(draw() * mean)

    def in_function(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal left
        if event == "opcode":
            left -= 1
            if left < 0:
                left = int(draw() * mean)
                sleep(PAUSE_S)
        return in_function

    def at_call(frame: FrameType, event: str, arg: Any) -> Any:
        if frame.f_code.co_filename.startswith(HERE):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return in_function

    sys.settrace(at_call)
    try:
        yield
    finally:
        sys.settrace(None)
