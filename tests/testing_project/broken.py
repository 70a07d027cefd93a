"""Every test here must fail: a race is found in each of the broken pools."""
from __future__ import annotations

import pytest
from pools import Counted, LockedWrong, LookThenPop, LookThenRemove, LooseBound

from deferpool.testing import Checked, Hammer, Worker, assert_bounded

BROKEN = [LookThenPop, LookThenRemove, Counted, LockedWrong]
SECONDS = 4.5


def use(pool: Checked[object], me: Worker) -> None:
    for item in [pool.get() for _ in range(me.random.randrange(1, 4))]:
        pool.put(item)


@pytest.mark.parametrize("make", BROKEN)
def test_with_the_fixture(hammer: Hammer, make: type[LookThenPop]) -> None:
    with Checked(make()) as pool:
        hammer(lambda me: use(pool, me), seconds=SECONDS)


def test_bound(hammer: Hammer) -> None:
    pool = LooseBound()
    with Checked(pool) as checked:
        hammer(lambda me: use(checked, me), seconds=SECONDS, watch=lambda: assert_bounded(pool))


@pytest.fixture(params=BROKEN)
def pool(request: pytest.FixtureRequest) -> Checked[object]:
    return Checked(request.param())


@pytest.mark.hammer(threads=6, seconds=SECONDS)
def test_with_the_marker(pool: Checked[object], hammer_worker: Worker) -> None:
    use(pool, hammer_worker)


@pytest.mark.hammer(seconds=SECONDS)
def test_without_checked() -> None:
    """What a plain assertion sees: a count that is read and written back."""
    before = TALLY.get("all", 0)
    TALLY["all"] = before + 1
    assert TALLY.get("all", 0) >= before + 1


TALLY: dict[str, int] = {}
