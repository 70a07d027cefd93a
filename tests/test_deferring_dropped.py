"""Generators and coroutines that defer and that nobody ends: an event loop does, the collector, or a finalizer."""
from __future__ import annotations

import asyncio
import gc
import sys
import types
import weakref
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from deferring_helpers import noting_its_end
from exitstack_programs import Once
from helpers import output_of

from deferpool import defer, deferring

# ---- asynchronous generators and event loops ----------------------------------------

@pytest.mark.parametrize("cycle", [False, True])
def test_an_event_loop_closes_an_asynchronous_generator_once(cycle: bool) -> None:
    """At its end, and when the collector has found one: it knows of one generator only, and that one ends the other."""
    log: list[object] = []

    @deferring
    async def generator(box: list[Any]) -> AsyncGenerator[int, None]:
        defer(log.append, "deferred")
        try:
            yield 1
        finally:
            log.append("finally begins")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            log.append("finally ends")

    kept: list[Any] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: log.append(context["message"]))
        box: list[Any] = []
        box.append(generator(box))
        await box[0].__anext__()
        if cycle:
            del box
            gc.collect()
            for _ in range(20):
                await asyncio.sleep(0)
        else:
            kept.append(box)

    asyncio.run(main())
    assert log == ["finally begins", "finally ends", "deferred"]


def test_a_loop_that_forgets_a_generator_does_not_lose_what_it_has_deferred() -> None:
    log: list[str] = []

    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(finalizer=lambda _: None)
    try:
        made: Any = noting_its_end(log)
        with pytest.raises(StopIteration):
            made.__anext__().send(None)
        del made
        gc.collect()
    finally:
        sys.set_asyncgen_hooks(*hooks)
    assert log == ["finally", "deferred"]


def test_hooks_of_a_loop_are_left_alone() -> None:
    """Nobody is told that they change, for they do not: neither an audit nor a function that is begun at the limit."""
    code = """if True:
        import sys
        from deferpool import defer, deferring
        def audit(event, arguments):
            if event.startswith("sys.set_asyncgen"):
                raise RuntimeError(event)
        hooks = sys.get_asyncgen_hooks()
        sys.addaudithook(audit)
        @deferring
        async def generator(deeper):
            defer(int)
            if deeper:
                async for _ in generator(deeper - 1):
                    pass
            yield
        def use(deep):
            async def all():
                async for _ in generator(deep):
                    pass
            try:
                all().send(None)
            except StopIteration:
                return "done"
            except RecursionError:
                return "RecursionError"
        print(use(1), use(100_000), sys.get_asyncgen_hooks() == hooks)
    """
    assert output_of(code) == "done RecursionError True"


# ---- the collector ----------------------------------------

@contextmanager
def hooks(finalizer: Callable[[Any], None] | None) -> Iterator[None]:
    before = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(firstiter=None, finalizer=finalizer)
    try:
        yield
    finally:
        sys.set_asyncgen_hooks(*before)


def step(made: Any) -> None:
    with pytest.raises(StopIteration):
        made.__anext__().send(None)


@pytest.mark.parametrize("loop", ["none", "forgets", "raises"])
@pytest.mark.parametrize("younger", [False, True])
@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_in_a_cycle_all_that_is_left_runs_before_anything_is_cleared(loop: str, younger: bool, waits: bool) -> None:
    """The generator is older than what the cycle goes through, or younger; all of that is whole when it is used."""
    log: list[object] = []

    def fails(_: object) -> None:
        raise OSError

    class Client:
        box: list[Any]

        def __init__(self) -> None:
            self.log = log

        @deferring
        async def events(self, kept: list[Any]) -> AsyncGenerator[int, None]:
            def clean() -> None:
                self.log.append(len(mine))

            defer(clean)
            if waits:
                defer(Once, 1)
            mine: list[Any] = []
            kept.append(mine)
            yield 1

    def leave() -> None:
        kept: list[Any] = []
        client = Client()
        client.box = []
        made = client.events(kept)
        step(made)
        (kept[0] if younger else client.box).append(made)
        if younger:
            kept[0].append(client)

    finalizer = {"none": None, "forgets": lambda _: None, "raises": fails}[loop]
    with hooks(finalizer):
        leave()
        gc.collect()
    assert log == [2 * younger]


def test_a_closed_loop_forgets_what_is_in_a_cycle() -> None:
    log: list[str] = []

    def leave() -> None:
        made: Any = noting_its_end(log)
        box = [made]

        @deferring
        async def holding() -> AsyncGenerator[None, None]:
            defer(box.append, "used")
            yield

        box.append(holding())

        async def begin() -> None:
            for each in list(box):
                await each.__anext__()

        loop = asyncio.new_event_loop()
        loop.run_until_complete(begin())
        loop.close()
        box.append(box)

    leave()
    gc.collect()
    assert log == ["finally", "deferred"]


@pytest.mark.parametrize("cycle_first", [False, True])
@pytest.mark.parametrize("cycle_then", [False, True])
def test_what_a_loop_has_taken_and_lost_again(cycle_first: bool, cycle_then: bool) -> None:
    """It was told once; then the generator ends without it."""
    log: list[str] = []
    taken: list[Any] = []

    def leave(made: Any, cycle: bool) -> None:
        box = [made]
        if cycle:
            box.append(box)

    with hooks(taken.append):
        made: Any = noting_its_end(log)
        step(made)
        leave(made, cycle_first)
        del made
        gc.collect()
        assert len(taken) == 1
        assert log == []
        leave(taken.pop(), cycle_then)
        gc.collect()
    assert taken == []
    assert log == ["finally", "deferred"]

def test_a_cycle_ends_by_what_drives_it() -> None:
    """So the function's own finally clause may defer still."""
    log: list[object] = []

    @deferring
    def generator(box: list[Any]) -> Generator[None, None, None]:
        try:
            yield
        finally:
            defer(log.append, "generator")

    @deferring
    async def coroutine(box: list[Any]) -> None:
        try:
            await Once(1)
        finally:
            defer(log.append, "coroutine")

    def leave(make: Callable[[list[Any]], Any]) -> None:
        box: list[Any] = []
        box.append(make(box))
        box[0].send(None)

    for make in (generator, coroutine) * 20:
        leave(make)
        gc.collect()
    assert log == ["generator", "coroutine"] * 20


# ---- drivers that end without it ----------------------------------------

def generator(log: list[str]) -> Generator[int, None, None]:
    defer(log.append, "deferred")
    yield 1
    yield 2


async def coroutine(log: list[str]) -> None:
    defer(log.append, "deferred")
    await Once(1)
    await Once(2)


async def asynchronous(log: list[str]) -> AsyncGenerator[int, None]:
    defer(log.append, "deferred")
    await Once(1)
    await Once(2)
    yield 3


class Stepping:
    """The first step of an asynchronous generator, as if it were a generator."""

    def __init__(self, made: Any) -> None:
        self.made = made  # until the step has ended
        self.step = made.__anext__()

    def send(self, _: None) -> None:
        self.step.send(None)


@pytest.mark.parametrize("function", [generator, coroutine, asynchronous])
def test_a_driver_that_a_trace_function_ends(function: Callable[[list[str]], Any]) -> None:
    log: list[str] = []

    def trace(frame: types.FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name.startswith("drive_"):
            raise ZeroDivisionError

    made = deferring(function)(log)
    if function is asynchronous:
        made = Stepping(made)
    made.send(None)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with pytest.raises(ZeroDivisionError):
            made.send(None)
    finally:
        sys.settrace(before)
    del made
    assert log == ["deferred"]


def test_what_tells_of_a_dropped_one_may_be_called_with_anything() -> None:
    """As the collector can show it."""
    log: list[str] = []
    made: Any = noting_its_end(log)
    step(made)
    (tell,) = [each for each in gc.get_referents(made) if isinstance(each, types.BuiltinFunctionType)]

    async def another(first: object) -> AsyncGenerator[None, None]:
        yield

    ended: Any = noting_its_end([])
    step(ended)
    asyncio.run(ended.aclose())
    for anything in (None, 3, [made], another(made), ended, noting_its_end(log)):
        assert tell(anything) is None
    assert log == []
    assert tell(made) is None
    assert log == ["finally", "deferred"]
    with pytest.raises(StopAsyncIteration):
        made.__anext__().send(None)


def test_one_that_its_own_end_has_kept_has_ended() -> None:
    kept: list[Any] = []

    @deferring
    async def generator(me: list[Any]) -> AsyncGenerator[int, None]:
        defer(lambda: kept.append(me[0]))
        yield 1

    def leave() -> None:
        box: list[Any] = []
        box.append(generator(box))
        step(box[0])

    with hooks(None):
        leave()
        gc.collect()
    with pytest.raises(StopAsyncIteration):
        kept[0].__anext__().send(None)


class Thing:
    coroutine: object


def test_a_result_that_refers_to_its_own_coroutine_is_collected() -> None:
    """It has returned, and waits in a deferred call."""
    async def later() -> None:
        await Once(1)

    @deferring
    async def function(thing: Thing) -> Thing:
        defer(later)
        return thing

    thing = Thing()
    thing.coroutine = coroutine = function(thing)
    coroutine.send(None)
    gone = weakref.ref(thing)
    del thing, coroutine
    gc.collect()
    gc.collect()
    assert gone() is None
