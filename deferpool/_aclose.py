"""A method of AsyncExitStack that is no hot path, and so can be what it is in contextlib: a coroutine."""
from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any


async def aclose(self: AsyncExitStack[Any]) -> None:
    """Leaves and awaits everything now."""
    await self.__aexit__(None, None, None)


aclose.__qualname__ = "AsyncExitStack.aclose"
