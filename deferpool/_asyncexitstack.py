"""AsyncExitStack: contextlib's, on top of compiled entries."""
from __future__ import annotations

import sys

from deferpool._exitstack import AsynchronousEntries, Steps


class AsyncExitStack(AsynchronousEntries):
    """contextlib.AsyncExitStack, several times faster: every method, behaviour and error is the same.

    One stack is for one task at a time.
    """

    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc_details):
        steps = Steps(self, *exc_details)
        result = None
        while (awaitable := steps.next(result)) is not None:
            try:
                result = await awaitable
            except BaseException as error:
                steps.raised(error)
        if (raised := steps.error) is None:
            return steps.suppresses
        context = raised.__context__
        try:
            raise raised
        except BaseException:
            raised.__context__ = context  # raising it has replaced that
            raise
        finally:
            del raised, context, steps

    async def enter_async_context(self, cm):
        """Enters an asynchronous context manager, which the stack leaves, and returns what that gives."""
        kind = type(cm)
        try:
            enter, leave = kind.__aenter__, kind.__aexit__
        except AttributeError:
            if sys.version_info < (3, 11):
                raise
            raise TypeError(f"'{kind.__module__}.{kind.__qualname__}' object does not support the asynchronous "
                            "context manager protocol") from None
        result = await enter(cm)
        self._push_async_cm_exit(cm, leave)
        return result

    async def aclose(self):
        """Leaves and awaits everything now."""
        await self.__aexit__(None, None, None)
