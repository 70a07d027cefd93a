"""Threads that start together, and what went wrong in them. Owns gate, threads and failures; judges nothing."""
from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Failure:
    """What ended a thread before its time."""

    index: int  # the number its starter gave it
    error: BaseException


class Crew:
    """Threads that wait at a gate, do their work, and leave their exceptions here.

    `failures` grows as threads fail, the first one first; `on_failure` is called in the thread that failed, right
    after. `threads` are all that were started; the caller may forget those that have ended. They are daemons: one that
    hangs does not keep the process from ending. A crew is for the one thread that makes it; any may call it off.
    """

    def __init__(self, name: str = "crew", *, on_failure: Callable[[Failure], object] | None = None) -> None:
        self.name = name
        self.threads: list[threading.Thread] = []
        self.failures: list[Failure] = []
        self._on_failure = on_failure
        self._gate = threading.Event()
        self._at_gate = threading.Semaphore(0)
        self._started = 0  # and how many are to reach it
        self._off = False

    def start(
        self, index: int, body: Callable[[], object], *, before: Callable[[], object] | None = None, name: str = ""
    ) -> threading.Thread:
        """A new thread that calls `before`, waits for the gate (no longer once it is open), and calls `body`.

        `name`: the thread's; else the crew's with the index. Raises RuntimeError if the system gives no more threads.
        """

        def work() -> None:
            try:
                try:
                    if before is not None:
                        before()
                finally:
                    self._at_gate.release()
                self._gate.wait()
                if not self._off:
                    body()
            except BaseException as error:
                self._failed(Failure(index, error))

        thread = threading.Thread(target=work, name=name or f"{self.name}-{index}", daemon=True)
        thread.start()
        self._started += 1
        self.threads.append(thread)
        return thread

    def _failed(self, failure: Failure) -> None:
        self.failures.append(failure)
        if self._on_failure is not None:
            self._on_failure(failure)

    def go(self) -> None:
        """Opens the gate once every thread has reached it (or failed before). Once it is open, it stays so."""
        if not self._gate.is_set():
            for _ in range(self._started):
                self._at_gate.acquire()
            self._gate.set()

    def call_off(self) -> None:
        """Threads that still wait at the gate, or reach it later, end without doing their work."""
        self._off = True
        self._gate.set()

    def running(self) -> list[threading.Thread]:
        """The threads that have not ended."""
        return [thread for thread in self.threads if thread.is_alive()]

    def join(self, timeout: float | None = None) -> bool:
        """Waits until all threads have ended, at most `timeout` seconds, and says whether they have."""
        end = None if timeout is None else time.monotonic() + timeout
        for thread in self.threads:
            thread.join(None if end is None else min(max(0.0, end - time.monotonic()), threading.TIMEOUT_MAX))
        return not self.running()


def stacks(threads: Iterable[threading.Thread]) -> str:
    """Where each of these threads is now, as a traceback tells it; for messages about those that hang."""
    frames = sys._current_frames()
    told = []
    for thread in threads:
        frame = frames.get(thread.ident or 0)
        lines = traceback.format_stack(frame) if frame is not None else ["  (it has ended)\n"]
        told.append(f"thread {thread.name!r}, most recent call last:\n{''.join(lines)}")
    return "\n".join(told)
