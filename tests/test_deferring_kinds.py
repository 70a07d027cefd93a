"""What kinds of functions can defer, what they may be given, and from where in them."""
from __future__ import annotations

import types
from collections.abc import AsyncGenerator, Generator
from typing import Any

import pytest
from helpers import output_of, run_now

from deferpool import defer, deferring, recover


def test_a_generator_of_types_coroutine() -> None:
    log: list[object] = []

    async def later() -> None:
        log.append("awaited")

    @deferring
    @types.coroutine
    def waits() -> Generator[int, Any, str]:
        defer(log.append, "deferred")
        defer(later)
        yield 1
        return "returned"

    async def use() -> None:
        log.append(await waits())

    made = use()
    assert made.send(None) == 1
    with pytest.raises(StopIteration):
        made.send(None)
    assert log == ["awaited", "deferred", "returned"]
    with pytest.raises(TypeError, match="cannot be replaced: put @deferring above what does that"):
        types.coroutine(generator)


def test_a_coroutine_that_recurses_to_the_limit() -> None:
    log: list[int] = []

    @deferring
    async def deeper(n: int) -> None:
        defer(log.append, n)
        await deeper(n + 1)

    with pytest.raises(RecursionError):
        run_now(deeper(0))
    assert log == [*reversed(range(len(log)))]
    assert len(log) > 50


class MakesNone(Exception):
    def __new__(cls) -> Any:
        return 5


@pytest.mark.parametrize("thrown", [int, 5, "error", MakesNone])
def test_what_is_thrown_must_be_an_exception(thrown: Any) -> None:
    class Iterates:
        def __await__(self) -> Any:
            return iter([1])

    @deferring
    async def coroutine() -> None:
        defer(Iterates)

    made = coroutine()
    made.send(None)
    with pytest.raises(TypeError, match="BaseException, not"):
        made.throw(thrown)


@pytest.mark.parametrize("given", ["5", "a coroutine"])
def test_what_is_awaited_must_give_an_iterator(given: str) -> None:
    async def nothing() -> None:
        pass

    kept = nothing() if given == "a coroutine" else 5

    class Wrong:
        def __await__(self) -> Any:
            return kept

    @deferring
    async def coroutine() -> None:
        defer(Wrong)

    with pytest.raises(TypeError, match=r"^__await__\(\) returned "):
        run_now(coroutine())
    if given == "a coroutine":
        kept.close()  # type: ignore[union-attr]


def test_comprehensions_in_each_other() -> None:
    log: list[object] = []

    @deferring
    def function() -> None:
        [[defer(log.append, (i, j)) for j in range(2)] for i in range(2)]

    @deferring
    def recovering() -> None:
        @defer
        def _() -> None:
            log.append([repr(recover()) for _ in (1,)])
        raise KeyError("k")

    function()
    recovering()
    assert log == [(1, 1), (1, 0), (0, 1), (0, 0), ["KeyError('k')"]]


def test_a_comprehension_with_nothing_below() -> None:
    code = """if True:
        import _thread, deferpool, time, types
        def below():
            try:
                deferpool.defer(print)
            except RuntimeError as error:
                told.append(str(error))
        told = []
        below = types.FunctionType(below.__code__.replace(co_name="<listcomp>"), globals())
        _thread.start_new_thread(below, ())
        while not told:
            time.sleep(0.001)
        print("which is not @deferring" in told[0])
    """
    assert output_of(code) == "True"


@deferring
def function() -> None:
    pass


@deferring
def generator() -> Generator[None, None, None]:
    yield


@deferring
async def asynchronous() -> AsyncGenerator[None, None]:
    yield


@deferring
@types.coroutine
def iterable() -> Generator[None, None, None]:
    yield


def test_one_that_was_not_made_by_deferring_is_not_called() -> None:
    kind: Any = type(function)
    blank = kind.__new__(kind)
    for call in (blank, blank.__call__):
        with pytest.raises(TypeError):
            call()


def test_defaults_are_the_functions() -> None:
    @deferring
    def function(a: int = 1, *, b: int = 2) -> tuple[int, int]:
        return a, b

    made: Any = function
    made.__defaults__ = (3,)
    made.__kwdefaults__ = {"b": 4}
    assert function() == (3, 4)
    with pytest.raises(TypeError, match="cannot be replaced"):
        made.__code__ = made.__code__


@pytest.mark.parametrize("made", [generator, asynchronous, iterable])
@pytest.mark.filterwarnings("ignore:Assigning a code object of non-matching type:DeprecationWarning")
def test_code_of_another_kind_is_refused(made: Any) -> None:
    """As code reloaders may put in the place of what they find by way of __wrapped__."""
    def other() -> list[int]:
        return [1]

    before = made.__wrapped__.__code__
    made.__wrapped__.__code__ = other.__code__
    try:
        with pytest.raises(TypeError, match="gives list: its code has been replaced"):
            made()
    finally:
        made.__wrapped__.__code__ = before


def test_new_is_a_static_method() -> None:
    class Made:
        @deferring
        def __new__(cls) -> Any:
            defer(int)
            return object.__new__(cls)

    assert isinstance(Made(), Made)
    assert isinstance(Made().__new__(Made), Made)
    assert isinstance(vars(Made)["__new__"], staticmethod)


def test_methods_that_python_makes_class_methods() -> None:
    log: list[object] = []

    class Base:
        @deferring
        def __init_subclass__(cls) -> None:
            defer(log.append, cls.__name__)

        @deferring
        def __class_getitem__(cls, item: object) -> object:
            defer(log.append, item)
            return cls

    class Derived(Base):
        pass

    assert Derived[int] is Derived  # type: ignore[misc]
    assert log == ["Derived", int]


# ---- limits ----------------------------------------

def test_without_memory() -> None:
    """Whichever allocation fails, there is a MemoryError, or all is well."""
    pytest.importorskip("_testcapi")
    code = """if True:
        import _testcapi, sys
        from deferpool import defer, deferring, recover
        @deferring
        def generator():
            defer(int)
            yield
        @deferring
        async def asynchronous():
            yield
        @deferring
        async def coroutine():
            pass
        @deferring
        def refused():
            defer(3)
        def elsewhere():
            defer(int)
        @deferring
        def wrong():
            recover(others=3)
        told = set()
        sys.unraisablehook = lambda _: None         # what cannot be closed without memory
        def use(make, first):
            error = None
            if first is not None:
                _testcapi.set_nomemory(first, first + 1)
            try:
                make()
            except BaseException as raised:
                error = raised
            finally:
                _testcapi.remove_mem_hooks()
            if isinstance(error, SystemError) and "built-in" not in str(error):
                return                              # Python's own functions may forget the error, and say so
            if error is not None:
                told.add(type(error).__name__)
        for make in (generator, asynchronous, coroutine, refused, elsewhere, wrong) * 2:
            use(make, None)
            for first in range(40):
                use(make, first)
        print(*sorted(told))
    """
    assert output_of(code) == "MemoryError RuntimeError TypeError"


def test_a_long_chain_of_generators_ends_in_turn() -> None:
    code = """if True:
        import sys
        from deferpool import defer, deferring
        sys.unraisablehook = lambda _: None     # beyond the limit of recursion nothing can be closed
        @deferring
        def generator(before):
            defer(id, before)
            del before
            yield
        made = None
        for _ in range(20000):
            made = generator(made)
            next(made)
        del made
        print("ended")
    """
    assert output_of(code) == "ended"
