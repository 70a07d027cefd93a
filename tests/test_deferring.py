"""@deferring keeps what a function is: names, signature, pickling, the answers of inspect, its place in a class."""
from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import pickle
import types
import typing
import weakref
from collections.abc import AsyncGenerator, Generator
from typing import Any

import pytest

from deferpool import defer, deferring

LOG: list[object] = []


def plain(x: int, /, y: str = "y", *rest: int, z: float, **others: object) -> bool:
    """What it does."""
    defer(LOG.append, x)
    return True


def generator(x: int) -> Generator[int, None, None]:
    """A generator."""
    defer(LOG.append, x)
    yield x


async def coroutine(x: int) -> int:
    """A coroutine."""
    defer(LOG.append, x)
    return x


async def asynchronous_generator(x: int) -> AsyncGenerator[int, None]:
    """An asynchronous generator."""
    defer(LOG.append, x)
    yield x


FUNCTIONS: list[Any] = [plain, generator, coroutine, asynchronous_generator]
DEFERRING: list[Any] = [deferring(function) for function in FUNCTIONS]
pickled = deferring(plain)
pickled.__qualname__ = "pickled"


@pytest.mark.parametrize(("function", "made"), list(zip(FUNCTIONS, DEFERRING, strict=True)))
def test_names_and_signature(function: Any, made: Any) -> None:
    for name in ("__name__", "__qualname__", "__doc__", "__module__", "__annotations__", "__defaults__",
                 "__kwdefaults__", "__code__", "__globals__", "__closure__"):
        assert getattr(made, name) == getattr(function, name), name
    assert made.__wrapped__ is function
    assert inspect.signature(made) == inspect.signature(function)
    assert typing.get_type_hints(made) == typing.get_type_hints(function)
    assert inspect.getsource(made) == inspect.getsource(function)
    assert repr(made).startswith(f"<deferring function {function.__qualname__} at 0x")


@pytest.mark.parametrize(("function", "made"), list(zip(FUNCTIONS, DEFERRING, strict=True)))
@pytest.mark.parametrize("question", [
    inspect.isfunction, inspect.isroutine, inspect.ismethod, inspect.isbuiltin, inspect.isclass,
    inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction, callable])
def test_inspect_answers_the_same(function: Any, made: Any, question: Any) -> None:
    assert question(made) == question(function)


def test_attributes_can_be_set() -> None:
    @deferring
    def function() -> None: ...

    function.note = 5  # type: ignore[attr-defined]
    assert function.note == 5  # type: ignore[attr-defined]
    assert vars(function)["note"] == 5
    assert weakref.ref(function)() is function
    with pytest.raises(AttributeError):
        function.other  # type: ignore[attr-defined]  # noqa: B018


def test_it_is_pickled_and_copied_as_functions_are() -> None:
    assert pickle.loads(pickle.dumps(pickled)) is pickled
    assert copy.copy(pickled) is copy.deepcopy(pickled) is pickled


class Class:
    @deferring
    def method(self, x: int) -> tuple[Class, int]:
        defer(LOG.append, x)
        return self, x

    @staticmethod
    @deferring
    def static(x: int) -> int:
        defer(LOG.append, x)
        return x

    @classmethod
    @deferring
    def of_class(cls, x: int) -> tuple[type[Class], int]:
        defer(LOG.append, x)
        return cls, x

    @deferring
    @staticmethod
    def static_inside(x: int) -> int:
        defer(LOG.append, x)
        return x

    @deferring
    @classmethod
    def of_class_inside(cls, x: int) -> tuple[type[Class], int]:
        defer(LOG.append, x)
        return cls, x

    @property
    @deferring
    def attribute(self) -> int:
        defer(LOG.append, 1)
        return 1


def test_methods() -> None:
    one = Class()
    LOG.clear()
    assert one.method(1) == Class.method(one, 1) == (one, 1)
    assert one.static(2) == Class.static(2) == 2
    assert one.of_class(3) == Class.of_class(3) == (Class, 3)
    assert one.static_inside(4) == Class.static_inside(4) == 4
    assert one.of_class_inside(5) == Class.of_class_inside(5) == (Class, 5)
    assert one.attribute == 1
    assert LOG == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 1]
    assert inspect.ismethod(one.method)
    assert one.method.__self__ is one
    assert str(inspect.signature(one.method)) == "(x: 'int') -> 'tuple[Class, int]'"


def test_it_is_called_in_every_way() -> None:
    LOG.clear()
    made: Any = DEFERRING[0]
    assert made(1, z=1)
    assert made(2, "y", 3, 4, z=1, other=2)
    assert made(*(3,), **{"z": 1})
    assert made.__call__(4, z=1)
    assert functools.partial(made, 5)(z=1)
    assert list(map(functools.partial(made, z=1), [6]))
    assert LOG == [1, 2, 3, 4, 5, 6]
    with pytest.raises(TypeError, match="plain"):
        made()


@pytest.mark.parametrize("index", [1, 2, 3])
def test_wrong_arguments_are_refused_when_it_is_called(index: int) -> None:
    """Not when what it returns is started."""
    with pytest.raises(TypeError, match=FUNCTIONS[index].__name__):
        DEFERRING[index]()


@pytest.mark.parametrize("thing", [len, int, 5, functools.partial(plain), functools.lru_cache(plain), Class().method])
def test_anything_else_is_refused(thing: Any) -> None:
    with pytest.raises(TypeError, match="@deferring takes a Python function"):
        deferring(thing)


def test_what_generators_and_coroutines_are_called() -> None:
    made = DEFERRING[1](1)
    assert isinstance(made, types.GeneratorType)
    assert (made.__name__, made.__qualname__) == ("generator", "generator")
    coroutine = DEFERRING[2](1)
    assert inspect.iscoroutine(coroutine)
    assert coroutine.__qualname__ == "coroutine"
    coroutine.close()
    assert inspect.isasyncgen(DEFERRING[3](1))
    assert asyncio.iscoroutinefunction(DEFERRING[2])


def test_other_decorators_around_it() -> None:
    calls: list[object] = []

    def noted(function: Any) -> Any:
        @functools.wraps(function)
        def around(*args: Any) -> Any:
            calls.append(args)
            return function(*args)

        return around

    @noted
    @deferring
    def function(x: int) -> int:
        defer(calls.append, "deferred")
        return x

    assert function(3) == 3
    assert calls == [(3,), "deferred"]
    cached = functools.lru_cache(deferring(lambda x: x))
    assert cached(2) == cached(2) == 2
    assert cached.cache_info().hits == 1


def test_a_decorator_between_them_is_named() -> None:
    def around(function: Any) -> Any:
        return lambda: function()

    @deferring
    @around
    def function() -> None:
        defer(print)

    with pytest.raises(RuntimeError, match="function.* not @deferring"):
        function()


def test_a_function_that_is_made_anew_is_freed() -> None:
    def make() -> weakref.ref[Any]:
        held = object()

        @deferring
        def function() -> object:
            return held

        assert function() is held
        return weakref.ref(function)

    assert make()() is None


@pytest.mark.skipif(not hasattr(inspect, "markcoroutinefunction"), reason="Python 3.12 has marks")
def test_a_function_that_is_marked_as_a_coroutine_function_ends_when_it_returns() -> None:
    ended: list[str] = []

    async def asked() -> str:
        ended.append("awaited")
        return "answer"

    def asks() -> Any:
        defer(ended.append, "ended")
        return asked()

    made = deferring(inspect.markcoroutinefunction(asks))  # type: ignore[attr-defined, unused-ignore]
    assert inspect.iscoroutinefunction(made)
    assert asyncio.run(made()) == "answer"
    assert ended == ["ended", "awaited"]
