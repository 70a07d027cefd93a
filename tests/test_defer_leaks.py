"""Nothing is kept: a million cycles of each way that a deferring function can end."""
from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

import pytest
from helpers import all_references

import deferpool
from deferpool import defer, deferring, recover

CYCLES = 1_000_000


class Error(Exception):
    pass


def cleanup(*args: object, **kwargs: object) -> None: ...


def stops() -> None:
    recover(returning=argument)


argument = object()


@deferring
def returns() -> object:
    defer(cleanup, argument, named=argument)
    return argument


@deferring
def raises() -> None:
    defer(cleanup, argument)
    raise Error


@deferring
def recovers() -> object:
    defer(stops)
    raise Error


@deferring
def replaces() -> None:
    defer(raises)
    raise Error


class Forever:
    def __await__(self) -> Generator[None, None, None]:
        yield


forever = Forever()


@deferring
async def waits() -> None:
    defer(cleanup, argument)
    await forever


def normal() -> None:
    returns()


def raising() -> None:
    with suppress(Error):
        raises()


def replacing() -> None:
    with suppress(Error):
        replaces()


def recovering() -> None:
    recovers()


def cancelled() -> None:
    coroutine = waits()
    coroutine.send(None)
    with suppress(asyncio.CancelledError):
        coroutine.throw(asyncio.CancelledError)


def forgotten() -> None:
    waits().send(None)


def refused() -> None:
    with suppress(RuntimeError):
        defer(cleanup)


def defined_anew() -> None:
    @deferring
    def function() -> None:
        defer(cleanup)

    function()


def memory() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.parametrize(("path", "cycles"), [
    (normal, CYCLES), (raising, CYCLES), (recovering, CYCLES), (replacing, CYCLES // 2), (cancelled, CYCLES),
    (forgotten, CYCLES // 2), (refused, CYCLES // 2), (defined_anew, CYCLES // 10)])
def test_flat(path: Callable[[], None], cycles: int) -> None:
    def all_counts() -> list[Any]:
        gc.collect()
        things = (argument, cleanup, stops, returns, raises, recovers, replaces, waits, Error, forever, None)
        return [len(gc.get_objects()), deferpool.stats()["live"], *map(sys.getrefcount, things), all_references()]

    for _ in range(1000):
        path()
    before, resident = all_counts(), memory()
    for _ in range(cycles):
        path()
    after = all_counts()
    assert after[0] - before[0] < 50, (before, after)  # fewer: of earlier tests, which may end late without a GIL
    assert all(abs(new - old) < 50 for new, old in zip(after[1:], before[1:], strict=True)), (before, after)
    assert memory() - resident < 2**20
