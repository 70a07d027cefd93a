"""What the tests of deferring generators and coroutines share."""
from __future__ import annotations

from collections.abc import AsyncGenerator

from deferpool import defer, deferring


@deferring
async def noting_its_end(log: list[str]) -> AsyncGenerator[int, None]:
    """Its own finally clause, and then what it has deferred."""
    defer(log.append, "deferred")
    try:
        yield 1
    finally:
        log.append("finally")
