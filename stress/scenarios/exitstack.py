"""exitstack: exit stacks, hundreds inside one another, unwind, suppress and raise; asynchronous ones move on.

It is what a web framework does with each request. What is entered and what is called back gives back the records that
it was given: one that is forgotten, called twice or called in a wrong order does not give back its own.
"""
from __future__ import annotations

from types import TracebackType

from deferpool import AsyncExitStack, ExitStack
from stress import endings
from stress.endings import MOST_CALLS, Endings, Failed, Pause
from stress.plan import Options, Plan
from stress.runner import Running

RECORDS = 2 * (MOST_CALLS + 1)  # of one stack: one for each of its entries


def plans(options: Options) -> list[Plan]:
    return [endings.plan("exitstack", options, mode, (endings.SIZE,), RECORDS, during) for mode in options.modes]


def during(running: Running) -> None:
    endings.run(running, nest, half)


class Suppressing:
    """A context manager that stops an exception of ours, and counts as one call that was expected."""

    def __init__(self, ends: Endings, where: object) -> None:
        self.ends = ends
        self.where = where
        self.arguments: tuple[object, ...] = ()

    def __enter__(self) -> None:
        self.arguments = self.ends.expect(fails=False)

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> bool:
        self.ends.ran(*self.arguments)
        if not isinstance(error, Failed):
            return False
        self.ends.suppressed(error, self.where)
        return True

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> bool:
        return self.__exit__(kind, error, trace)


def nest(ends: Endings, depth: int) -> BaseException | None:
    """A stack, and inside it others to this depth; returns how it ended."""
    random = ends.draw()
    try:
        with ExitStack() as stack:
            for number in range(random % (MOST_CALLS + 1)):
                stack.callback(ends.ran, *ends.expect())
                if number == random // 8 % 4:
                    stack.enter_context(Suppressing(ends, depth))
            if random // 32 % 8 == 0:
                with stack.pop_all() as moved:
                    moved.callback(ends.ran, *ends.expect())
            if depth:
                error = nest(ends, depth - 1)
                if error is not None:
                    raise error
            elif random // 256 % 4 == 0:
                ends.throw(Failed(random))
    except Failed as error:
        return error
    return None


async def half(ends: Endings) -> None:
    random = ends.draw()
    async with AsyncExitStack() as stack:
        for second in range(2):
            for number in range(random % (MOST_CALLS + 1)):
                if random // 8 % 2:
                    stack.callback(ends.ran, *ends.expect())
                else:
                    stack.push_async_callback(ends.ran_later, *ends.expect())
                if number == random // 16 % 4:
                    await stack.enter_async_context(Suppressing(ends, "the coroutine"))
            if not second:
                with ends.closing():
                    await Pause()
        if random // 64 % 4 == 0:
            ends.throw(Failed(random))
