"""A schedule as text, and a schedule as a picture.

The text is the world's name, a colon, and who takes how many steps in turn: `spill-portable:A12B3>1A4`. `>1` says that
the section which begins with the step before it is on P 1, where its thread was on another one. The picture has
a column for each thread and a line for each step.
"""
from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stress._worlds import World

MOVED = 128  # as in _fibers.pxd
THREADS = "ABCD"
HOLDERS = ("free", "held", "retired")
LOAD, STORE, CAS, ADD, READ, COMMIT, BARRIER, COPY = range(8)  # as in points.h


def write(world: str, path: bytes) -> str:
    words = []
    for step, run in groupby(path):
        if step >= MOVED:
            words += [f">{step - MOVED}" for _ in run]
        else:
            words.append(f"{THREADS[step]}{len(list(run))}")
    return f"{world}:{''.join(words)}"


def read(text: str) -> tuple[str, bytes]:
    """(world, path). Raises ValueError, naming what is wrong."""
    world, colon, steps = text.partition(":")
    if not colon:
        raise ValueError(f"a schedule is WORLD:STEPS, and {text!r} has no colon")
    if not re.fullmatch(r"([A-D]\d{1,6}|>\d{1,2})+", steps):
        raise ValueError(f"{steps!r} is not a sequence of steps such as A12B3>1A4")
    path = bytearray()
    for who, times, number in re.findall(r"([A-D])(\d+)|>(\d+)", steps):
        path += bytes([MOVED + int(number)]) if number else bytes([THREADS.index(who)]) * int(times)
    return world, bytes(path)


def picture(world: World, threads: int) -> Iterator[str]:
    """Lines for the schedule that was traced last."""
    width = max(24, 108 // threads)
    yield "step  " + "".join(f"thread {THREADS[i]}".ljust(width) for i in range(threads)).rstrip()
    for n, (fiber, what, address, before, after, number, sent_back) in enumerate(world.trace, 1):
        text = say(world, what, world.name_of(address), before, after, number, sent_back)
        yield f"{n:>4}  {' ' * width * fiber}{text}"


def say(world: World, what: int, name: str, before: int, after: int, number: int, sent_back: bool) -> str:
    if name.startswith("P") and name.endswith("holder"):
        before, after = (HOLDERS[value & 3] for value in (before, after))  # type: ignore[assignment]
    elif " class " in name:
        before, after = world.count_in_word(before), world.count_in_word(after)
    else:
        before, after = before & 0xFFFFFFFF, after & 0xFFFFFFFF
    if what == BARRIER:
        return "barrier"
    if what == COPY:
        return "forks: the others are gone"
    if what == READ:
        return f"waits for {name}" if name else f"section begins on P{number}"
    if what == COMMIT:
        return f"is sent back ({name})" if sent_back else f"commits {name}: {before} to {after}"
    if what == LOAD:
        return f"reads {name}: {before}"
    if what == CAS and before == after:
        return f"fails to swap {name}: {before}"
    return f"{name}: {before} to {after}"
