"""Each task in a process of its own, forked from this one: what it leaves locked or broken stays there."""
from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TypeVar

T = TypeVar("T")


class Died(Exception):
    """A task's process ended without a result."""


def run_apart(tasks: Sequence[Callable[[], T]], jobs: int) -> Iterator[tuple[int, T | Died]]:
    """(number of the task, what it returned) as each is done, `jobs` at a time. Whoever stops early ends the others."""
    context = multiprocessing.get_context("fork")
    left = iter(enumerate(tasks))
    running: dict[Connection, tuple[int, BaseProcess]] = {}
    try:
        while True:
            while len(running) < jobs and (following := next(left, None)) is not None:
                number, task = following
                receiver, sender = context.Pipe(duplex=False)
                process: BaseProcess = context.Process(target=_run, args=(task, sender), daemon=True)
                process.start()
                sender.close()
                running[receiver] = number, process
            if not running:
                return
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                number, process = running.pop(ready)
                try:
                    result: T | Died = ready.recv()
                except EOFError:
                    process.join()
                    result = Died(f"its process ended with {process.exitcode}")
                ready.close()
                process.join()
                yield number, result
    finally:
        for _, process in running.values():
            process.kill()


def _run(task: Callable[[], T], sender: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who started it
    sender.send(task())
    sender.close()
    os._exit(0)  # no destructor runs: it could wait for ever
