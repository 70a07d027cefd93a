"""What the figures of a pool must satisfy: the bounds at any instant, conservation at rest.

For any object whose `stats()` has the documented keys. A test that believes only `stats()` trusts the pool's own
counting; the checks are as good as that.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class HasStats(Protocol):
    """A pool that tells its figures."""

    def stats(self) -> Mapping[str, Any]: ...


def assert_bounded(pool: HasStats, *, bound: int | None = None, cap: int | None = None) -> None:
    """local-bound and total-bound: raises AssertionError unless no cache holds more than it may. Holds at any instant.

    bound: items that may be cached in all; None: what `stats()` says under "bound" (None there too: not checked).
        Give the larger one where the number of Ps went down: `peak_cached` remembers.
    cap: items of one class that one P may hold; None: the pool's attribute `cap`, if it has one. Its attribute `limit`,
        if it has one, is compared with `central`.

    Raises TypeError when `stats()` lacks a key. Thread-safe if `pool.stats()` is.
    """
    __tracebackhide__ = True
    cached, central, peak, per_p, own = _figures(pool, "cached", "central", "peak_cached", "per_p", "bound")
    cap = getattr(pool, "cap", None) if cap is None else cap
    bound = own if bound is None else bound
    wrong = []
    for p, classes in enumerate(per_p):
        for number, count in enumerate(classes):
            if count < 0 or (cap is not None and count > cap):
                may = "at least 0" if count < 0 else f"at most {cap:,}"
                wrong.append(f"local-bound: P {p} holds {count:,} items of class {number}, it must be {may}")
    if bound is not None:
        for name, count in (("cached", cached), ("peak_cached", peak)):
            if count > bound:
                wrong.append(f"total-bound: {name} is {count:,}, the bound is {bound:,}")
    limit = getattr(pool, "limit", None)
    if limit is not None and central > limit:
        wrong.append(f"total-bound: the central pool holds {central:,} items, its limit is {limit:,}")
    wrong += [f"{name} is {count:,}" for name, count in (("cached", cached), ("central", central)) if count < 0]
    if wrong:
        raise AssertionError("\n".join(wrong))


def assert_conserved(pool: HasStats, *, live: int | None = None) -> None:
    """conservation: raises AssertionError unless the figures add up. Only at rest: while threads work they need not.

    created = live + cached + destroyed; cached = local + central; gets - puts = live.

    live: items that the test knows to be out; None: not compared.

    Raises TypeError when `stats()` lacks a key.
    """
    __tracebackhide__ = True
    created, out, cached, destroyed = _figures(pool, "created", "live", "cached", "destroyed")
    central, per_p, gets, puts = _figures(pool, "central", "per_p", "gets", "puts")
    local = sum(map(sum, per_p))
    wrong = []
    if created != out + cached + destroyed:
        wrong.append(f"created is {created:,}, but live {out:,} + cached {cached:,} + destroyed {destroyed:,} "
                     f"= {out + cached + destroyed:,}")
    if cached != local + central:
        wrong.append(f"cached is {cached:,}, but local {local:,} + central {central:,} = {local + central:,}")
    if gets - puts != out:
        wrong.append(f"live is {out:,}, but gets {gets:,} - puts {puts:,} = {gets - puts:,}")
    if live is not None and live != out:
        wrong.append(f"live is {out:,}, but {live:,} are out")
    if wrong:
        raise AssertionError("\n".join(f"conservation: {each}" for each in wrong))


def _figures(pool: HasStats, *names: str) -> list[Any]:
    stats = pool.stats()
    missing = [name for name in names if name not in stats]
    if missing:
        raise TypeError(f"stats() of {type(pool).__name__} has no {', '.join(map(repr, missing))}")
    return [stats[name] for name in names]
