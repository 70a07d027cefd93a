"""The exit stacks as classes: their methods, errors and instances are those of contextlib's."""
import contextlib
import copy
import gc
import inspect
import pickle
import sys
import weakref
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import pytest
from exitstack_helpers import (
    BOTH,
    AsyncStack,
    Manager,
    Mine,
    Stack,
    error_of,
    fails,
    nothing,
    nothing_later,
    run,
)

import deferpool

FREE_THREADED = not getattr(sys, "_is_gil_enabled", lambda: True)()


MISUSES: dict[str, Callable[[Any, Any], object]] = {
    "init": lambda stack, other: type(stack)(1),
    "init by name": lambda stack, other: type(stack)(x=1),
    "callback of nothing": lambda stack, other: stack.callback(),
    "callback by name": lambda stack, other: stack.callback(callback=nothing),
    "push of nothing": lambda stack, other: stack.push(),
    "push of two": lambda stack, other: stack.push(1, 2),
    "push by a wrong name": lambda stack, other: stack.push(cm=1),
    "enter nothing": lambda stack, other: stack.enter_context(),
    "enter two": lambda stack, other: stack.enter_context(1, 2),
    "enter no manager": lambda stack, other: stack.enter_context(1),
    "enter no manager of ours": lambda stack, other: stack.enter_context(stack.callback(nothing)),
    "pop_all with an argument": lambda stack, other: stack.pop_all(1),
    "close with an argument": lambda stack, other: stack.close(1),
    "close by name": lambda stack, other: stack.close(x=1),
    "exit without details": lambda stack, other: stack.__exit__(),
    "exit by name": lambda stack, other: stack.__exit__(x=1),
    "enter with an argument": lambda stack, other: stack.__enter__(1),
    "push_async_callback of nothing": lambda stack, other: other.push_async_callback(),
    "push_async_exit of nothing": lambda stack, other: other.push_async_exit(),
    "enter_async_context of nothing": lambda stack, other: run(other.enter_async_context()),
    "enter_async_context of no manager": lambda stack, other: run(other.enter_async_context(1)),
    "aclose with an argument": lambda stack, other: run(other.aclose(1)),
    "aexit without details": lambda stack, other: run(other.__aexit__()),
    "result is no awaitable": lambda stack, other: (other.push_async_callback(nothing), run(other.aclose())),
    "entered is no awaitable": lambda stack, other: run(other.enter_async_context(
        type("Wrong", (), {"__aenter__": lambda self: 1, "__aexit__": 2})())),
    "StopIteration in a coroutine": lambda stack, other: (other.callback(next, iter([])), run(other.aclose())),
    "callbacks cannot be called": lambda stack, other: (stack.callback(1), stack.push(None), stack.close()),
    "coroutine used twice": lambda stack, other: (lambda it: (run(it), run(it)))(other.aclose()),
    "coroutine sent to": lambda stack, other: (lambda it: (run(it), it.send(1)))(other.aclose()),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse(name: str) -> None:
    """Type, wording and context of the error are those of the running version's contextlib."""
    theirs, ours = (error_of(partial(MISUSES[name], module.ExitStack(), module.AsyncExitStack())) for module in BOTH)
    assert (type(ours), str(ours)) == (type(theirs), str(theirs))
    assert type(ours.__context__) is type(theirs.__context__)
    assert type(ours.__cause__) is type(theirs.__cause__)
    assert ours.__suppress_context__ == theirs.__suppress_context__


def test_tracebacks_given() -> None:
    """From 3.13 on an exit gets the exception's traceback as it is now; before, what __exit__ was given."""
    def use(module: Any, asynchronous: bool) -> list[object]:
        log: list[object] = []
        error = error_of(partial(fails, ValueError()))

        def leave(*details: Any) -> None:
            log.append(None if details[2] is None else details[2].tb_frame.f_code.co_name)
            error.__traceback__ = error.__traceback__.tb_next if error.__traceback__ else None

        stack = module.AsyncExitStack() if asynchronous else module.ExitStack()
        for _ in range(3):
            stack.push(leave)
        if asynchronous:
            run(stack.__aexit__(ValueError, error, None))
        else:
            stack.__exit__(ValueError, error, None)
        return log

    for asynchronous in (False, True):
        theirs, ours = (use(module, asynchronous) for module in BOTH)
        assert ours == theirs
        assert (ours == [None] * 3) == (sys.version_info < (3, 13))


def test_arguments_by_name() -> None:
    for module in BOTH:
        manager = Manager()
        with module.ExitStack() as stack:
            assert stack.enter_context(cm=manager) is manager
            assert stack.push(exit=manager) is manager
        assert manager.log == ["enter", None, None]


@pytest.mark.parametrize("name", ["ExitStack", "AsyncExitStack"])
def test_introspection(name: str) -> None:
    theirs, ours = getattr(contextlib, name), getattr(deferpool, name)
    special = {"__enter__", "__exit__", "__aenter__", "__aexit__"}
    public = {method for method in dir(theirs) if not method.startswith("_") or method in special}
    assert public <= set(dir(ours))
    for method in public:
        for made in (False, True):
            their, our = (getattr(cls() if made else cls, method) for cls in (theirs, ours))
            if made or method in ("__exit__", "__aexit__", "aclose"):
                assert inspect.signature(our) == inspect.signature(their)
            assert inspect.iscoroutinefunction(our) == inspect.iscoroutinefunction(their)
            assert our.__name__ == their.__name__
            assert our.__doc__ or not their.__doc__
            assert callable(our)
    assert type(ours) is type(theirs)
    assert ours[int].__origin__ is ours
    assert ours.__name__ == name
    assert not callable(ours())


def test_instances() -> None:
    for stack, theirs in (Stack(), contextlib.ExitStack), (AsyncStack(), contextlib.AsyncExitStack):
        assert isinstance(stack, theirs)
    assert isinstance(Stack(), contextlib.AbstractContextManager)
    assert not isinstance(Stack(), contextlib.AbstractAsyncContextManager)
    assert isinstance(AsyncStack(), contextlib.AbstractAsyncContextManager)
    assert not isinstance(AsyncStack(), contextlib.AbstractContextManager)
    assert issubclass(Stack, contextlib.AbstractContextManager)
    assert not issubclass(contextlib.ExitStack, Stack)
    stack = Stack()
    stack.extra = 1
    assert vars(stack) == {"extra": 1}
    assert weakref.ref(stack)() is stack
    with pytest.raises(TypeError):
        type(stack).__mro__[1]()  # the common base is for these two only
    with pytest.raises(TypeError):
        type("Other", (type(stack).__mro__[1],), {})


def test_copies() -> None:
    """A shallow copy shares the callbacks; what is pickled must be picklable."""
    for module in BOTH:
        stack = module.ExitStack()
        stack.extra = 5
        twin = copy.copy(stack)
        assert twin.extra == 5
        assert twin._exit_callbacks is stack._exit_callbacks
        loaded = pickle.loads(pickle.dumps(stack))
        assert type(loaded) is module.ExitStack
        assert (loaded.extra, list(loaded._exit_callbacks)) == (5, [])
        stack.callback(nothing)
        with pytest.raises((AttributeError, pickle.PicklingError), match=r"_create_cb_wrapper.<locals>._exit_wrapper"):
            pickle.dumps(stack)


class Slotted(deferpool.ExitStack[bool | None]):
    __slots__ = ("place",)
    place: int


def test_copies_of_subclasses() -> None:
    stack = Slotted()
    stack.place = 7
    assert copy.copy(stack).place == 7
    loaded = pickle.loads(pickle.dumps(stack))
    assert (type(loaded), loaded.place) == (Slotted, 7)


def test_initialized_again() -> None:
    for module in BOTH:
        stack = module.ExitStack()
        stack.callback(fails, KeyError())
        stack.__init__()
        stack.close()


def test_a_subclass_that_passes_its_arguments_on_is_as_fast() -> None:
    """No arguments, in an empty tuple and an empty dictionary, do not make contextlib's slow shape of it."""
    class Forwards(deferpool.ExitStack[bool | None]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)

    stack = Forwards()
    stack.callback(nothing)
    assert not any(isinstance(each, deque) for each in gc.get_referents(stack))
    assert len(stack._exit_callbacks) == 1  # type: ignore[attr-defined]
    assert any(isinstance(each, deque) for each in gc.get_referents(stack))
    stack.close()


def test_instead_of_theirs() -> None:
    """A library that looks contextlib's classes up gets ours, and works."""
    with mock.patch.object(contextlib, "ExitStack", Stack), contextlib.ExitStack() as stack:
        assert type(stack) is Stack
        resource = mock.Mock()
        assert stack.enter_context(contextlib.closing(resource)) is resource
    resource.close.assert_called_once_with()


def test_subclass() -> None:
    log: list[object] = []
    with Mine("one") as stack:
        stack.callback(log.append, 1)
        stack.push(lambda *details: True)
        raise ValueError
    assert (log, stack.name, stack.exits) == ([1], "one", [ValueError])
    stack.callback(log.append, 2)
    stack.close()  # by way of its own __exit__
    assert (log, stack.exits) == ([1, 2], [ValueError, None])
    stack.callback(log.append, 3)
    moved = stack.pop_all()
    assert type(moved) is Mine
    assert moved.name == "default"
    stack.close()
    assert log == [1, 2]
    moved.close()
    assert log == [1, 2, 3]
    assert weakref.ref(stack)() is stack


def test_abstract_subclass() -> None:
    class Abstract(deferpool.ExitStack[bool | None]):
        @abstractmethod
        def work(self) -> None: ...

    with pytest.raises(TypeError, match="abstract"):
        Abstract()  # type: ignore[abstract]


def test_both_in_one() -> None:
    """A class that is both kinds of stack, as contextlib allows."""
    for module in BOTH:
        both = type("Both", (module.AsyncExitStack, module.ExitStack), {})
        manager = Manager()
        with both() as stack:
            stack.enter_context(manager)
        assert manager.log == ["enter", None]
        stack.push_async_callback(nothing_later)
        with pytest.raises(AssertionError):
            stack.close()
        run(stack.enter_async_context(manager))
        run(stack.aclose())
        assert manager.log == ["enter", None] * 2


def test_patched_methods() -> None:
    log: list[object] = []
    with mock.patch.object(Stack, "__exit__", lambda *args: log.append(len(args))):
        with Stack():
            pass
        Stack().close()
    assert log == [4, 4]
    with mock.patch.object(Stack, "__init__", lambda self, *args: log.append(args)):
        Stack(5)
        Stack()
    assert log[2:] == [(5,), ()]
    with Stack() as stack:
        stack.callback(log.append, 6)
    assert log[4:] == [6]


def test_pop_all_forgets_what_init_pushed() -> None:
    """As contextlib's: the new stack's own callbacks are replaced."""
    for module in BOTH:
        log: list[object] = []

        def init(self: Any, module: Any = module, log: Any = log) -> None:
            module.ExitStack.__init__(self)
            self.callback(log.append, "init")

        cls = type("Pushing", (module.ExitStack,), {"__init__": init})
        cls().pop_all().close()
        assert log == ["init"]


class Uncallable:
    def __enter__(self) -> None:
        pass

    async def __aenter__(self) -> None:
        pass

    __exit__ = __aexit__ = None


def test_an_exit_that_cannot_be_called_is_refused_at_once() -> None:
    for module in BOTH:
        stack, later = module.ExitStack(), module.AsyncExitStack()
        for push in (stack.push, stack.enter_context, later.push_async_exit):
            with pytest.raises(TypeError, match="first argument must be callable"):
                push(Uncallable())
        with pytest.raises(TypeError, match="first argument must be callable"):
            run(later.enter_async_context(Uncallable()))
        stack.close()
        run(later.aclose())


def test_an_exit_always_gets_a_traceback() -> None:
    """That of an exception which no Python function has raised, too."""
    for module in BOTH:
        lines: list[object] = []
        stack = module.ExitStack()
        stack.push(lambda kind, error, trace, lines=lines: lines.append(trace.tb_lineno > 0) or True)
        stack.callback(int, "x")
        stack.close()
        later = module.AsyncExitStack()
        later.push(lambda kind, error, trace, lines=lines: lines.append(trace.tb_lineno > 0) or True)
        later.callback(int, "x")
        run(later.aclose())
        assert lines == [True, True]


def test_signature_and_every_protocol_of_pickle() -> None:
    for stacks in (deferpool.ExitStack, deferpool.AsyncExitStack):
        assert str(inspect.signature(stacks)) == "()"
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            assert type(pickle.loads(pickle.dumps(stacks(), protocol))) is stacks
