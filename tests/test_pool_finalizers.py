"""What the collector ends may use pools still: its finalizers come after it has said that all of it is lost."""
from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Generator
from typing import Any

import pytest
from helpers import output_of
from pool_helpers import Thing, assert_at_rest

from deferpool import Pool


@pytest.mark.parametrize("options", [{}, {"max_live": 1}, {"debug": True}, {"debug": True, "max_live": 1}], ids=str)
@pytest.mark.parametrize("kind", ["generator", "coroutine", "finalizer"])
def test_what_it_ends_gives_back(options: dict[str, Any], kind: str) -> None:
    pool = Pool(Thing, **options)

    def generator(box: list[Any]) -> Generator[None, None, None]:
        with pool.lease():
            yield

    async def coroutine(box: list[Any]) -> None:
        async with pool.lease():
            await asyncio.sleep(0)

    class User:
        def __init__(self, box: list[Any]) -> None:
            self.box = box
            self.thing = pool.acquire()

        def __del__(self) -> None:
            pool.release(self.thing)

        def send(self, _: None) -> None:
            pass

    kinds: dict[str, Callable[[list[Any]], Any]] = {"generator": generator, "coroutine": coroutine, "finalizer": User}

    def leave() -> None:
        box: list[Any] = []
        box.append(kinds[kind](box))
        box[0].send(None)

    for _ in range(3):
        leave()
        assert_at_rest(pool, live=1)
        gc.collect()
        assert_at_rest(pool)
        assert pool.stats()["destroyed"] == 0


@pytest.mark.filterwarnings("error::ResourceWarning")
def test_what_was_given_back_so_is_known_as_before() -> None:
    """It is missed when it is lost, and only then."""
    pool = Pool(Thing, debug=True, max_live=1)

    def generator(box: list[Any]) -> Generator[None, None, None]:
        with pool.lease():
            yield

    box: list[Any] = []
    box.append(generator(box))
    next(box[0])
    del box
    gc.collect()
    thing: Any = pool.acquire()
    pool.release(thing)
    with pytest.raises(RuntimeError, match="used after its release"):
        thing.held  # noqa: B018
    with pytest.raises(ValueError, match="is released twice"):
        pool.release(thing)
    assert pool.acquire() is thing
    assert sum(pool.stats()["out"].values()) == 1
    with pytest.warns(ResourceWarning, match="never released"):
        del thing
    assert pool.stats()["out"] == {}


def test_what_it_ends_and_nobody_gives_back_is_told_when_it_is_over() -> None:
    pool = Pool(Thing, debug=True)
    thing = pool.acquire()
    thing.held = thing
    del thing
    with pytest.warns(ResourceWarning, match="never released: acquired at .*test_pool_finalizers.py"):
        gc.collect()
    assert pool.stats()["out"] == {}


def test_what_rests_is_itself_when_it_ends_with_its_pool() -> None:
    log: list[object] = []

    class Ends(Thing):
        open = True

        def __del__(self) -> None:
            log.append((type(self) is Ends, self.open))

    def leave(older: bool) -> None:
        first = [Ends()] if older else []
        pool = Pool(first.pop if older else Ends, debug=True)
        thing = pool.acquire()
        thing.held = pool
        pool.release(thing)

    for older in (False, True):
        leave(older)
        gc.collect()
    assert log == [(True, True)] * 2


def test_a_finalizer_that_waits_while_a_task_is_served() -> None:
    """To serve makes nothing that would let the collector run there and then: the line would wait for the finalizer."""
    code = """if True:
        import asyncio, gc, threading, time
        from deferpool import Pool
        gc.disable()
        pool = Pool(list, max_live=2)
        one, two = pool.acquire(), pool.acquire()
        async def take():
            await pool.acquire_async()
            await asyncio.sleep(60)
        threading.Thread(target=asyncio.run, args=(take(),), daemon=True).start()
        while pool.stats()["waiting"] < 1:
            time.sleep(0.001)
        log = []
        class Closing:
            def __del__(self):
                released.set()
                pool.release(pool.acquire(timeout=20))
                log.append("finalizer")
        released = threading.Event()
        def other():
            released.wait(20)
            time.sleep(0.1)
            pool.release(two)
            pool.acquire(timeout=10)
            log.append("other")
        thread = threading.Thread(target=other)
        thread.start()
        closing = Closing()
        closing.me = closing
        del closing
        release = pool.release
        gc.set_threshold(1)
        gc.enable()
        release(one)
        gc.collect()
        gc.disable()
        thread.join()
        print(*sorted(log))
    """
    assert output_of(code) == "finalizer other"


def test_an_object_that_lies_where_one_was_lost_is_a_new_one() -> None:
    """Whoever else refers to it."""
    everyone: list[Any] = []

    class Registered(Thing):
        def __init__(self) -> None:
            everyone.append(self)

    pool = Pool(Registered, max_live=1000)
    for _ in range(50):
        pool.acquire()
    everyone.clear()
    gc.collect()
    kept = [pool.acquire() for _ in range(200)]
    assert len(set(map(id, kept))) == 200


@pytest.mark.parametrize("options", [{"max_live": 5}, {"debug": True}, {"debug": True, "max_live": 5}], ids=str)
@pytest.mark.parametrize("new", [Thing, list])
def test_an_object_that_is_out_already_stays_whose_it_is(options: dict[str, Any], new: Callable[[], Any]) -> None:
    dropped: list[Any] = []
    shared = new()
    pool: Pool[Any] = Pool(lambda: shared, on_drop=dropped.append, **options)
    assert pool.acquire() is shared
    for _ in range(10):
        with pytest.raises(ValueError, match="new returned an object that is out already"):
            pool.acquire(timeout=0)
    assert dropped == []
    assert_at_rest(pool, live=1)
    pool.release(shared)
    assert_at_rest(pool)


def test_what_has_left_may_be_made_again() -> None:
    thing = Thing()
    pool = Pool(lambda: thing, max_live=1)
    for _ in range(3):
        pool.discard(pool.acquire(timeout=0))
    weak = weakref.ref(thing)
    assert weak() is thing
    assert_at_rest(pool)
