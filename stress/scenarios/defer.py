"""defer: deferring functions, hundreds deep, return, raise, recover and end their threads; coroutines move on.

It is what a server does whose handlers clean up after themselves, some of them on another thread than they began on:
the records of their deferred calls are taken on one P and given back on another. Both these and what the calls give
back are records of the pool that is looked at, while the number of Ps changes and pools are cleared.
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import deferpool
from deferpool import Goexit, _defer, defer, deferring, recover
from stress import endings
from stress.endings import MOST_CALLS, Endings, Failed, Pause
from stress.plan import Options, Plan
from stress.runner import Running

SIZES = tuple(sorted({*_defer.CALL_SIZES, _defer.ACTIVATION_SIZE}))
RECORDS = 1 + 2 * (MOST_CALLS + 1)  # of one function: its activation, and for each call itself and what it gives back


def plans(options: Options) -> list[Plan]:
    return [endings.plan("defer", options, mode, SIZES, RECORDS, during) for mode in options.modes]


def during(running: Running) -> None:
    assert isinstance(running.pool, deferpool.RecordPool)
    with records_of(running.pool):
        endings.run(running, nest, half)


@contextmanager
def records_of(pool: deferpool.RecordPool) -> Iterator[None]:
    """The library's own records are of this pool meanwhile."""
    _defer.take_records_from(pool, pool)
    try:
        yield
    finally:
        _defer.take_records_from()


def nest(ends: Endings, depth: int) -> BaseException | None:
    """A function, and in it others to this depth; returns how it ended."""
    ends.library_takes()
    try:
        given = level(ends, depth)
    except (Failed, Goexit) as error:
        return error
    except MemoryError:
        ends.library_was_refused()
        return None
    if given != (f"stopped at {depth}" if ends.stopped_at == depth else depth):
        ends.wrong(f"the function at {depth} gave {given!r}; an exception was stopped last at {ends.stopped_at}")
    return None


@deferring
def level(ends: Endings, depth: int) -> object:
    ends.library_took(_defer.ACTIVATION_SIZE)
    random = ends.draw()
    for _ in range(random % (MOST_CALLS + 1)):
        arguments = ends.expect()
        with ends.registering(_defer.size_of_call(len(arguments))):
            defer(ends.ran, *arguments)
    if random // 8 % 4 == 0:
        with ends.registering(_defer.size_of_call(2), expected=False):
            defer(stop, ends, depth)
    if depth:
        error = nest(ends, depth - 1)
        if error is not None:
            raise error
    elif random // 32 % 4 == 0:
        ends.throw(Failed(random))
    elif random // 32 % 16 == 1:
        ends.throw(Goexit())
    return depth


def stop(ends: Endings, depth: object) -> None:
    ends.recovered(recover(returning=f"stopped at {depth}"), depth)


@deferring
async def half(ends: Endings) -> None:
    random = ends.draw()
    for second in range(2):
        for _ in range(random % (MOST_CALLS + 1)):
            arguments = ends.expect()
            with ends.registering(_defer.size_of_call(len(arguments))):
                defer(ends.ran if random // 8 % 2 else ends.ran_later, *arguments)
        if random // 16 % 4 == second:
            with ends.registering(_defer.size_of_call(2), expected=False):
                defer(stop, ends, "the coroutine")
        if not second:
            with ends.closing():
                await Pause()
    if random // 64 % 4 == 0:
        ends.throw(Failed(random))
