"""migrate: records are taken on one processor and given back on another, for ever. The origin's scenario.

It is what a server does whose requests start on one thread and end on another. Producers take records and hand
them over in batches, through bounded queues; consumers give them back. Where there are two CPUs the two kinds are
pinned to different ones. An unbounded list at the consumers' end grows by every record that was ever moved.
"""
from __future__ import annotations

from dataclasses import replace
from functools import partial
from queue import Empty, Full, Queue
from typing import Any

from stress import machine
from stress._load import Load
from stress.calls import Takes, give, take
from stress.plan import DEFERPOOL, LOCAL_LISTS, OBJECTS, PER_P, PER_THREAD, Options, Plan

RECORDS = 10_000_000
SIZE = 16
OBJECT = (112,)  # as in the other scenarios
BATCH, QUEUE = 64, 4  # as in the nogil threads
Batches = Queue[list[Any] | None]  # None: the end


def plans(options: Options) -> list[Plan]:
    pairs = max(1, (options.threads or max(4, len(machine.usable_cpus()))) // 2)
    runs = [(PER_THREAD, "", "nogil")]
    if len(machine.usable_cpus()) > 1:  # one CPU, one list: nothing is taken here and given back there
        runs.insert(0, (PER_P, "", "nogil"))
    runs += [(DEFERPOOL, mode, calls) for calls in options.calls for mode in options.modes]
    return [plan(options, pairs, design, mode, calls, RECORDS if calls == "nogil" else RECORDS // 20)
            for design, mode, calls in runs]


def plans_of(options: Options, items: str) -> list[Plan]:
    """With objects, beside lists of threading.local; all ten millions where nothing else is asked for. With buffers."""
    if items == OBJECTS:
        n = RECORDS if options.items == (OBJECTS,) else RECORDS // 20
        runs = [(LOCAL_LISTS, ""), *((DEFERPOOL, mode) for mode in options.modes)]
        return [replace(plan(options, 1, design, mode, "python", n), items=items, sizes=OBJECT)
                for design, mode in runs]
    pairs = max(1, (options.threads or 4) // 2)
    return [replace(plan(options, pairs, DEFERPOOL, mode, "nogil", RECORDS // 10), items=items)
            for mode in options.modes]


def plan(options: Options, pairs: int, design: str, mode: str, calls: str, usual: int) -> Plan:
    """`usual`: how many records, where nobody says so."""
    ops = options.ops
    if ops is None and options.seconds is None:
        ops = 2 * usual
    records = 0 if ops is None else max(1, ops // 2 // pairs)
    queues: list[Batches] = [Queue(QUEUE) for _ in range(pairs)]
    cpus = machine.usable_cpus()

    def nogil(load: Load, pool: Takes, thread: int) -> None:
        pair, consumes = divmod(thread, 2)
        if consumes:
            load.run_consumer(pair, SIZE)
        else:
            load.run_producer(pair, records, SIZE)

    return Plan(
        scenario="migrate", options=options, design=design, mode=mode, calls=calls, threads=2 * pairs, sizes=(SIZE,),
        procs=options.procs, most_live=pairs * (QUEUE + 2) * BATCH,
        ops=ops and 2 * pairs * records, seconds=options.seconds,
        body=nogil if calls == "nogil" else partial(through_python, queues, records),
        cpu=lambda thread: cpus[0] if thread % 2 == 0 else cpus[-1], spread=False,
    )


def through_python(
    queues: list[Batches], records: int, load: Load, pool: Takes, thread: int
) -> None:
    queue = queues[thread // 2]
    if thread % 2 == 0:
        done = 0
        while not load.stopping and (not records or done < records):
            n = min(BATCH, records - done) if records else BATCH
            taken = [take(load, pool, thread, SIZE) for _ in range(n)]
            _put(queue, [record for record in taken if record is not None])
            done += n
        _put(queue, None)
    else:
        while (batch := _get(queue)) is not None:
            for record in batch:
                give(load, pool, thread, record, thread - 1)


def _put(queue: Batches, what: list[Any] | None) -> None:
    while True:
        try:
            return queue.put(what, timeout=1)
        except Full:
            continue


def _get(queue: Batches) -> list[Any] | None:
    while True:
        try:
            return queue.get(timeout=1)
        except Empty:
            continue
