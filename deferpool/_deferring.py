"""@deferring, and the generators and coroutines that drive those of deferring functions."""
from __future__ import annotations

import inspect
import types
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, TypeVar

from deferpool import _bodies, _defer, _generators
from deferpool._bodies import Body

Function = TypeVar("Function", bound=Callable[..., Any])


def deferring(function: Function, /) -> Function:
    """Lets a function use `defer`: what it has deferred runs when it ends, last in, first out.

    For functions, methods, static and class methods, generators, coroutines and asynchronous generators. Name,
    signature, pickling and the answers of `inspect` stay.

    Raises TypeError for anything else: put @deferring next to the function itself. Thread-safe.
    """
    made: Any
    if isinstance(function, (staticmethod, classmethod)):
        made = type(function)(deferring(function.__func__))
    elif type(function) is not types.FunctionType:
        raise TypeError(f"@deferring takes a Python function, not {function!r}: put it next to the function itself")
    else:
        flags = function.__code__.co_flags  # what it is, whatever it was marked as
        if flags & inspect.CO_ASYNC_GENERATOR:
            made = _generators.make(function, drive_asynchronous_generator)
        elif flags & inspect.CO_COROUTINE:
            made = _generators.make(function, drive_coroutine)
        elif flags & inspect.CO_ITERABLE_COROUTINE:
            made = _generators.make(function, drive_iterable_coroutine)
        elif flags & inspect.CO_GENERATOR:
            made = _generators.make(function, drive_generator)
        else:
            made = _defer.deferring_function(function)
    return made  # type: ignore[no-any-return]


# ---- drivers: all that they do is done by a Body ------------------------------------------------------------------
#
# Each hides its own line from tracebacks by going on with a bare `raise`, which adds none.

def drive_generator(body: Body) -> Generator[Any, Any, Any]:
    try:
        return (yield from body)
    except BaseException:
        if body.returned:
            return body.result
        raise


async def drive_coroutine(body: Body) -> Any:
    try:
        return await body
    except BaseException:
        if body.returned:
            return body.result
        raise


async def drive_asynchronous_generator(body: Body) -> AsyncGenerator[Any, Any]:
    while True:
        try:
            while True:
                try:
                    value = await body
                    while not body.ended:
                        body.gives((yield value))
                        value = await body
                    return
                except BaseException:
                    if body.returned:
                        return
                    if not body.takes:
                        raise
        except BaseException:  # a signal's handler has raised on the way back to the loop's begin
            if not body.takes:
                raise


drive_iterable_coroutine = types.coroutine(types.FunctionType(drive_generator.__code__, globals()))

_bodies.drivers(drive_generator, drive_coroutine, drive_asynchronous_generator, drive_iterable_coroutine)
