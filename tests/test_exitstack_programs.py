"""Random programs do the same with our stacks as with contextlib's."""
from __future__ import annotations

import contextlib
import warnings

import pytest
from exitstack_programs import lines_of

import deferpool

SEEDS = 250


@pytest.mark.parametrize("peeks", [False, True])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_same_happens(asynchronous: bool, peeks: bool) -> None:
    lengths = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs are coroutines, and say so when they are forgotten
        for seed in range(SEEDS):
            theirs = lines_of(seed, contextlib, asynchronous, peeks)
            ours = lines_of(seed, deferpool, asynchronous, peeks)
            assert [line.replace("deferpool._exitstack.", "") for line in ours] == theirs, seed
            lengths.add(len(theirs))
    assert len(lengths) > 20
