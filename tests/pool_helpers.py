"""What the tests of Pool share."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from helpers import CPUS, Mode

from deferpool import Pool


class Thing:
    """An object that can be referred to weakly, and holds anything."""

    held: Any = None


def fill(pool: Pool[Any], n: int) -> None:
    """n objects acquired at once and released: n are cached then, limits permitting."""
    for thing in [pool.acquire() for _ in range(n)]:
        pool.release(thing)


def assert_at_rest(pool: Pool[Any], *, live: int = 0) -> None:
    """Nothing is lost or doubled, and the books say so."""
    stats = pool.stats()
    assert stats["live"] == live == stats["gets"] - stats["puts"], stats
    assert stats["created"] == live + stats["cached"] + stats["destroyed"], stats
    assert stats["cached"] == sum(map(sum, stats["per_p"])) + stats["central"], stats
    assert pool.bound is None or stats["cached"] <= pool.bound


def small(mode: Mode, new: Callable[[], Any] = Thing, **options: Any) -> Pool[Any]:
    """A pool on few Ps."""
    return Pool(new, sched=mode.sched(CPUS), **options)


def raising(error: BaseException) -> Callable[..., Any]:
    def function(*_: object) -> Any:
        raise error

    return function


one_at_a_time = pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
