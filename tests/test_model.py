"""The sections as the schedule explorer models them do what the assembly does, state by state."""
import itertools

import pytest

from stress import _model

DONE, UNFIT, NO_P = range(3)
PRIMITIVES = ("pop", "push", "popn", "pushn")
STATES = [(cap, count) for cap in (2, 4, 6, 32) for count in range(cap + 1)]
assembly = pytest.mark.skipif(not _model.has_assembly, reason="no sections are compiled in on this machine")


def sizes(which: str, cap: int) -> list[int]:
    return [1] if which in ("pop", "push") else list(range(1, cap + 1))


@assembly
@pytest.mark.parametrize("which", PRIMITIVES)
@pytest.mark.parametrize("pops", [0, 1, 2**40])
def test_the_model_does_what_the_assembly_does(which: str, pops: int) -> None:
    """Status, word, every slot, what is in hand: the same for each count from empty to full, and while stopped."""
    seen = set()
    for (cap, count), opened in itertools.product(STATES, (True, False)):
        for n in sizes(which, cap):
            real = _model.run(which, False, cap, count, n, opened, pops)
            assert real == _model.run(which, True, cap, count, n, opened, pops), (cap, count, n, opened)
            seen.add(real[0])
    assert seen == {DONE, UNFIT, NO_P}


@pytest.mark.parametrize("which", PRIMITIVES)
def test_a_model_that_is_sent_back_starts_over(which: str) -> None:
    for cap, count in STATES:
        for n in sizes(which, cap):
            once = _model.run(which, True, cap, count, n, True, 7)
            assert once == _model.run(which, True, cap, count, n, True, 7, restarts=2), (cap, count, n)


def test_what_the_model_does_is_what_the_words_say() -> None:
    """Against plain arithmetic, so that an error in both would be seen."""
    for cap, count in STATES:
        status, word, slots, hand, below = _model.run("pop", True, cap, count, 1, True, 5)
        assert (status, below) == (DONE if count else UNFIT, 0)
        assert hand[0] == (1000 + count - 1 if count else 2000)
        assert (word >> 16, (word + cap + 1) & 0xFFFF) == ((6, count - 1) if count else (5, 0))
        status, word, slots, hand, below = _model.run("push", True, cap, count, 1, True, 5)
        assert status == (DONE if count < cap else UNFIT)
        assert slots[: count + 1] == [*range(1000, 1000 + count), *([2000] if count < cap else [])]
        half = cap // 2
        status, word, slots, hand, below = _model.run("popn", True, cap, count, half, True, 5)
        assert status == (DONE if count == cap else UNFIT)
        assert hand[:half] == ([*range(1000 + half, 1000 + cap)] if count == cap else [*range(2000, 2000 + half)])
        status, word, slots, hand, below = _model.run("pushn", True, cap, count, half, True, 5)
        assert status == (DONE if count + half <= cap else UNFIT)
        if status == DONE:
            assert slots[: count + half] == [*range(1000, 1000 + count), *range(2000, 2000 + half)]
