"""assert_bounded and assert_conserved: right figures pass, and each wrong one is named."""
from __future__ import annotations

from typing import Any

import pytest

import deferpool
from deferpool.testing import assert_bounded, assert_conserved

FIGURES: dict[str, Any] = {
    "created": 20, "destroyed": 3, "live": 2, "cached": 15, "central": 6, "bypassed": 0, "gets": 50, "puts": 48,
    "refills": 1, "spills": 1, "dropped": 0, "peak_cached": 16, "bound": 24, "per_p": [[4, 2], [0, 3]],
}


class Told:
    cap = 4
    limit: int | None = 8

    def __init__(self, **figures: Any) -> None:
        self.figures = {**FIGURES, **figures}

    def stats(self) -> dict[str, Any]:
        return self.figures


class Bare:
    """No cap, no limit: only what is in stats()."""

    def stats(self) -> dict[str, Any]:
        return {**FIGURES, "per_p": [[1_000]]}


def test_right_figures_pass() -> None:
    assert_bounded(Told())
    assert_bounded(Told(bound=None, cached=10**9, peak_cached=10**9))
    assert_bounded(Bare())
    assert_conserved(Told())
    assert_conserved(Told(), live=2)


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"cached": 25}, "total-bound: cached is 25, the bound is 24"),
        ({"peak_cached": 25}, "total-bound: peak_cached is 25, the bound is 24"),
        ({"central": 9}, "total-bound: the central pool holds 9 items, its limit is 8"),
        ({"per_p": [[4, 4], [0, 5]]}, "local-bound: P 1 holds 5 items of class 1, it must be at most 4"),
        ({"per_p": [[-1, 0], [0, 0]]}, "local-bound: P 0 holds -1 items of class 0, it must be at least 0"),
        ({"cached": -1}, "cached is -1"),
        ({"central": -2}, "central is -2"),
    ],
)
def test_unbounded(figures: dict[str, Any], said: str) -> None:
    with pytest.raises(AssertionError) as caught:
        assert_bounded(Told(**figures))
    assert str(caught.value) == said


def test_bound_and_cap_of_the_callers() -> None:
    assert_bounded(Told(cached=30, peak_cached=30), bound=30)
    with pytest.raises(AssertionError, match="the bound is 14"):
        assert_bounded(Told(), bound=14)
    with pytest.raises(AssertionError, match="P 0 holds 4 items of class 0, it must be at most 3"):
        assert_bounded(Told(), cap=3)
    with pytest.raises(AssertionError, match="P 0 holds 1,000 items of class 0, it must be at most 999"):
        assert_bounded(Bare(), cap=999)


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"created": 21}, "created is 21, but live 2 + cached 15 + destroyed 3 = 20"),
        ({"destroyed": 4}, "created is 20, but live 2 + cached 15 + destroyed 4 = 21"),
        ({"central": 5}, "cached is 15, but local 9 + central 5 = 14"),
        ({"per_p": [[4, 2], [0, 4]]}, "cached is 15, but local 10 + central 6 = 16"),
        ({"puts": 49}, "live is 2, but gets 50 - puts 49 = 1"),
    ],
)
def test_not_conserved(figures: dict[str, Any], said: str) -> None:
    with pytest.raises(AssertionError) as caught:
        assert_conserved(Told(**figures))
    assert str(caught.value) == f"conservation: {said}"


def test_live_of_the_callers() -> None:
    with pytest.raises(AssertionError, match="live is 2, but 3 are out"):
        assert_conserved(Told(), live=3)


@pytest.mark.parametrize("check", [assert_bounded, assert_conserved])
@pytest.mark.parametrize("missing", ["cached", "per_p", "central"])
def test_missing_figures_are_named(check: Any, missing: str) -> None:
    told = Told()
    del told.figures[missing]
    with pytest.raises(TypeError, match=rf"stats\(\) of Told has no '{missing}'"):
        check(told)


def test_pools_of_this_library() -> None:
    pool = deferpool.RecordPool(sizes=(16, 64), cap=4, limit=8)
    held = [pool.new(size) for size in (16, 64, 1_000) for _ in range(30)]
    for record in held[5:]:
        pool.free(record)
    assert_bounded(pool)
    assert_conserved(pool, live=5)
    with pytest.raises(AssertionError):
        assert_conserved(pool, live=4)
    with pytest.raises(AssertionError):
        assert_bounded(pool, bound=pool.stats()["cached"] - 1)
