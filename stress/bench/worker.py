"""One design at one kind of work, in a process of its own, whose malloc may be another one.

Started by race.py, which says how many pairs for each round and gets a line of JSON; so the rounds of all take turns.
"""
from __future__ import annotations

import gc
import json
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import deferpool
from stress import _bench, machine
from stress._ledger import Ledger

STACK = 128 * 1024  # bytes; what the C library keeps of ended threads holds 256 of these
LOOK_EVERY_S = 0.002


def main(spec: dict[str, Any]) -> None:
    threading.stack_size(STACK)
    work: Callable[..., float] = from_python if spec["work"] == "python" else _bench.WORK[spec["work"]]
    threads = spec["threads"]
    cpus = machine.usable_cpus()
    in_order = [cpus[thread % len(cpus)] for thread in range(threads)] if spec["work"] == "pass" else []
    run(_bench.rest, _bench.Malloc(), threads, 0, in_order)  # the threads' own memory is not the design's
    gc.collect()
    before = resident()
    reset_peak()
    design: Any
    pool = ledger = None
    if spec["design"] == "pool":
        sched = deferpool.Sched(portable=spec["portable"])
        ledger = Ledger() if spec["ledger"] else None
        allocator = ledger.capsule() if ledger else None
        design = pool = deferpool.RecordPool(cap=spec["cap"], sched=sched, allocator=allocator, debug=False)
    else:
        design = {"malloc": _bench.Malloc, "origin": _bench.Origin}[spec["design"]]()
    say({"mode": pool.sched.mode if pool else None, "bound": pool.bound if pool else None})
    for line in sys.stdin:
        each = int(line) // threads
        most, past = 0, 0

        def look() -> None:
            nonlocal most, past
            if pool is not None:
                cached = pool.stats()["cached"]
                most, past = max(most, cached), past + (cached > pool.bound)

        seconds = run(work, design, threads, each, in_order, look)
        look()
        outstanding = ledger.created - ledger.destroyed if ledger else None  # all has been given back
        say({"ns": seconds / (each * threads) * 1e9, "peak": peak() - before, "cached": most, "past": past,
             "outstanding": outstanding})


def run(
    work: Callable[..., float], design: object, threads: int, each: int, in_order: list[int],
    look: Callable[[], None] | None = None,
) -> float:
    """CPU seconds of all threads together."""
    gate = _bench.Gate(threads)

    def body(thread: int) -> float:
        if in_order:
            machine.pin(in_order[thread])
        return work(design, gate, thread, each)

    with ThreadPoolExecutor(threads) as pool:
        results = [pool.submit(body, thread) for thread in range(threads)]
        while look is not None and not all(result.done() for result in results):
            look()
            threading.Event().wait(LOOK_EVERY_S)
        return sum(result.result() for result in results)


def from_python(pool: deferpool.RecordPool, gate: _bench.Gate, thread: int, pairs: int) -> float:
    """What code without Cython does: a handle for each record."""
    new, free = pool.new, pool.free
    gate.wait()
    began = time.thread_time()
    for _ in range(pairs):
        free(new(64))
    return time.thread_time() - began


def say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


def resident() -> int:
    return in_status("VmRSS")


def peak() -> int:
    """Bytes that were resident at most since reset_peak()."""
    return in_status("VmHWM")


def in_status(name: str) -> int:
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def reset_peak() -> None:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
