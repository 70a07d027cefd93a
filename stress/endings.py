"""What has to happen when functions end, and whether it does: each call once, last in, first out, with its arguments.

The calls give records back, so that the harness's own checks speak too: a call that runs twice gives back a record that
is somebody else's, and one that never runs leaves its record out.
"""
from __future__ import annotations

import gc
import threading
from asyncio import CancelledError
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, Full, Queue
from random import Random
from typing import Any, NoReturn

import deferpool
from deferpool import Goexit
from stress import machine
from stress._load import Load
from stress.calls import give, take
from stress.plan import Options, Plan
from stress.runner import Running

Nest = Callable[["Endings", int], BaseException | None]  # functions inside one another; how they ended
Work = Callable[["Endings"], Coroutine[Any, Any, object]]  # a coroutine that pauses once

SIZE = 32  # bytes of a record that a call gives back
MOST_ARGUMENTS = 10  # of a call: more than the last size class has room for
ONE_IN_FAILS = 16
DEEP, ONE_IN_DEEP = 300, 256  # functions inside one another, now and then
ON_THE_WAY = 32  # coroutines, to each thread
ONE_IN_MOVES = 4  # of the programs
OPS = 50  # about so many takes and gives a program
PATIENCE_S = 0.05
MOST_CALLS = 4  # in each function, and in each half of a coroutine
THREADS = 8
STACK = 64 << 20  # bytes of each thread: functions inside one another take the interpreter's own stack, too
MOST_PROCS = 16
STEPS = 1 << 62  # as many as there is time for
SECONDS = 2.0


class Failed(Exception):
    """Raised on purpose."""


@dataclass(frozen=True)
class Call:
    """One call that is to come."""

    arguments: tuple[object, ...]
    record: deferpool.Record | None
    owner: int  # the thread that has taken the record
    error: Failed | None  # to raise, at its end


class Endings:
    """What is to come in a function and those that it calls. One for each thread, and for each coroutine that moves."""

    def __init__(self, running: Running, thread: int, seed: int | None = None) -> None:
        self.running = running
        self.load, self.pool = running.load, running.pool
        self.random = None if seed is None else Random(seed)
        self.thread = thread  # where it runs now
        self.to_come: list[Call] = []
        self.records = 0  # taken by the library, and not reported as given back
        self.flying: BaseException | None = None  # the exception that must be in flight
        self.beneath: BaseException | None = None  # what goes on when that is recovered
        self.replaced: BaseException | None = None  # what was in flight when it was raised
        self.stopped_at: object = None  # where an exception was stopped last

    def draw(self) -> int:
        """The next number of this thread's own sequence; or of a coroutine's, wherever it goes on."""
        return self.load.draw(self.thread) if self.random is None else self.random.getrandbits(64)

    # ---- what is to come ---------------------------------------------------------------------------------

    def expect(self, *, fails: bool = True) -> tuple[object, ...]:
        """The arguments of one call more, of `ran`. It may raise, if `fails`."""
        random = self.draw()
        record = take(self.load, self.pool, self.thread, SIZE)
        error = Failed(random) if fails and random % ONE_IN_FAILS == 0 else None
        arguments = (random, *range(random % MOST_ARGUMENTS))
        self.to_come.append(Call(arguments, record, self.thread, error))
        return arguments

    def ran(self, *arguments: object) -> None:
        """A call that was expected has come."""
        if not self.to_come or self.to_come[-1].arguments != arguments:
            wanted = f"the one of {self.to_come[-1].arguments} was next" if self.to_come else "none was to come"
            self.wrong(f"the call of {arguments} has run, and {wanted}")
            return
        call = self.to_come.pop()
        self._done(call)
        if call.error is not None:
            self.throw(call.error)

    async def ran_later(self, *arguments: object) -> None:
        self.ran(*arguments)

    def _done(self, call: Call) -> None:
        if call.record is not None:
            give(self.load, self.pool, self.thread, call.record, call.owner)

    def library_takes(self) -> None:
        """The library is about to take a record of its own; when it is refused that, it must say so by MemoryError."""
        self.load.taking(self.thread)

    def library_took(self, size: int) -> None:
        self.load.took_unseen(self.thread, size)
        self.records += 1

    def library_was_refused(self) -> None:
        self.load.took(self.thread, 0, 0)

    @contextmanager
    def registering(self, size: int, *, expected: bool = True) -> Iterator[None]:
        """Around what registers a call in a record of this size: the last one `expected`, or another. It may be
        refused the record; then there is no such call."""
        self.library_takes()
        try:
            yield
        except MemoryError:
            self.library_was_refused()
            if expected:
                self._done(self.to_come.pop())
        else:
            self.library_took(size)

    # ---- exceptions ----------------------------------------------------------------------------------------

    def throw(self, error: Failed | Goexit) -> NoReturn:
        self.replaced = self.flying
        raise self.thrown(error)

    def thrown(self, error: BaseException) -> BaseException:
        """To be thrown into a coroutine, in which nothing is in flight."""
        self.flying = error
        if not isinstance(error, Failed):
            self.beneath = error
        return error

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Around a pause, at which the coroutine may be closed: that is in flight then."""
        try:
            yield
        except GeneratorExit as closed:
            self.thrown(closed)
            raise

    def suppressed(self, error: Failed, where: object) -> None:
        """An exception was stopped, and with it all that it had replaced: was it the one in flight?"""
        if error is not self.flying:
            self.wrong(f"{error!r} was suppressed, {self.flying!r} was in flight")
        self.flying = self.beneath = None
        self.stopped_at = where

    def recovered(self, error: Exception | None, where: object) -> None:
        """recover has given this: was it the one in flight, and does it show what it has replaced?"""
        if error is not (self.flying if isinstance(self.flying, Failed) else None):
            self.wrong(f"recover gave {error!r}, {self.flying!r} was in flight")
        elif error is not None:
            if error.__context__ is not self.replaced:
                self.wrong(f"{error!r} has {error.__context__!r} as its context, and replaced {self.replaced!r}")
            self.flying = self.beneath
            self.stopped_at = where

    def ended(self, error: BaseException | None) -> None:
        """All functions have ended, with this exception."""
        if error is not self.flying:
            self.wrong(f"it ended with {error!r}, {self.flying!r} was in flight")
        if self.to_come:
            self.wrong(f"{len(self.to_come)} calls never came, among them that of {self.to_come[-1].arguments}")
        while self.to_come:
            self._done(self.to_come.pop())
        self.flying = self.beneath = self.replaced = self.stopped_at = None
        self.load.gave(self.thread, self.records)
        self.records = 0

    def wrong(self, what: str) -> None:
        self.running.saw("endings", f"thread {self.thread}: {what}")


# ---- coroutines that move -------------------------------------------------------------------------------------

class Pause:
    """Something to await: whoever drives the coroutine goes on with it later, perhaps elsewhere."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class Moving:
    """A coroutine that has been driven to its first pause, to be ended by another thread."""

    def __init__(self, endings: Endings, work: Work) -> None:
        self.endings = endings
        self.coroutine = work(endings)
        self.coroutine.send(None)

    def end(self, thread: int) -> None:
        """By going on, by an exception that is thrown in, or by being closed."""
        endings = self.endings
        endings.thread = thread
        how = endings.draw() % 8
        ended: BaseException | None = None
        try:
            if how == 0:
                self.coroutine.close()
            elif how == 1:
                self.coroutine.throw(endings.thrown(Failed()))
            elif how == 2:
                self.coroutine.throw(endings.thrown(CancelledError()))
            else:
                self.coroutine.send(None)
            if how:
                endings.wrong("a coroutine has paused for ever")
        except StopIteration:
            pass
        except (Failed, Goexit, CancelledError) as error:
            ended = error
        if how == 0 and isinstance(endings.flying, GeneratorExit):
            endings.flying = None  # to close is to have that raised, and nobody told
        endings.ended(ended)


class Programs:
    """What one thread does, one after the other: functions inside one another, or half of a coroutine's life."""

    def __init__(
        self, running: Running, thread: int, on_the_way: list[Queue[Moving]], nest: Nest, work: Work
    ) -> None:
        self.running = running
        self.thread = thread
        self.endings = Endings(running, thread)
        self.mine, self.next = on_the_way[thread], on_the_way[(thread + 1) % len(on_the_way)]
        self.nest, self.work = nest, work
        self.ran = self.deep = self.moved = 0

    def one(self) -> None:
        """Runs one. As often as each other thread: what it hands on is waited for there."""
        self.ran += 1
        random = self.endings.draw()
        if self.ran % ONE_IN_MOVES == 0:
            self.set_out(Moving(Endings(self.running, self.thread, random), self.work))
            self.take_over()
            return
        depth = DEEP if random % ONE_IN_DEEP == 0 else random % 5
        self.deep += depth == DEEP
        self.endings.ended(self.nest(self.endings, depth))

    def set_out(self, moving: Moving) -> None:
        """Hands on a coroutine that has begun here, to be ended by the next thread."""
        while not self.running.load.stopping:
            with suppress(Full):
                self.next.put(moving, timeout=PATIENCE_S)
                return
        moving.end(self.thread)

    def take_over(self) -> None:
        """Ends the next one that arrives here."""
        while not (self.running.load.stopping and self.mine.empty()):
            with suppress(Empty):
                moving = self.mine.get(timeout=PATIENCE_S)
                self.moved += moving.endings.thread != self.thread
                moving.end(self.thread)
                return

    def clear_up(self) -> None:
        """All threads have ended: what is still on its way to this one is ended by whoever calls this."""
        while not self.mine.empty():
            self.mine.get().end(self.thread)


# ---- a scenario of them -------------------------------------------------------------------------------------------

def plan(
    name: str, options: Options, mode: str, sizes: tuple[int, ...], records: int, during: Callable[[Running], None]
) -> Plan:
    """`records`: at most, of one function or coroutine."""
    threads = options.threads or THREADS
    return Plan(
        scenario=name, options=options, mode=mode, calls="python", threads=threads, procs=options.procs, sizes=sizes,
        most_procs=max(MOST_PROCS, len(machine.usable_cpus())), ops=options.ops, during=during, collects=True,
        clears=True, most_live=threads * records * (DEEP + 1 + 2 * (ON_THE_WAY + 1)),
    )


def run(running: Running, nest: Nest, work: Work) -> None:
    """The threads and their programs, while Ps come and go, pools are cleared and garbage is collected."""
    threads, options = running.plan.threads, running.plan.options
    each = 0 if options.ops is None else max(ONE_IN_MOVES, options.ops // threads // OPS)
    on_the_way = [Queue[Moving](ON_THE_WAY) for _ in range(threads)]
    programs = [Programs(running, index, on_the_way, nest, work) for index in range(threads)]
    rng = Random(options.seed)
    disturbances: tuple[Callable[[], object], ...] = (
        lambda: running.procresize(rng.randint(1, running.plan.most_procs)), running.pool.sched.clearpools,
        running.pool.clear, gc.collect)

    def body(load: Load, pool: deferpool.RecordPool, thread: int) -> None:
        done = 0
        while not load.stopping and (not each or done < each):
            programs[thread].one()
            done += 1

    before = threading.stack_size(STACK)
    try:
        for index in range(threads):
            running.start(index, body)
    finally:
        threading.stack_size(before)
    running.disturb(lambda: rng.choices(disturbances, (8, 8, 8, 1))[0](), STEPS, SECONDS)
    running.load.stop()
    for thread in running.threads:
        thread.join()
    moved = sum(program.moved for program in programs)
    for program in programs:
        program.clear_up()
    running.notes.append(f"{sum(program.ran for program in programs):,} programs, "
                         f"{sum(program.deep for program in programs):,} of them {DEEP} functions deep; {moved:,} "
                         "coroutines ended on another thread than they began on")
