"""Arguments that a class does not take: the error calls the class by its name."""
from __future__ import annotations

from typing import Any

import pytest

from deferpool import BufferPool, Pool, RecordPool, Sched


@pytest.mark.parametrize(
    ("kind", "positional", "named", "said"),
    [
        (Pool, (), {}, "Pool() takes exactly 1 positional argument (0 given)"),
        (Pool, (list, 8), {}, "Pool() takes exactly 1 positional argument (2 given)"),
        (Pool, (list,), {"caps": 8}, "Pool() got an unexpected keyword argument 'caps'"),
        (BufferPool, (), {"limits": 1}, "BufferPool() got an unexpected keyword argument 'limits'"),
        (RecordPool, ((16,), 8), {}, "RecordPool() takes at most 1 positional argument (2 given)"),
        (RecordPool, (), {"limits": 8}, "RecordPool() got an unexpected keyword argument 'limits'"),
        (Sched, (1, 2), {}, "Sched() takes at most 1 positional argument (2 given)"),
        (Sched, (), {"proc": 1}, "Sched() got an unexpected keyword argument 'proc'"),
    ],
)
def test_the_class_is_named(kind: Any, positional: tuple[Any, ...], named: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError) as raised:
        kind(*positional, **named)
    assert str(raised.value) == said


def test_other_errors_are_left_alone() -> None:
    wrong: Any = 3
    with pytest.raises(TypeError, match="^new must be callable, not int$"):
        Pool(wrong)
    with pytest.raises(ValueError, match="^cap "):
        RecordPool(cap=3)
