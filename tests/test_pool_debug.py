"""debug=True: misuse is found, and its place is told."""
from __future__ import annotations

import _thread
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from helpers import in_thread, output_of, run_threads
from pool_helpers import Thing, assert_at_rest

import deferpool
from deferpool import Pool
from deferpool._watch import Watch

OPTIONS: list[dict[str, Any]] = [{}, {"max_live": 50}, {"check": lambda _: True, "reset": id}]


@pytest.fixture(params=OPTIONS, ids=["plain", "limited", "asked"])
def pool(request: pytest.FixtureRequest) -> Pool[Any]:
    return Pool(Thing, debug=True, **request.param)


def test_double_release_tells_where_the_first_was(pool: Pool[Any]) -> None:
    thing = pool.acquire()
    pool.release(thing)
    for call in (pool.release, pool.discard):
        with pytest.raises(ValueError, match=r"is released twice: it was at .*test_pool_debug.py:\d+"):
            call(thing)
    assert_at_rest(pool)


def test_foreign_object(pool: Pool[Any]) -> None:
    other: Pool[Thing] = Pool(Thing, debug=True)
    strangers: list[Any] = [Thing(), [], other.acquire()]
    for thing in strangers:
        for call in (pool.release, pool.discard):
            with pytest.raises(ValueError, match="is no object of <deferpool.Pool of Thing>"):
                call(thing)
    assert_at_rest(pool)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del other


def test_what_was_discarded_is_foreign(pool: Pool[Any]) -> None:
    thing = pool.acquire()
    pool.discard(thing)
    with pytest.raises(ValueError, match="is no object of"):
        pool.release(thing)
    assert_at_rest(pool)


class Parser:
    def __init__(self) -> None:
        self.fed: list[int] = []

    def feed(self, n: int) -> None:
        self.fed.append(n)

    def __len__(self) -> int:
        return len(self.fed)

    def __call__(self) -> None: ...


class Slotted:
    __slots__ = ("fed",)


@pytest.mark.parametrize(
    "use",
    [
        lambda parser: parser.feed(1), lambda parser: parser.fed, lambda parser: setattr(parser, "fed", []), len, bool,
        lambda parser: parser(), lambda parser: delattr(parser, "fed"),
    ],
)
def test_use_after_release(use: Callable[[Any], object]) -> None:
    pool: Pool[Any] = Pool(Parser, debug=True, reset=lambda parser: parser.fed.clear(), check=lambda it: not it.fed)
    parser = pool.acquire()
    parser.feed(3)
    pool.release(parser)
    with pytest.raises(RuntimeError, match=r"after its release: this Parser of .* was released at .*_debug.py:\d+"):
        use(parser)
    assert isinstance(parser, Parser)
    assert "Parser object at" in repr(parser)
    again = pool.acquire()
    assert again is parser
    assert type(parser) is Parser
    parser.feed(1)
    assert len(parser) == 1
    pool.release(parser)
    assert_at_rest(pool)


def test_what_is_dropped_is_itself_again() -> None:
    dropped: list[tuple[type, list[int]]] = []
    pool: Pool[Any] = Pool(Parser, debug=True, on_drop=lambda parser: dropped.append((type(parser), parser.fed)))
    pool.release(pool.acquire())
    pool.clear()
    assert dropped == [(Parser, [])]
    pool.discard(pool.acquire())
    assert dropped == [(Parser, [])] * 2


@dataclass(frozen=True)
class Frozen:
    x: int = 1


def test_an_object_that_cannot_be_set() -> None:
    pool: Pool[Any] = Pool(Frozen, debug=True)
    thing = pool.acquire()
    pool.release(thing)
    with pytest.raises(RuntimeError, match="used after its release"):
        _ = thing.x
    assert pool.acquire() is thing
    assert thing.x == 1
    pool.release(thing)


@pytest.mark.parametrize("step", ["taken", "given", "rests", "wakes"])
def test_an_interrupt_at_any_step_loses_nothing(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dropped: list[Any] = []
    pool: Pool[Any] = Pool(Parser, debug=True, max_live=1, on_drop=dropped.append)
    pool.release(pool.acquire())
    before, calls = getattr(Watch, step), []

    def interrupted(self: Watch, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return before(self, *arguments)

    kept: list[Any] = []

    def use() -> None:
        kept.append(pool.acquire(timeout=0))
        pool.release(kept[0])

    monkeypatch.setattr(Watch, step, interrupted)
    with pytest.raises(KeyboardInterrupt):
        use()
    if step == "given":  # it is out still
        pool.release(kept[0])
    assert len(dropped) == (step != "given")
    assert_at_rest(pool)
    pool.release(pool.acquire(timeout=0))


def test_an_interrupt_while_it_is_dropped_comes_later() -> None:
    code = """
import deferpool
from deferpool import Pool
from deferpool._watch import Watch
def dropped(self, obj):
    raise KeyboardInterrupt
Watch.dropped = dropped
told = []
pool = Pool(list, debug=True, max_live=1, on_drop=told.append)
thing = pool.acquire()
try:
    pool.discard(thing)
    for _ in range(1_000): pass
except KeyboardInterrupt:
    print(told == [thing], pool.stats()["live"], pool.stats()["destroyed"])
"""
    assert output_of(code) == "True 0 1"


def test_slots_too() -> None:
    pool: Pool[Any] = Pool(Slotted, debug=True)
    thing = pool.acquire()
    thing.fed = 1
    pool.release(thing)
    with pytest.raises(RuntimeError, match="used after its release"):
        thing.fed = 2
    assert pool.acquire() is thing
    assert thing.fed == 1
    pool.release(thing)


def test_a_class_is_not_kept_by_what_its_objects_were_meanwhile() -> None:
    code = """
import gc, weakref
import deferpool
from deferpool import Pool
def use():
    class Passing: ...
    pool = Pool(Passing, debug=True)
    pool.release(pool.acquire())
    return weakref.ref(Passing)
reference = use()
for _ in range(5): gc.collect()
print(reference())
"""
    assert output_of(code) == "None"


def test_no_class_hears_of_a_subclass() -> None:
    subclasses: list[type] = []

    class Registry:
        def __init_subclass__(cls) -> None:
            subclasses.append(cls)

    class Mine(Registry): ...

    pool: Pool[Any] = Pool(Mine, debug=True)
    thing = pool.acquire()
    pool.release(thing)
    assert subclasses == [Mine]
    assert pool.acquire() is thing
    pool.release(thing)


def test_of_two_threads_that_release_it_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    pool: Pool[Any] = Pool(list, debug=True)
    thing = pool.acquire()
    given, errors = Watch.given, []

    def slowly(self: Watch, obj: object) -> None:
        time.sleep(0.02)
        given(self, obj)

    def release() -> None:
        try:
            pool.release(thing)
        except ValueError as error:
            errors.append(error)

    monkeypatch.setattr(Watch, "given", slowly)
    run_threads(release, release)
    assert len(errors) == 1
    assert_at_rest(pool)


def test_a_call_from_no_python_code() -> None:
    pool: Pool[Any] = Pool(list, debug=True)
    thing = pool.acquire()
    _thread.start_new_thread(pool.release, (thing,))
    while pool.stats()["live"]:
        time.sleep(0.001)
    with pytest.raises(ValueError, match="it was at nowhere in Python"):
        pool.release(thing)


def test_a_repr_that_fails_is_not_needed() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise ZeroDivisionError

    for options in ({"debug": True}, {"max_live": 3}):
        pool: Pool[Any] = Pool(Broken, **options)
        with pytest.raises(ValueError, match="Broken object at"):
            pool.release(Broken())


class Final:
    def __init_subclass__(cls) -> None:
        raise TypeError("final")


@pytest.mark.parametrize("new", [list, dict, bytearray, Final])
def test_objects_that_stay_what_they_are(new: Callable[[], Any]) -> None:
    pool: Pool[Any] = Pool(new, debug=True)
    thing = pool.acquire()
    pool.release(thing)
    assert type(thing) is new
    assert pool.acquire() is thing
    pool.release(thing)


def test_an_object_that_is_lost(pool: Pool[Any]) -> None:
    with pytest.warns(ResourceWarning, match=r"was never released: acquired at .*test_pool_debug.py:\d+"):
        pool.acquire()


def test_one_without_weak_references_is_missed_when_the_pool_ends() -> None:
    pool: Pool[Any] = Pool(list, debug=True)
    things = [pool.acquire(), pool.acquire()]
    assert list(pool.stats()["out"].values()) == [2]
    pool.release(things.pop())
    with pytest.warns(ResourceWarning, match=r"was never released: acquired at .*test_pool_debug.py:\d+") as warned:
        del pool
    assert len(warned) == 1


def test_each_is_told_of_when_warnings_are_errors() -> None:
    code = """if True:
        import sys, warnings, deferpool
        warnings.simplefilter("error", ResourceWarning)
        told = []
        sys.unraisablehook = lambda it: told.append(it.exc_type.__name__)
        pool = deferpool.Pool(list, debug=True)
        things = [pool.acquire() for _ in range(3)]
        del pool
        print(told)
    """
    assert output_of(code) == "['ResourceWarning', 'ResourceWarning', 'ResourceWarning']"


def test_leases_and_tasks_tell_the_place_of_their_user() -> None:
    import asyncio

    pool: Pool[Any] = Pool(Thing, debug=True)
    with pool.lease():
        assert [place.partition(":")[0] for place in pool.stats()["out"]] == [__file__]

    async def body() -> None:
        async with pool.lease():
            (place,) = pool.stats()["out"]
            assert place.startswith(__file__)

    asyncio.run(body())
    assert pool.stats()["out"] == {}


def test_threads(pool: Pool[Any]) -> None:
    def work() -> None:
        for _ in range(40):
            things = [pool.acquire(timeout=30) for _ in range(10)]
            for thing in things:
                pool.release(thing)
            del things, thing

    run_threads(*[work] * 4)
    assert pool.stats()["out"] == {}
    assert_at_rest(pool)


def test_environment() -> None:
    code = "import deferpool; print(deferpool.Pool(list).debug, deferpool.Pool(list, debug=False).debug)"
    assert output_of(code, DEFERPOOL_DEBUG="1") == "True False"
    assert output_of(code) == "False False"


def test_an_object_that_is_cached_elsewhere_was_not_lost() -> None:
    """`new` hands out what it has handed out before, and a thread on another P does not see that it is cached."""
    things: list[Thing] = []

    def new() -> Thing:
        things[:] = things or [Thing()]
        return things[0]

    pool = Pool(new, debug=True, sched=deferpool.Sched(2, portable=True, clear_on_gc=False))
    in_thread(lambda: pool.release(pool.acquire()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        in_thread(lambda: things.append(pool.acquire()))  # a new thread starts on the next P
    assert pool.stats()["created"] == len(things) == 2
    pool.discard(things[-1])
