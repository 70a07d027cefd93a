"""mixed: all of it at once, from one seed.

It is what a service does over a day: requests of every kind, records that move between threads, threads that are born
and die with records alive, memory that runs short and comes back, collections, a share of CPUs that changes, and now
and then a fork. Each thread draws what it does from a sequence of its own, and so does the hand that disturbs them.
"""
from __future__ import annotations

import gc
import random
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import deferpool
from stress import children, machine
from stress._load import Load
from stress.plan import Options, Plan
from stress.runner import Running

THREADS = 8
WORKING_SET = 64
MOST = 16
STEPS = 1 << 62  # as many as there is time for
SECONDS = 4.0
ON_THE_WAY = 2_000 + 5 * 64  # at most, of each thread: in a burst, or in the queue to the next one
PAUSES_S = (0.0, 0.0005, 0.002)
ONE_IN = 50


def plans(options: Options) -> list[Plan]:
    return [plan("mixed", options, mode, during) for mode in options.modes]


def plan(name: str, options: Options, mode: str, during: Callable[[Running], None]) -> Plan:
    threads = options.threads or THREADS
    return Plan(
        scenario=name, options=options, mode=mode, threads=threads, procs=options.procs,
        most_procs=max(MOST, len(machine.usable_cpus())), most_live=threads * (WORKING_SET + ON_THE_WAY),
        ops=options.ops, during=during, collects=True, clears=True, refuses=True,
    )


def during(running: Running) -> None:
    mixture = Mixture(running)
    running.disturb(mixture.step, STEPS, SECONDS)
    mixture.end()


class Mixture:
    """The threads of a run, born again as they die, and the hand that disturbs them.

    gcc's address sanitizer holds locks of its own while a thread is born or dies, and a child forked then hangs in its
    first allocation: under it nobody forks here, and `fork` alone, whose threads live throughout, speaks of children.
    """

    def __init__(self, running: Running) -> None:
        self.running = running
        self.rng = random.Random(running.plan.options.seed)
        ops = running.plan.options.ops
        self.ops = 0 if ops is None else max(1, ops // running.plan.threads)
        self.again = [True] * running.plan.threads  # whether the number is to be born, or born again
        self.threads = [running.start(index, self.live) for index in range(running.plan.threads)]
        self.failing = False
        self.did: Counter[str] = Counter()
        sched, pool = running.pool.sched, running.pool
        self.disturbances: list[tuple[int, str, Callable[[], object]]] = [
            (8, "resizes", self.resize), (4, "clearpools", sched.clearpools), (3, "clears", pool.clear),
            (1, "collections", gc.collect), (3, "phases of failure", self.fail),
            (2, "refused records", partial(running.ledger.refuse, "record", 1)),
            (2, "refused batches", partial(running.ledger.refuse, "batch", 1)),
        ]
        if children.POSSIBLE and not machine.under_address_sanitizer():
            self.disturbances.append((1, "forks", partial(children.fork_one, running)))

    def live(self, load: Load, pool: deferpool.RecordPool, index: int) -> None:
        self.again[index] = load.run_life(index, WORKING_SET, self.ops)

    def step(self) -> None:
        self.bear()
        weights = [weight for weight, _, _ in self.disturbances]
        _, name, disturb = self.rng.choices(self.disturbances, weights)[0]
        disturb()
        self.did[name] += 1
        time.sleep(self.rng.choice(PAUSES_S))

    def bear(self) -> bool:
        """Whoever has died is born again, unless its operations are done. False: nobody is left."""
        alive = False
        for index, thread in enumerate(self.threads):
            if thread.is_alive():
                alive = True
            elif self.again[index] and not self.running.load.stopping:
                thread.join()
                self.running.threads.remove(thread)
                self.again[index] = False
                self.threads[index] = self.running.start(index, self.live)
                self.did["births"] += 1
                alive = True
        return alive

    def resize(self) -> None:
        few = max(1, len(machine.usable_cpus()) - 1)  # so few are portable mode
        self.running.procresize(self.rng.randint(1, self.rng.choice((few, self.running.plan.most_procs))))

    def fail(self) -> None:
        self.failing = not self.failing
        one_in = self.running.plan.options.fail or ONE_IN
        self.running.ledger.failing(one_in if self.failing else 0, self.rng.getrandbits(32))

    def end(self) -> None:
        """A run of a given number of operations ends with the last of them."""
        while self.running.plan.ops and self.bear() and not self.running.load.stopping:
            self.running.tick()
            time.sleep(0.005)
        self.running.notes.append(", ".join(f"{n:,} {name}" for name, n in sorted(self.did.items())))
