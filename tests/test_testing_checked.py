"""Checked: each kind of wrong ownership is found, with thread and place; right use is left in peace."""
from __future__ import annotations

import gc
import inspect
import re
import threading
import weakref
from collections import deque
from contextlib import suppress
from typing import Any

import pytest
from helpers import in_thread

import deferpool
from deferpool.testing import Checked, OwnershipError, Worker, assert_conserved, hammer

Item = dict[str, int]  # unhashable


class Pool:
    """Right, and told by a test to be wrong."""

    def __init__(self) -> None:
        self.free: deque[Any] = deque()
        self.releases = 0
        self.fails: Exception | None = None

    def acquire(self) -> Any:
        try:
            return self.free.pop()
        except IndexError:
            return {}

    def release(self, item: Any) -> None:
        self.releases += 1
        if self.fails is not None:
            raise self.fails
        self.free.append(item)


def line() -> int:
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def places(text: str) -> list[tuple[str, int]]:
    """Threads and lines of this file, in the order told."""
    return [(thread, int(number)) for thread, number in re.findall(rf"in (\S+) at {re.escape(__file__)}:(\d+)", text)]


ME = threading.main_thread().name


def test_right_use() -> None:
    with Checked(Pool()) as checked:
        items = [checked.acquire() for _ in range(100)]
        assert checked.out == 100
        for item in items:
            checked.release(item)
        assert checked.out == 0
        again = checked.acquire()  # another owner of an object that was out before
        assert again is items[-1]
        in_thread(lambda: checked.release(again))  # and another thread gives it back


def test_handed_out_twice() -> None:
    item: Item = {}
    checked: Checked[Item] = Checked(lambda: item, lambda item: None)
    first = line() + 1
    checked.acquire()
    with pytest.raises(OwnershipError, match="one dict was handed out twice") as caught:
        checked.acquire()
    assert places(str(caught.value)) == [(ME, first), (ME, first + 2)]
    assert checked.out == 1


def test_the_threads_are_told() -> None:
    item: Item = {}
    checked: Checked[Item] = Checked(lambda: item, lambda item: None)
    thread = threading.Thread(target=checked.acquire, name="other")
    thread.start()
    thread.join()
    with pytest.raises(OwnershipError, match=r"taken in other at .*, and, before it was given back, in "):
        checked.acquire()


def test_double_release_is_told_with_both_places_and_not_passed_on() -> None:
    pool = Pool()
    checked = Checked(pool)
    taken = line() + 1
    item = checked.acquire()
    checked.release(item)
    with pytest.raises(OwnershipError, match="was given back that is not out; last taken in") as caught:
        checked.release(item)
    assert places(str(caught.value)) == [(ME, taken), (ME, taken + 1), (ME, taken + 3)]
    assert pool.releases == 1


def test_release_of_a_stranger() -> None:
    with pytest.raises(OwnershipError, match=r"a dict \(key 0x\w+\) was given back that is not out; given back in"):
        Checked(Pool()).release({})


def test_what_never_came_back() -> None:
    checked = Checked(Pool())
    where = line() + 1
    held = [checked.acquire() for _ in range(11)]
    checked.release(held.pop())
    with pytest.raises(OwnershipError, match="10 never given back:") as caught:
        checked.close()
    assert places(str(caught.value)) == [(ME, where)] * 8
    assert "and 2 more" in str(caught.value)
    for item in held:
        checked.release(item)
    checked.close()


def test_end_of_with_tells_leaks_unless_another_exception_does() -> None:
    with pytest.raises(OwnershipError, match="1 never given back"), Checked(Pool()) as checked:
        checked.acquire()
    with pytest.raises(ZeroDivisionError), Checked(Pool()) as checked:
        raise ZeroDivisionError(checked.acquire())


def test_caught_faults_are_told_at_the_end() -> None:
    checked = Checked(Pool())
    with pytest.raises(OwnershipError):
        checked.release({})
    with pytest.raises(OwnershipError, match="not out"):
        checked.close()


def test_release_that_fails_leaves_it_out() -> None:
    pool = Pool()
    checked = Checked(pool)
    item = checked.acquire()
    pool.fails = RuntimeError("full")
    with pytest.raises(RuntimeError, match="full"):
        checked.release(item)
    assert checked.out == 1
    pool.fails = None
    checked.release(item)
    checked.close()


def test_none_is_nothing() -> None:
    checked: Checked[None] = Checked(lambda: None, lambda item: None)
    assert checked.acquire() is checked.acquire() is None
    checked.close()


def test_objects_live_only_while_they_are_out() -> None:
    class Thing: ...

    checked: Checked[Thing] = Checked(Thing, lambda thing: None)
    gc.collect()
    gc.disable()
    try:
        thing = checked.acquire()
        seen = weakref.ref(thing)
        checked.release(thing)
        del thing
        assert seen() is None
        lost = weakref.ref(checked.acquire())
        assert lost() is not None  # else its id could mean another object
        whole = weakref.ref(checked)
        del checked
        assert whole() is None
        assert lost() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("names", [("acquire", "release"), ("get", "put"), ("new", "free"), ("getconn", "putconn")])
def test_names_and_arguments_are_the_pools_own(names: tuple[str, str]) -> None:
    calls: list[tuple[Any, ...]] = []

    def take(self: object, *args: Any, **kwargs: Any) -> Item:
        calls.append((args, kwargs))
        return {}

    def give(self: object, item: Item, *args: Any, **kwargs: Any) -> str:
        calls.append((args, kwargs))
        return "given"

    pool = type("Own", (), {names[0]: take, names[1]: give, "stats": lambda self: {"live": 1}})()
    checked = Checked(pool)
    item = getattr(checked, names[0])(1, two=2)
    assert checked.out == 1
    assert getattr(checked, names[1])(item, 3, four=4) == "given"
    assert calls == [((1,), {"two": 2}), ((3,), {"four": 4})]
    assert checked.stats() == {"live": 1}
    checked.close()


def test_what_is_no_pool() -> None:
    with pytest.raises(TypeError, match="has none of acquire/release, get/put, new/free, getconn/putconn; give"):
        Checked(object())
    with pytest.raises(TypeError, match="release must be a function, not 3"):
        Checked(dict, 3)  # type: ignore[call-overload]
    with pytest.raises(AttributeError, match="has no 'stats'"):
        _ = Checked(dict, print).stats


def test_key_for_pools_that_wrap_the_same_thing() -> None:
    """Records are new objects each time; the memory is what must not have two owners."""

    class Wrapped:
        def __init__(self) -> None:
            self.memory = 5

    unseen: Checked[Wrapped] = Checked(Wrapped, print)
    unseen.acquire()
    unseen.acquire()
    checked: Checked[Wrapped] = Checked(Wrapped, print, key=lambda wrapped: wrapped.memory)
    checked.acquire()
    with pytest.raises(OwnershipError, match="key 0x5"):
        checked.acquire()


def test_a_pool_of_this_library_under_threads() -> None:
    pool = deferpool.RecordPool(sizes=(64,), cap=4, limit=16)
    with Checked(pool, key=lambda record: record.address) as checked:

        def work(me: Worker) -> None:
            for record in [checked.new(64) for _ in range(me.random.randrange(1, 9))]:
                checked.free(record)

        assert hammer(work, threads=4, seconds=0.5).total > 100
    assert_conserved(pool, live=0)


@pytest.mark.parametrize("again", range(3))
def test_threads_at_one_object_see_exactly_one_owner(again: int) -> None:
    """The record itself has no race: of those who take or give the same object at once, all but one are told."""
    threads, rounds = 4, 200
    items: list[Item] = [{} for _ in range(rounds)]
    met = threading.Barrier(threads, timeout=20)
    checked: Checked[Item] = Checked(lambda number: items[number], lambda item: None)
    won: dict[str, list[int]] = {"take": [], "give": []}

    def take(me: Worker) -> None:
        met.wait()
        with suppress(OwnershipError):
            checked.acquire(me.calls)
            won["take"].append(me.calls)

    def give(me: Worker) -> None:
        met.wait()
        with suppress(OwnershipError):
            checked.release(items[me.calls])
            won["give"].append(me.calls)

    hammer(take, threads=threads, calls=rounds)
    hammer(give, threads=threads, calls=rounds)
    assert sorted(won["take"]) == sorted(won["give"]) == list(range(rounds))
    assert checked.out == 0
