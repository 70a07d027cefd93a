"""ExitStack and AsyncExitStack: contextlib's, many times faster.

The two classes are derived from the abstract classes that contextlib's are derived from; their methods are in C,
in exitstack/. Where a program does what is rare, contextlib's own functions do it here too.
"""
import contextlib
import copyreg
from abc import update_abstractmethods
from collections import deque
from collections.abc import Coroutine

cdef extern from "exitstack/classes.h":
    object exitstack_base()
    int exitstack_finish(object sync, object async_, object their_sync, object their_async, object deque_type,
                         tuple names, tuple values) except -1
    ctypedef struct PyTypeObject:
        pass
    PyTypeObject Coroutine_Type

_Base = exitstack_base()


class ExitStack(_Base, contextlib.AbstractContextManager):
    """A stack of context managers and callbacks that the with statement unwinds, last in, first out.

    contextlib.ExitStack in every respect but time, and but for tracebacks, in which it has no lines:

        with ExitStack() as stack:
            files = [stack.enter_context(open(name)) for name in names]

    Different threads may use different stacks; one stack must not be used by two threads at the same time.
    """
    __slots__ = ()
    __module__ = "deferpool"


class AsyncExitStack(_Base, contextlib.AbstractAsyncContextManager):
    """A stack of context managers and callbacks, async ones among them, that async with unwinds, last in, first out.

    contextlib.AsyncExitStack in every respect but time, and but for tracebacks, in which it has no lines:

        async with AsyncExitStack() as stack:
            connections = [await stack.enter_async_context(connect(host)) for host in hosts]

    What its async methods return is awaited once, like a coroutine. Different threads may use different stacks; one
    stack must not be used by two threads at the same time.
    """
    __slots__ = ()
    __module__ = "deferpool"


def _state(stack):
    """What contextlib's would give away of itself: it is copied and pickled, or refuses to be, in the same way."""
    state = {**stack.__dict__, "_exit_callbacks": stack._exit_callbacks}
    slots = {name: getattr(stack, name) for name in copyreg._slotnames(type(stack)) if hasattr(stack, name)}
    return (state, slots) if slots else state


def _set_state(stack, state):
    for part in state if isinstance(state, tuple) else (state,):
        for name, value in (part or {}).items():
            setattr(stack, name, value)


def _reduce(stack, protocol):
    """Older protocols know only of classes that are made without a function of their own."""
    return object.__reduce_ex__(stack, max(2, protocol))


def _finish():
    private = {}
    for ours, their in (ExitStack, contextlib.ExitStack), (AsyncExitStack, contextlib.AsyncExitStack):
        for cls in their.__mro__[:2]:
            for name, value in vars(cls).items():
                if name.startswith(("_push_", "_create_")):
                    private[name] = value
                    setattr(ours, name, value)
        ours.__getstate__ = _state
        ours.__setstate__ = _set_state
        ours.__reduce_ex__ = _reduce
    exitstack_finish(ExitStack, AsyncExitStack, contextlib.ExitStack, contextlib.AsyncExitStack, deque,
                     tuple(private), tuple(private.values()))
    update_abstractmethods(ExitStack)
    update_abstractmethods(AsyncExitStack)
    contextlib.ExitStack.register(ExitStack)
    contextlib.AsyncExitStack.register(AsyncExitStack)
    Coroutine.register(<object>&Coroutine_Type)

_finish()
