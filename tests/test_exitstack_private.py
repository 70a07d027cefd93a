"""contextlib's private parts, which some programs use."""
import sys
from collections import deque
from typing import Any

import pytest
from exitstack_helpers import (
    BOTH,
    Manager,
    nothing,
    nothing_later,
    run,
)

FREE_THREADED = not getattr(sys, "_is_gil_enabled", lambda: True)()


def test_exit_callbacks() -> None:
    """The pairs that contextlib would have; whoever changes the deque changes the stack."""
    log: list[object] = []
    manager = Manager()
    for module in BOTH:
        log.clear()
        stack = module.ExitStack()
        stack.callback(log.append, 1)
        stack.callback(dict, [], a=1)
        stack.enter_context(manager)
        stack.push(nothing)
        pairs = stack._exit_callbacks
        assert type(pairs) is deque
        assert pairs is stack._exit_callbacks
        assert [is_sync for is_sync, _ in pairs] == [True] * 4
        first, second, third, fourth = (callback for _, callback in pairs)
        assert first.__wrapped__ == log.append
        assert first.__name__ == "_exit_wrapper"
        assert second.__wrapped__ is dict
        assert third.__self__ is manager
        assert third.__func__ is Manager.__exit__
        assert fourth is nothing
        pairs.pop()
        pairs.append((True, lambda *details: log.append(details)))
        stack.callback(log.append, 2)
        assert len(pairs) == 5
        stack._push_exit_callback(lambda *details: log.append(3))
        stack.close()
        assert log == [3, 2, (None, None, None), 1]
        assert not pairs
        stack._exit_callbacks = deque([(True, lambda *details: log.append(4))])
        moved = stack.pop_all()
        stack.close()
        moved.close()
        assert log[4:] == [4]


def test_async_exit_callbacks() -> None:
    manager = Manager()
    for module in BOTH:
        stack = module.AsyncExitStack()
        stack.push_async_callback(nothing_later, 1, x=2)
        run(stack.enter_async_context(manager))
        stack.push_async_exit(nothing_later)
        stack.callback(nothing)
        assert [is_sync for is_sync, _ in stack._exit_callbacks] == [False, False, False, True]
        callbacks = [callback for _, callback in stack._exit_callbacks]
        assert callbacks[0].__wrapped__ is nothing_later
        assert callbacks[1].__self__ is manager
        assert callbacks[2] is nothing_later
        assert run(callbacks[0](None, None, None)) is None
        run(stack.enter_async_context(manager))
        assert stack._exit_callbacks[-1][1].__func__ is Manager.__aexit__
        run(stack.aclose())
        assert not stack._exit_callbacks


@pytest.mark.parametrize("name", ["_push_exit_callback", "_push_cm_exit", "_create_exit_wrapper", "_create_cb_wrapper"])
def test_overridden_private_methods(name: str) -> None:
    """They are called as contextlib calls them."""
    logs = []
    for module in BOTH:
        log: list[object] = []
        original = vars(module.ExitStack).get(name) or vars(module.ExitStack.__mro__[1])[name]

        def instead(*args: Any, original: Any = original, log: Any = log) -> Any:
            log.append(len(args))
            return getattr(original, "__func__", original)(*args)

        wrapped = staticmethod(instead) if isinstance(original, staticmethod) else instead
        with type("Mine", (module.ExitStack,), {name: wrapped})() as stack:
            stack.callback(nothing, 1)
            stack.push(Manager())
            stack.enter_context(Manager())
            stack.push(nothing)
        logs.append(log)
    assert logs[0] == logs[1] != []
