"""@deferring, and the generators and coroutines that drive those of deferring functions."""
from __future__ import annotations

import inspect
import types
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, TypeVar

from deferpool import _bodies, _defer
from deferpool._bodies import Body, hide

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
    elif function.__code__.co_flags & inspect.CO_ASYNC_GENERATOR:  # what it is, whatever it was marked as
        made = _bodies.make(function, drive_asynchronous_generator, awaits=True)
    elif function.__code__.co_flags & inspect.CO_COROUTINE:
        made = _bodies.make(function, drive_coroutine, awaits=True)
    elif function.__code__.co_flags & inspect.CO_GENERATOR:
        made = _bodies.make(function, drive_generator, awaits=False)
    else:
        made = _defer.make(function)
    return made  # type: ignore[no-any-return]


# ---- drivers: first the function's own, and then one deferred call after the other --------------------------------
#
# Each hides its own line from tracebacks by going on with a bare `raise`, which adds none.

def drive_generator(body: Body) -> Generator[Any, Any, Any]:
    try:
        try:
            body.returned((yield from body))
        except BaseException:
            body.raised()
        while body.pending:
            body.call()
        return (yield from body.finish())
    except BaseException:
        hide()
        raise


async def drive_coroutine(body: Body) -> Any:
    try:
        try:
            body.returned(await body)
        except BaseException:
            body.raised()
        while body.pending:
            try:
                if body.call():
                    await body
            except BaseException:
                body.raised()
        return await body.finish()
    except BaseException:
        hide()
        raise


async def drive_asynchronous_generator(body: Body) -> AsyncGenerator[Any, Any]:
    generator = body.generator
    try:
        try:
            value = await body.step(generator.__anext__())
            while True:
                try:
                    sent = yield value
                except GeneratorExit:
                    await body.step(generator.aclose())
                    raise
                except BaseException as error:
                    hide()
                    value = await body.step(generator.athrow(error))
                else:
                    value = await body.step(generator.asend(sent))
        except StopAsyncIteration:
            body.returned(None)
        except BaseException:
            body.raised()
        while body.pending:
            try:
                if body.call():
                    await body
            except BaseException:
                body.raised()
        await body.finish()
    except BaseException:
        hide()
        raise


_bodies.drivers(drive_generator, drive_coroutine, drive_asynchronous_generator)
