"""The exit stacks leave nothing behind."""
import gc
import sys
import weakref
from collections.abc import Callable, Generator
from typing import Any

import pytest
from exitstack_helpers import (
    BOTH,
    AsyncStack,
    Manager,
    Mine,
    Stack,
    async_cycles,
    nothing,
    nothing_later,
    run,
    sync_cycles,
)
from exitstack_programs import Once
from helpers import all_references, output_of

FREE_THREADED = not getattr(sys, "_is_gil_enabled", lambda: True)()


def test_cycles_are_collected() -> None:
    for cls in (Stack, AsyncStack, Mine):
        for push in ("callback", "push"):
            stack = cls()
            getattr(stack, push)(lambda *details, stack=stack: stack)
            ended = weakref.ref(stack)
            del stack
            gc.collect()
            assert ended() is None, (cls, push)
    stack = AsyncStack()
    stack.push_async_callback(lambda: Once(1))
    closing = stack.aclose()
    stack.callback(nothing, closing)
    ended = weakref.ref(stack)
    closing.close()
    del stack, closing
    gc.collect()
    assert ended() is None


def test_not_entered() -> None:
    """A stack that is dropped with callbacks forgets them."""
    manager, ended = Manager(), list[object]()
    stack = Stack()
    stack.enter_context(manager)
    stack.callback(ended.append, manager, x=1)
    before = sys.getrefcount(manager)
    del stack
    assert sys.getrefcount(manager) == before - 2
    assert (manager.log, ended) == (["enter"], [])


def memory() -> int:
    """Resident pages of this process; what the allocator has at most once asked for."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1])


SUPPRESS = Manager(suppress=True)
ERROR = ValueError()
SHORT: dict[str, Callable[[], object]] = {
    "empty": lambda: Stack().__enter__().__exit__(None, None, None),
    "callback": lambda: with_one("callback", nothing),
    "callback with arguments": lambda: with_one("callback", nothing, 1, 2, 3),
    "enter": lambda: with_one("enter_context", SUPPRESS),
    "push": lambda: with_one("push", SUPPRESS),
    "suppressed": lambda: with_error("enter_context", SUPPRESS),
    "async": lambda: run(async_with_one("push_async_callback", nothing_later)),
    "async enter": lambda: run(async_enter(SUPPRESS)),
    "async suppressed": lambda: run(async_with_error("push_async_exit", SUPPRESS)),
}
def with_one(method: str, *args: object) -> None:
    with Stack() as stack:
        getattr(stack, method)(*args)


def with_error(method: str, *args: object) -> None:
    with Stack() as stack:
        getattr(stack, method)(*args)
        raise ERROR


async def async_with_one(method: str, *args: object) -> None:
    async with AsyncStack() as stack:
        getattr(stack, method)(*args)


async def async_enter(manager: Manager) -> None:
    async with AsyncStack() as stack:
        await stack.enter_async_context(manager)


async def async_with_error(method: str, *args: object) -> None:
    async with AsyncStack() as stack:
        getattr(stack, method)(*args)
        raise ERROR


@pytest.mark.parametrize("name", SHORT)
def test_a_million_short_cycles(name: str) -> None:
    """Memory and the number of objects stay flat, and so do the reference counts of what is used."""
    function = SHORT[name]
    used: list[object] = [nothing, nothing_later, SUPPRESS, ERROR, None, True, False, Stack, AsyncStack, Manager,
                          Manager.__enter__, Manager.__exit__, Manager.__aenter__, Manager.__aexit__]

    def go(times: int) -> tuple[int, int, list[int]]:
        for _ in range(times):
            function()
            if len(SUPPRESS.log) > 1000:
                SUPPRESS.log.clear()
                ERROR.__traceback__ = None
        SUPPRESS.log.clear()
        ERROR.__traceback__ = None
        gc.collect()
        pages = memory() if sys.platform == "linux" else 0
        return len(gc.get_objects()), pages, [all_references(), *map(sys.getrefcount, used)]

    go(20_000)
    objects, pages, counts = go(20_000)
    for _ in range(3):  # what leaks does so each time; what other tests have left behind may settle in one of them
        before = pages
        later_objects, pages, later_counts = go(1_000_000)
        if pages - before < 256:
            break
    assert later_objects - objects < 100  # fewer: of earlier tests
    assert pages - before < 256  # 1 MiB; one byte a cycle would be as much
    assert all(abs(later - before) < 1000 for later, before in zip(later_counts, counts, strict=True))


def test_long_cycles() -> None:
    """All paths, the rare ones, too."""
    def go(times: int) -> tuple[int, int]:
        for _ in range(times):
            sync_cycles()
            run(async_cycles())
        gc.collect()
        return len(gc.get_objects()), sys.getrefcount(nothing) + sys.getrefcount(nothing_later) + sys.getrefcount(Mine)

    go(200)
    objects, counts = go(200)
    later_objects, later_counts = go(3000)
    assert later_objects - objects < 100  # fewer: of earlier tests
    assert abs(later_counts - counts) < 100


def test_arguments_are_given_up() -> None:
    """However many there are, and by whichever way they are kept."""
    arguments = [object() for _ in range(5)]
    names = {"one": object(), "two": object()}
    everything = [*arguments, *names.values()]
    for module in BOTH:
        before = [sys.getrefcount(each) for each in everything]
        for _ in range(100):
            for count in range(len(arguments) + 1):
                for given in ({}, names):
                    with module.ExitStack() as stack:
                        stack.callback(nothing, *arguments[:count], **given)
                    stack = module.AsyncExitStack()
                    stack.push_async_callback(nothing_later, *arguments[:count], **given)
                    run(stack.aclose())
                    forgotten = module.ExitStack()
                    forgotten.callback(nothing, *arguments[:count], **given)
        del stack, forgotten
        after = [sys.getrefcount(each) for each in everything]
        assert all(now < then + 10 for now, then in zip(after, before, strict=True))


def test_what_a_subclass_has_pushed_itself_goes_at_pop_all() -> None:
    """pop_all makes a stack as the class does, and then gives it the entries."""
    pushed: list[weakref.ref[Manager]] = []

    class Pushes(Stack):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            manager = Manager()
            pushed.append(weakref.ref(manager))
            self.callback(id, manager)

    for _ in range(3):
        stack = Pushes()
        other = stack.pop_all()
        other.close()
        stack.close()
        del stack, other
    gc.collect()
    assert [each() for each in pushed] == [None] * 6


def test_methods_of_classes_that_lack_the_other_one() -> None:
    class NoExit:
        def __enter__(self) -> None: ...

    class NoAsyncExit:
        async def __aenter__(self) -> None: ...

    enter, aenter = NoExit.__enter__, NoAsyncExit.__aenter__
    before = sys.getrefcount(enter), sys.getrefcount(aenter)
    for _ in range(50):
        with pytest.raises((TypeError, AttributeError)):
            Stack().enter_context(NoExit())
        with pytest.raises((TypeError, AttributeError)):
            run(AsyncStack().enter_async_context(NoAsyncExit()))
    gc.collect()
    after = sys.getrefcount(enter), sys.getrefcount(aenter)
    assert max(now - was for now, was in zip(after, before, strict=True)) < 10


def test_a_class_of_which_it_has_an_instance_is_collected() -> None:
    code = """if True:
        import deferpool, gc, weakref

        def made():
            class Own(deferpool.ExitStack):
                pass

            Own.instance = Own()
            return weakref.ref(Own)

        gone = made()
        gc.collect()
        gc.collect()
        print(gone())
    """
    assert output_of(code) == "None"


def test_what_is_yielded_in_spite_of_a_close_is_let_go() -> None:
    yielded: list[weakref.ref[Manager]] = []

    class Gives:
        def __await__(self) -> Generator[Any, Any, None]:
            manager = Manager()
            yielded.append(weakref.ref(manager))
            yield manager

    async def gives() -> None:
        await Gives()

    stack = AsyncStack()
    stack.push_async_callback(gives)
    stack.push_async_callback(gives)
    coroutine = stack.__aexit__(None, None, None)
    coroutine.send(None)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        coroutine.close()  # the second one begins, and waits
    coroutine.close()
    assert len(yielded) == 2
    del coroutine, stack
    gc.collect()
    assert [each() for each in yielded] == [None] * len(yielded)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux how much memory is in use")
def test_stacks_that_were_large_keep_no_memory() -> None:
    code = """if True:
        import deferpool

        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * 4

        def use():
            stacks = [deferpool.ExitStack() for _ in range(16)]
            for stack in stacks:
                for _ in range(50_000):
                    stack.callback(id, 0)
            for stack in stacks:
                stack.pop_all()

        before = resident()
        use()
        print((resident() - before) // 1024)
    """
    assert int(output_of(code)) < 12  # MiB, of 30 and more that they had
