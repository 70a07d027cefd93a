"""One cell, all who run in it, in turns: what disturbs the machine for a while disturbs all of them alike."""
from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from stress import machine
from stress.bench.cells import Ours
from stress.bench.peers import ROOT, Peer


@dataclass
class Figures:
    """What one of them gave in one cell. ns: CPU time a pair, by round. peak: bytes at most, above an empty run."""

    name: str
    ns: list[float] = field(default_factory=list)
    peak: int | None = None
    mode: str | None = None
    bound: int | None = None
    cached: int = 0  # at most, of what the sampler saw
    past: int = 0  # how often that was more than the bound
    outstanding: int | None = None  # at rest, by the allocator's own count
    error: str = ""


class Runner:
    """A process that answers each number of pairs with the figures of one round."""

    def __init__(self, name: str, command: Sequence[str], **environment: str) -> None:
        self.figures = Figures(name)
        self.process = subprocess.Popen(command, cwd=ROOT, env={**machine.plain_environment(), **environment},
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True)
        first = self._answer()
        self.figures.mode, self.figures.bound = first.get("mode"), first.get("bound")

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.communicate()

    def round(self, counts: bool, pairs: int) -> None:
        if self.figures.error:
            return
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{pairs}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # why it ended is read below
        answer = self._answer()
        if not answer:
            return
        figures = self.figures
        figures.past += answer["past"]
        figures.cached = max(figures.cached, answer["cached"])
        figures.outstanding = answer.get("outstanding")
        if answer["peak"] is not None:
            figures.peak = max(figures.peak or 0, answer["peak"])
        if counts:
            figures.ns.append(answer["ns"])

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            return dict(json.loads(line))
        assert self.process.stderr is not None
        said = self.process.stderr.read().strip().splitlines()
        self.figures.error = said[-1] if said else f"it ended with {self.process.wait()}"
        return {}


def ours(how: Ours, work: str, threads: int, ledger: bool = False) -> Callable[[], Runner]:
    return lambda: _worker(how.name, work, threads, design="pool", cap=how.cap, portable=how.portable, ledger=ledger)


def allocator(peer: Peer, work: str, threads: int) -> Callable[[], Runner]:
    preload = {} if peer.file is None else {"LD_PRELOAD": str(peer.file)}
    return lambda: _worker(peer.name, work, threads, preload, design="malloc")


def origin(name: str, work: str, threads: int) -> Callable[[], Runner]:
    return lambda: _worker(name, work, threads, design="origin")


def go(peer: Peer, work: str, threads: int) -> Callable[[], Runner]:
    return lambda: Runner(peer.name, [str(peer.file), work, str(threads)])


def _worker(name: str, work: str, threads: int, environment: dict[str, str] | None = None, **spec: object) -> Runner:
    command = [sys.executable, "-m", "stress.bench.worker", json.dumps({"work": work, "threads": threads, **spec})]
    return Runner(name, command, **(environment or {}))


def race(starts: Sequence[Callable[[], Runner]], rounds: int, pairs: int) -> list[Figures]:
    """All of them, one round each in turn, after one that does not count. Next time round the last begins."""
    with ExitStack() as stack:
        runners = [stack.enter_context(start()) for start in starts]
        for turn in range(rounds + 1):
            for runner in runners if turn % 2 else reversed(runners):
                runner.round(turn > 0, pairs)
        return [runner.figures for runner in runners]
