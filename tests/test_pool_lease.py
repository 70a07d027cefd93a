"""with pool.lease(): whatever its block does, the object goes back, or is dropped."""
from __future__ import annotations

import gc
from typing import Any

import pytest
from pool_helpers import Thing, assert_at_rest, raising

from deferpool import ExitStack, Pool
from deferpool._watch import Watch
from deferpool.objects import Lease


def test_a_lease_releases_however_its_block_ends() -> None:
    pool = Pool(Thing)
    with pool.lease() as thing:
        assert_at_rest(pool, live=1)
    assert_at_rest(pool)
    with pytest.raises(KeyError), pool.lease() as again:
        raise KeyError
    assert again is thing
    assert_at_rest(pool)
    for _ in range(3):
        with pool.lease():
            break
    assert_at_rest(pool)


def test_leases_nest() -> None:
    pool = Pool(Thing)
    with pool.lease() as a, pool.lease() as b, pool.lease() as c:
        assert len({id(a), id(b), id(c)}) == 3
        assert_at_rest(pool, live=3)
    assert_at_rest(pool)


def test_a_lease_may_be_used_again_but_not_twice_at_once() -> None:
    pool = Pool(Thing)
    lease = pool.lease()
    with lease as first:
        pass
    with lease as second:
        assert first is second
        with pytest.raises(RuntimeError, match="in use already"), lease:
            pass
        assert_at_rest(pool, live=1)
    assert_at_rest(pool)
    with pytest.raises(RuntimeError, match="not in use"):
        lease.__exit__(None, None, None)


def test_the_protocol_by_hand() -> None:
    pool = Pool(Thing)
    lease = pool.lease()
    kind: Any = type(lease)
    thing = lease.__enter__()
    lease.__exit__(None, None, None)
    assert kind.__enter__(lease) is thing
    assert kind.__exit__(lease, None, None, None) is None
    for call, arguments in (
        (kind.__enter__, ()), (kind.__enter__, (3,)), (kind.__exit__, (lease,)),
        (lease.__enter__, (1,)), (lease.__exit__, (1,)),
    ):
        with pytest.raises(TypeError, match="a lease is entered without arguments and left with three"):
            call(*arguments)
    with ExitStack() as stack:
        assert stack.enter_context(pool.lease()) is thing
        assert_at_rest(pool, live=1)
    assert_at_rest(pool)
    with pytest.raises(TypeError):
        kind()


def test_a_lease_that_is_forgotten_drops_its_object() -> None:
    """Whoever entered it may still use that."""
    dropped: list[Any] = []
    pool = Pool(Thing, on_drop=dropped.append)
    thing = pool.lease().__enter__()
    assert dropped == [thing]
    assert_at_rest(pool)


def test_what_a_lease_has_discarded_is_not_released() -> None:
    dropped: list[Any] = []
    pool: Pool[Thing] = Pool(Thing, on_drop=dropped.append)
    lease = pool.lease()
    with pytest.raises(RuntimeError, match="not in use"):
        lease.discard()
    with lease as thing:
        lease.discard()
        assert dropped == [thing]
        with pytest.raises(RuntimeError, match="not in use"):
            lease.discard()
        with pytest.raises(RuntimeError, match="in use already"):
            lease.__enter__()
    with lease as other:
        assert other is not thing
    assert dropped == [thing]
    assert_at_rest(pool)


def test_what_reset_raises_comes_out_of_with() -> None:
    pool = Pool(Thing, reset=raising(ValueError("no")))
    with pytest.raises(ValueError, match="no"), pool.lease():
        pass
    with pytest.raises(ValueError, match="no") as raised, pool.lease():
        raise KeyError
    assert isinstance(raised.value.__context__, KeyError)
    assert_at_rest(pool)


def test_an_interrupt_at_the_end_of_its_block_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would release the object a second time."""
    dropped: list[Any] = []
    pool = Pool(Thing, debug=True, max_live=1, on_drop=dropped.append)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt), pool.lease() as thing:
        patched.setattr(Watch, "given", raising(KeyboardInterrupt()))
    assert dropped == [thing]
    assert_at_rest(pool)
    with pool.lease(timeout=0):
        assert_at_rest(pool, live=1)


def test_what_was_released_by_hand_is_not_lost_by_its_lease() -> None:
    pool = Pool(Thing, max_live=1)
    with pytest.raises(ValueError, match="released twice"), pool.lease() as thing:
        pool.release(thing)
    assert_at_rest(pool)
    assert pool.acquire(timeout=0) is thing


def test_its_class_is_there_for_annotations() -> None:
    assert Lease[int].__origin__ is Lease   # type: ignore[attr-defined]
    assert isinstance(Pool(Thing).lease(), Lease)
    with pytest.raises(TypeError):
        Lease()


def test_a_lease_that_nobody_leaves_after_its_object_was_discarded() -> None:
    dropped: list[object] = []
    pool = Pool(Thing, on_drop=dropped.append)
    lease = pool.lease()
    thing = lease.__enter__()
    lease.discard()
    assert dropped == [thing]
    del lease
    gc.collect()
    assert dropped == [thing]
    assert_at_rest(pool)
