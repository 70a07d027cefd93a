"""The standard worlds of the schedule explorer: each a few operations of two or three threads, and why it is there.

A world is written as it is read: for each thread its set-up, which runs before the schedule begins, and its operations.
    take [class]   take a record            give         give back the oldest       give newest
    procresize n   clearpools   clear       fork         a fork, and then the child
    refuse n       this thread's n-th allocation from now fails
    refuse-all     all of them do
    refuse-barrier the next barrier is refused
    open, close    a second pool of the same Sched: it joins its Sched's pools, or leaves them
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stress._worlds import World

OPERATIONS = {"take": "new", "give": "free", "give newest": "free-newest", "procresize": "resize",
              "clearpools": "clearpools", "clear": "clear", "fork": "fork", "refuse": "refuse",
              "refuse-all": "refuse-all", "refuse-barrier": "refuse-barrier", "open": "open", "close": "close"}


@dataclass(frozen=True)
class Spec:
    """One world. `threads`: pairs of set-up and operations, each a text of comma-separated operations."""

    name: str
    why: str
    threads: tuple[tuple[str, str], ...]
    mode: str = "sections"  # at the start, where `procs` is at least `cpus`
    procs: int = 2
    cpus: int = 1  # fewer Ps than this are portable mode; also the stripes of the central pool
    numbers: int = 2  # P numbers that the kernel hands out
    cap: int = 2
    limit: int | None = 4
    sizes: tuple[int, ...] = (16,)
    caps: tuple[int, ...] = ()  # of each class, none above `cap`; 0: no local caches
    weights: tuple[int, ...] = ()  # of an item of each class, in units of `limit`; 1 unless said
    tallies: bool = False  # statistics that are written under a lock are steps, too

    @property
    def title(self) -> str:
        return f"{self.name}-{self.mode}"

    def make(self) -> World:
        from stress._worlds import World  # only in the explorer's own build

        return World([(parse(setup), parse(work)) for setup, work in self.threads], self.procs, self.cpus, self.numbers,
                     self.sizes, self.cap, self.limit, self.mode == "sections", self.tallies,
                     self.caps or (self.cap,) * len(self.sizes), self.weights or (1,) * len(self.sizes))


def parse(text: str) -> list[tuple[str, int]]:
    """`take, take 1, 3 give` as [(name, argument)]."""
    operations = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        words = part.split()
        times = int(words.pop(0)) if words[0].isdigit() else 1
        argument = int(words.pop()) if words[-1].isdigit() else 0
        operations += [(OPERATIONS[" ".join(words)], argument)] * times
    return operations


FULL = "3 take, 2 give"  # one out, two cached: with a cap of 2, the next give spills
STOCKED = "8 take, 8 give"  # two cached, the limit's worth in the central pool


def standard() -> Iterator[Spec]:
    """Every world in each mode that it makes sense in."""
    for spec in WORLDS:
        if spec.mode == "both":
            yield replace(spec, mode="sections")
            yield replace(spec, mode="portable")
        else:
            yield spec


WORLDS = (
    Spec("pair", "two threads take and give on the same Ps", mode="both",
         threads=(("", "take, give, take, give"), ("", "take, give, take, give"))),
    Spec("spill", "two threads find the cache full at once", mode="both",
         threads=((FULL, "give, take"), ("take", "give, take"))),
    Spec("refill", "two threads find the cache empty, and a batch in the central pool", mode="both",
         threads=((STOCKED + ", 2 take", "2 take, give"), ("", "2 take"))),
    Spec("limit", "room for one more: two batches come at once", mode="both", limit=1,
         threads=((FULL, "give"), (FULL, "give"))),
    Spec("no-room", "a central pool that may hold nothing", mode="both", limit=0,
         threads=((FULL, "give, take"), (FULL, "give"))),
    Spec("no-limit", "a central pool without a limit", limit=None,
         threads=((FULL, "give, 2 take"), (FULL, "give, take"))),
    Spec("migrate", "taken by one thread, given back by the others", mode="both", cap=2, limit=2,
         threads=(("", "3 take"), ("3 take", "3 give"))),
    Spec("three", "three threads on two Ps", mode="both",
         threads=(("", "take, give"), ("take", "give, take"), ("", "take, give"))),
    Spec("one-p", "three threads on one P", mode="both", procs=1, numbers=1,
         threads=(("2 take, give", "give, take"), ("", "take, give"), ("", "take, give"))),
    Spec("cap-4", "batches of two", mode="both", cap=4, limit=4,
         threads=(("5 take, 4 give", "give, take"), ("5 take, 4 give", "give, 3 take"))),
    Spec("spill-elsewhere", "between its push and its spill a thread comes to a P with one item", mode="both", cap=4,
         threads=(("5 take, 4 give", "give"), ("take, give", ""), ("take, give", "take"))),
    Spec("refill-elsewhere", "between its pop and its refill a thread comes to a P that is full", mode="both", cap=4,
         threads=(("8 take, 8 give, 4 take", "take"), ("6 take, 6 give", ""), ("", "take"))),
    Spec("stripes", "two stripes: stealing from the other one", mode="both", cpus=2,
         threads=((STOCKED, "3 take"), ("", "2 take, give"))),
    Spec("room-elsewhere", "two threads spill at once, and the other stripe has room to spare for one", procs=3,
         numbers=3, cpus=2, limit=1, threads=((FULL, "give"), ("3 take, 3 give, 3 take", ""), (FULL, "give"))),
    Spec("weights", "room for one heavy item, or for three light ones: spills of both classes at once", mode="both",
         sizes=(16, 32), weights=(1, 3), limit=3, threads=((FULL, "give"), ("3 take 1, 2 give", "give"))),
    Spec("weights-elsewhere", "a heavy item needs the room that stripes of a light class have to spare", mode="both",
         sizes=(16, 32), weights=(1, 3), limit=5, cpus=2,
         threads=((STOCKED + ", 8 take, 3 take 1, 7 give newest", "2 give newest"), ("2 take", "2 give"))),
    Spec("weights-put", "single items of two weights, and room for one of them", mode="both", procs=1, numbers=3,
         sizes=(16, 32), weights=(2, 3), limit=4,
         threads=(("", ""), ("take", "give"), ("take 1", "give, take 1"))),
    Spec("weights-left", "a spill leaves room that is too little for an item, and one comes by itself", procs=1,
         cap=4, limit=4, sizes=(16,), weights=(3,), threads=(("5 take, 4 give", "give, take"), ("take", "give"))),
    Spec("weights-refill", "what a refill cannot push goes back by weight", mode="both", cap=4, limit=12,
         sizes=(16,), weights=(3,), threads=(("8 take, 8 give, 4 take", "take"), ("6 take, 6 give", ""), ("", "take"))),
    Spec("weights-fork", "a fork counts room anew, by weight", mode="both", sizes=(16, 32), weights=(1, 3), limit=4,
         threads=(("take", "fork, give, take 1"), ("3 take 1, 2 give", "give, take 1"))),
    Spec("capless", "a class that only the central pool serves", mode="both", sizes=(16, 32), caps=(2, 0), limit=3,
         threads=(("take 1", "give, take 1"), ("2 take 1", "give, give"))),
    Spec("capless-clear", "a pool is cleared that has a class without local caches", mode="both", sizes=(16, 32),
         caps=(2, 0), weights=(1, 2), limit=4, threads=(("2 take 1, 2 take, 4 give", "take 1, give"), ("", "clear"))),
    Spec("capless-resize", "a P comes and goes, and a class has nothing there", mode="both", sizes=(16, 32),
         caps=(2, 0), threads=(("take 1, give", "procresize 3, procresize 1"), ("take 1", "give, take 1"))),
    Spec("crowd", "more threads than Ps, in portable mode", mode="portable", procs=1, numbers=1,
         threads=(("take", "give, take"), ("take", "give, take"), ("take", "give"))),
    Spec("out-of-range", "a thread's P number is past the Ps", procs=1,
         threads=(("", "take, give, take"), ("2 take", "2 give, take"))),
    Spec("clear", "a pool is cleared while another thread takes and gives", mode="both",
         threads=((STOCKED, "take, give"), ("", "clear"))),
    Spec("clear-quiet", "a pool is cleared and nobody else does anything", mode="both",
         threads=((STOCKED, ""), ("", "clear"))),
    Spec("clearpools", "clearpools meets a refill and a spill", mode="both",
         threads=((STOCKED + ", take", "give, 2 take"), ("", "clearpools"))),
    Spec("clearpools-quiet", "clearpools and nobody else does anything: local caches stay", mode="both",
         sizes=(16, 32), threads=((STOCKED + ", 3 take 1, 3 give", ""), ("", "clearpools"))),
    Spec("resize-down", "a P is removed while its thread takes and gives", mode="both",
         threads=(("", "procresize 1"), ("3 take, 2 give", "give, take"))),
    Spec("resize-classes", "a P is removed that holds records of two classes", mode="both", sizes=(16, 32),
         threads=(("", "procresize 1"), ("2 take, 2 take 1, 4 give", "take 1"))),
    Spec("resize-full", "a P is removed while everything is full: the bound shrinks only when it is empty", mode="both",
         limit=2, threads=(("4 take", "4 give, procresize 1"), ("6 take, 6 give", "take"))),
    Spec("resize-down-twice", "two threads remove Ps while everything is full", mode="both", procs=3, numbers=3,
         limit=2, threads=(("2 take, 2 give", "procresize 2"), ("2 take, 2 give", "procresize 1"),
                           ("6 take, 6 give", ""))),
    Spec("resize-up", "a P is added, and used at once", mode="both", procs=1,
         threads=(("take", "procresize 2, give"), ("", "take, give"))),
    Spec("resize-up-no-memory", "a P is to be added, and there is no memory for its caches", mode="both", procs=1,
         threads=(("", "refuse 1, procresize 2"), ("take", "give, take"))),
    Spec("resize-twice", "two threads change the number of Ps", mode="both",
         threads=(("", "procresize 1"), ("take", "procresize 2, give"))),
    Spec("cross-to-portable", "fewer Ps than CPUs: from sections to portable mode", cpus=2,
         threads=(("", "procresize 1"), ("3 take, 2 give", "give, take"))),
    Spec("cross-to-sections", "as many Ps as CPUs: from portable mode to sections", cpus=2, procs=1,
         threads=(("", "procresize 2"), ("3 take, 2 give", "give, take"))),
    Spec("cross-on-one-p", "into sections, and then both threads are on one P", cpus=2, procs=1, numbers=1,
         threads=(("", "procresize 2, take, give"), (FULL, "take, give"))),
    Spec("cross-and-back", "into portable mode and back", cpus=2,
         threads=(("", "procresize 1, procresize 2"), ("take", "give, take"))),
    Spec("barrier-refused", "the kernel refuses the barrier of a resize", cpus=2,
         threads=(("", "refuse-barrier, procresize 1"), ("take", "give, take"))),
    Spec("barrier-refused-clear", "the kernel refuses the barrier of a clear",
         threads=((STOCKED, "refuse-barrier, clear"), ("take", "give, take"))),
    Spec("no-record", "the allocation of a record fails", mode="both",
         threads=(("", "refuse 1, take, take, give"), ("", "take, give"))),
    Spec("no-batch", "the allocation of a batch fails", mode="both",
         threads=((FULL, "refuse 1, give, take"), ("take", "give, take"))),
    Spec("no-memory", "no allocation succeeds any more", mode="both",
         threads=((FULL, "refuse-all, give, 2 take"), ("take", "give, take"))),
    Spec("no-memory-no-p", "a thread without a P finds no memory for a batch", procs=1, limit=4,
         threads=(("take", "give"), ("2 take", "refuse-all, 2 give, take"))),
    Spec("out-of-range-two", "two threads without a P empty batches of one stripe", procs=1, numbers=3,
         threads=((STOCKED, "take"), ("", "2 take, give"), ("", "2 take, give"))),
    Spec("tallies", "two threads without a P and without room write down what they did", procs=1, numbers=3, limit=0,
         tallies=True, threads=(("", ""), ("take", "give"), ("take", "give"))),
    Spec("put-together", "two threads without a P make a batch each for one stripe", procs=1, numbers=3, cap=4,
         threads=(("", "take"), ("take", "give"), ("take", "give"))),
    Spec("spares", "clearpools frees the spare batches while others take and fill them", mode="both",
         threads=((STOCKED + ", 7 take", "2 give, take"), ("", "clearpools"))),
    Spec("resize-up-twice", "two threads add Ps at once", mode="both", procs=1,
         threads=(("", "procresize 2, take"), ("", "procresize 3, take, give"))),
    Spec("open", "a pool is opened while Ps are added", mode="both", procs=1,
         threads=(("", "procresize 2, take"), ("", "open, take"))),
    Spec("close", "a pool is closed while Ps are added", mode="both", procs=1,
         threads=(("", "procresize 2, take"), ("open", "close, take"))),
    Spec("open-and-cross", "a pool is opened while the mode changes", cpus=2,
         threads=(("", "procresize 1, procresize 2"), ("", "open"))),
    Spec("fork-resize-up", "a fork while another thread adds Ps", mode="both", procs=1,
         threads=(("", "fork, take, give, procresize 3"), ("", "procresize 2"))),
    Spec("fork", "a fork while another thread takes and gives", mode="both",
         threads=(("take", "fork, give, 2 take"), (FULL, "give, take"))),
    Spec("fork-transfer", "a fork while another thread refills", mode="both",
         threads=(("", "fork, 2 take"), (STOCKED + ", 2 take", "2 take, give"))),
    Spec("fork-resize", "a fork while another thread changes the number of Ps",
         threads=(("", "fork, take, give, procresize 2"), ("take", "procresize 1"))),
)
