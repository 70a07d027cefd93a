"""Pool: what each option does, each way in which an object leaves, and bad input. One thread."""
from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from helpers import Mode, one_cpu
from pool_helpers import Thing, assert_at_rest, fill, one_at_a_time, raising, small

import deferpool
from deferpool import Pool


def test_what_was_released_last_is_acquired_first(mode: Mode) -> None:
    with one_cpu(mode):
        pool: Pool[Thing] = small(mode)
        things = [pool.acquire() for _ in range(5)]
        assert len(set(map(id, things))) == 5
        for thing in things:
            pool.release(thing)
        assert [pool.acquire() for _ in range(5)] == things[::-1]


def test_figures_are_the_engine_s(mode: Mode) -> None:
    pool = small(mode, cap=4, limit=10, name="things")
    fill(pool, 100)
    stats = pool.stats()
    assert pool.bound == pool.sched.procs * 4 + 10 == stats["bound"]
    assert stats["central"] == 10
    assert stats["dropped"] == stats["destroyed"] == 100 - stats["cached"]
    assert (stats["name"], pool.name, stats["waiting"], stats["max_live"]) == ("things", "things", 0, None)
    assert_at_rest(pool)


def test_a_burst_stays_when_there_is_no_limit(mode: Mode) -> None:
    pool = small(mode, limit=None)
    fill(pool, 5_000)
    assert (pool.stats()["cached"], pool.bound, pool.limit) == (5_000, None, None)


@pytest.mark.parametrize("arguments", [(), (None,), (0,), (1.5,), (True,)])
def test_without_max_live_a_timeout_changes_nothing(arguments: tuple[Any, ...]) -> None:
    pool = Pool(Thing)
    assert type(pool.acquire(*arguments)) is Thing
    with pool.lease(*arguments) as thing:
        assert type(thing) is Thing


def test_names_of_arguments() -> None:
    pool = Pool(new=Thing)
    assert type(pool.acquire(timeout=2)) is Thing
    with pool.lease(timeout=2) as thing:
        assert type(thing) is Thing


# ---- options ------------------------------------------------------------------------------------------------------

def test_reset_is_called_at_release() -> None:
    pool: Pool[list[int]] = Pool(list, reset=list.clear)
    thing = pool.acquire()
    thing += [1, 2]
    pool.release(thing)
    assert thing == []
    assert pool.acquire() is thing


@one_at_a_time
def test_what_reset_raises_reaches_the_caller_and_the_object_is_dropped(error: BaseException) -> None:
    dropped: list[Any] = []
    pool = Pool(Thing, reset=raising(error), on_drop=dropped.append)
    thing = pool.acquire()
    with pytest.raises(type(error)) as raised:
        pool.release(thing)
    assert raised.value is error
    assert dropped == [thing]
    assert_at_rest(pool)
    assert pool.stats()["cached"] == 0


def test_check_is_asked_of_cached_objects_only(mode: Mode) -> None:
    with one_cpu(mode):
        asked: list[Any] = []
        dropped: list[Any] = []

        def check(thing: Thing) -> Any:
            asked.append(thing)
            return thing.held

        pool = small(mode, check=check, on_drop=dropped.append)
        things = [pool.acquire() for _ in range(4)]
        assert asked == []
        for held, thing in enumerate(things):
            thing.held = held == 1
            pool.release(thing)
        assert pool.acquire() is things[1]
        assert asked == [things[3], things[2], things[1]]
        assert dropped == [things[3], things[2]]
        assert_at_rest(pool, live=1)
        new = pool.acquire()  # the last one cached is bad, too
        assert new not in things
        assert asked[3:] == dropped[2:] == [things[0]]
        assert_at_rest(pool, live=2)


@one_at_a_time
def test_what_check_raises_reaches_the_caller_and_the_object_is_dropped(error: BaseException) -> None:
    dropped: list[Any] = []
    pool = Pool(Thing, check=raising(error), on_drop=dropped.append)
    thing = pool.acquire()
    pool.release(thing)
    with pytest.raises(type(error)):
        pool.acquire()
    assert dropped == [thing]
    assert_at_rest(pool)


class Undecided:
    def __bool__(self) -> bool:
        raise ArithmeticError("neither")


def test_a_check_whose_answer_has_no_truth_is_one_that_raises() -> None:
    pool: Pool[Thing] = Pool(Thing, check=lambda _: Undecided())
    pool.release(pool.acquire())
    with pytest.raises(ArithmeticError):
        pool.acquire()
    assert_at_rest(pool)


@one_at_a_time
@pytest.mark.parametrize("options", [{}, {"check": bool}, {"max_live": 3}, {"debug": True}], ids=str)
def test_what_new_raises_reaches_the_caller(error: BaseException, options: dict[str, Any]) -> None:
    pool: Pool[Thing] = Pool(raising(error), **options)
    for _ in range(5):
        with pytest.raises(type(error)) as raised:
            pool.acquire(timeout=2)
        assert raised.value is error
    assert_at_rest(pool)
    assert pool.stats()["created"] == 0


@pytest.mark.parametrize("options", [{}, {"check": bool}, {"max_live": 3}, {"debug": True}], ids=str)
def test_new_must_not_return_none(options: dict[str, Any]) -> None:
    pool: Pool[Any] = Pool(lambda: None, **options)
    for _ in range(5):
        with pytest.raises(TypeError, match="new returned None"):
            pool.acquire(timeout=2)
    assert_at_rest(pool)


def test_new_may_use_the_pool() -> None:
    depth = iter(range(3))

    def new() -> list[Any]:
        return [pool.acquire()] if next(depth, None) is not None else []

    pool: Pool[list[Any]] = Pool(new)
    assert pool.acquire() == [[[[]]]]
    assert pool.stats()["created"] == 4


# ---- on_drop: each way of leaving -------------------------------------------------------------------------------

def test_past_the_limit(mode: Mode) -> None:
    dropped: list[Any] = []
    pool = small(mode, cap=2, limit=0, on_drop=dropped.append)
    fill(pool, 50)
    assert len(dropped) == pool.stats()["dropped"] == 50 - pool.stats()["cached"] > 0
    assert len(set(map(id, dropped))) == len(dropped)
    assert_at_rest(pool)


@pytest.mark.parametrize("way", ["clear", "close", "drain", "clearpools", "collect", "del"])
def test_cleared(mode: Mode, way: str) -> None:
    dropped: list[Any] = []
    sched = deferpool.Sched(mode.sched().procs, portable=mode.name == "portable")
    pool = Pool(Thing, cap=4, on_drop=dropped.append, sched=sched)
    fill(pool, 100)
    before = pool.stats()
    if way == "del":
        del pool
        assert len(dropped) == 100
        return
    if way == "clearpools":
        sched.clearpools()
    elif way == "collect":
        import gc
        gc.collect()
    else:
        getattr(pool, way)()
    leave = before["central"] if way in ("clearpools", "collect") else 100
    assert len(dropped) == len(set(map(id, dropped))) == leave
    assert pool.stats()["cached"] == 100 - leave
    assert_at_rest(pool)


def test_collections_leave_a_pool_alone_that_says_so() -> None:
    import gc

    pool = Pool(Thing, clear_on_gc=False)
    fill(pool, 100)
    gc.collect()
    assert (pool.stats()["cached"], pool.clear_on_gc) == (100, False)


def test_discarded() -> None:
    dropped: list[Any] = []
    pool = Pool(Thing, reset=raising(AssertionError()), on_drop=dropped.append)
    thing = pool.acquire()
    pool.discard(thing)
    assert dropped == [thing]
    assert pool.acquire() is not thing
    assert_at_rest(pool, live=1)


def test_what_on_drop_raises_is_told_and_nothing_else_happens() -> None:
    told: list[Any] = []
    pool = Pool(Thing, on_drop=raising(ValueError("no")))
    fill(pool, 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.unraisablehook", lambda unraisable: told.append(unraisable.exc_value))
        pool.clear()
    assert [str(error) for error in told] == ["no"] * 40
    assert_at_rest(pool)


def test_on_drop_sees_a_pool_it_can_use() -> None:
    again: list[Any] = []

    def on_drop(thing: Thing) -> None:
        if len(again) < 50:
            again.append(pool.acquire())
            pool.release(Thing())
            pool.stats()

    pool = Pool(Thing, cap=2, limit=0, on_drop=on_drop)
    fill(pool, 100)
    assert len(again) == 50
    assert pool.stats()["cached"] <= pool.bound


# ---- bad input -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"new": None}, TypeError, "new must be callable, not NoneType"),
        ({"new": 3}, TypeError, "new must be callable, not int"),
        ({"reset": 3}, TypeError, "reset must be callable, not int"),
        ({"check": "x"}, TypeError, "check must be callable, not str"),
        ({"on_drop": []}, TypeError, "on_drop must be callable, not list"),
        ({"name": 3}, TypeError, "name must be a str, not int"),
        ({"cap": 0}, ValueError, "cap must be even and from 2 to 32766, not 0"),
        ({"cap": -2}, ValueError, "cap must be"),
        ({"cap": 3}, ValueError, "cap must be"),
        ({"cap": 1.0}, TypeError, "cap must be an integer, not float"),
        ({"limit": -1}, ValueError, "limit must be"),
        ({"limit": "9"}, TypeError, "limit must be an integer or None, not str"),
        ({"limit": 2**63}, ValueError, "limit must be"),
        ({"max_live": 0}, ValueError, "max_live must be None or from 1"),
        ({"max_live": -1}, ValueError, "max_live must be"),
        ({"max_live": 2**63}, ValueError, "max_live must be"),
        ({"max_live": 1.5}, TypeError, "max_live must be an integer or None, not float"),
        ({"sched": 3}, TypeError, "sched"),
        ({"max": 3}, TypeError, "max"),
    ],
    ids=str,
)
def test_constructor(options: dict[str, Any], error: type[Exception], text: str) -> None:
    options = {"new": Thing, **options}
    with pytest.raises(error, match=text):
        Pool(**options)


@pytest.mark.parametrize("name", ["cap", "limit", "max_live"])
def test_numbers_that_are_too_long_to_be_printed(name: str) -> None:
    options: dict[str, Any] = {name: 10**5000}
    with pytest.raises(ValueError, match=rf"{name} must be .*, not 2\*\*16609 or more"):
        Pool(Thing, **options)


def test_only_new_by_position() -> None:
    with pytest.raises(TypeError):
        Pool(Thing, list.clear)  # type: ignore[misc]
    with pytest.raises(TypeError):
        Pool()  # type: ignore[call-arg]


@pytest.mark.parametrize("call", ["acquire", "lease"])
@pytest.mark.parametrize(
    ("arguments", "names", "error", "text"),
    [
        (("1",), {}, TypeError, "timeout must be a number of seconds or None, not str"),
        ((), {"timeout": []}, TypeError, "timeout must be"),
        ((-1,), {}, ValueError, "timeout must not be negative: -1"),
        ((-10**400,), {}, ValueError, "timeout must not be negative"),
        ((10**400,), {}, ValueError, "timeout is too large"),
        ((float("nan"),), {}, ValueError, "timeout must be a number of seconds, not NaN"),
        ((1, 2), {}, TypeError, "at most 1 argument"),
        ((1,), {"timeout": 2}, TypeError, "at most 1 argument"),
        ((), {"time": 2}, TypeError, "unexpected keyword argument 'time'"),
    ],
)
def test_arguments(
    call: str, arguments: tuple[Any, ...], names: dict[str, Any], error: type[Exception], text: str
) -> None:
    pool = Pool(Thing, max_live=2)
    with pytest.raises(error, match=text):
        getattr(pool, call)(*arguments, **names)
    assert_at_rest(pool)


@pytest.mark.parametrize("options", [{}, {"reset": id}, {"max_live": 3}, {"debug": True}], ids=str)
def test_none_is_no_object(options: dict[str, Any]) -> None:
    pool: Pool[Any] = Pool(Thing, **options)
    for call in (pool.release, pool.discard):
        with pytest.raises(TypeError, match="None is no object of a pool"):
            call(None)
    assert_at_rest(pool)


def test_release_takes_one_object() -> None:
    pool: Any = Pool(Thing)
    for arguments in ((), (1, 2)):
        with pytest.raises(TypeError):
            pool.release(*arguments)


def test_without_debug_a_foreign_object_is_taken_and_stays_within_the_bound(mode: Mode) -> None:
    pool = small(mode, cap=2, limit=4)
    for _ in range(100):
        pool.release(Thing())
    stats = pool.stats()
    assert stats["cached"] <= pool.bound
    assert stats["live"] == 0
    assert stats["puts"] == 100


def test_neither_copied_nor_pickled() -> None:
    pool = Pool(Thing)
    for way in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="a Pool can be neither copied nor pickled"):
            way(pool)


def test_no_subclass() -> None:
    with pytest.raises(TypeError):
        type("Sub", (Pool,), {})


def test_what_it_says_of_itself() -> None:
    pool: Pool[int] = Pool[int](lambda: 3, name="three")
    assert repr(Pool(Thing)) == "<deferpool.Pool of Thing>"
    assert repr(pool).startswith("<deferpool.Pool 'three' of ")
    assert (pool.cap, pool.limit, pool.max_live, pool.debug) == (32, 1024, None, False)
    assert pool.reset is pool.check is pool.on_drop is None
    for name in ("acquire", "release", "lease"):
        assert getattr(Pool, name).__text_signature__
