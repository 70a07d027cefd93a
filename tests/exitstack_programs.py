"""Random programs for two implementations of exit stacks: what each of their steps sees, as lines to be compared."""
import contextlib
import random
import sys
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any

ERRORS: tuple[type[BaseException], ...] = (
    ValueError, KeyError, KeyboardInterrupt, StopIteration, GeneratorExit, RuntimeError)


def chain(error: object, depth: int = 0) -> str:
    """An exception with its contexts and causes; the same on every run."""
    if not isinstance(error, BaseException):
        return repr(error)
    if depth > 12:
        return "..."
    text = f"{type(error).__name__}({', '.join(map(str, error.args))})"
    if error.__cause__ is not None:
        text += f" from [{chain(error.__cause__, depth + 1)}]"
    if error.__suppress_context__:
        text += " suppressing"
    return text + (f" <- {chain(error.__context__, depth + 1)}" if error.__context__ is not None else "")


class Once:
    """Yields once to whoever drives the coroutines."""

    def __init__(self, what: object) -> None:
        self.what = what

    def __await__(self) -> Generator[object, object, object]:
        return (yield self.what)


class NoTruth:
    def __bool__(self) -> bool:
        raise LookupError("no truth")


class Program:
    """One program: the seed decides what it does, the module whose stacks it uses."""

    def __init__(self, seed: int, module: Any, asynchronous: bool, peeks: bool) -> None:
        self.random = random.Random(seed)
        self.module = module
        self.asynchronous = asynchronous
        self.peeks = peeks
        self.lines: list[str] = []
        self.made = 0

    def note(self, *words: object) -> None:
        self.lines.append(" ".join(map(str, words)))

    def error(self) -> BaseException:
        self.made += 1
        return self.random.choice(ERRORS)(self.made)

    def act(self, name: int, stack: Any, details: tuple[Any, ...]) -> object:
        """What a callback does, with or without the details of an exception."""
        self.note(name, "sees", chain(sys.exc_info()[1]), "given", *(chain(value) for value in details[:2]))
        if details:
            kind, error, traceback = details
            self.note(kind is type(error), traceback is getattr(error, "__traceback__", None))
        choice = self.random.randrange(13)
        if choice < 4:
            return None
        if choice < 6:
            return True
        if choice == 6:
            raise self.error()
        if choice == 7:
            try:
                raise self.error()
            except BaseException as error:
                raise self.error() from self.random.choice([None, error])
        if choice == 8 and details and details[1] is not None and details[1].__context__ is None:
            raise details[1]
        if choice == 9:
            without = self.error()
            try:
                raise without
            finally:
                without.__context__ = None
        if choice == 10:
            self.register(stack)
        elif choice == 11 and self.random.random() < 0.3:
            other = stack.pop_all()
            self.note("moved", type(other) is type(stack))
            if not self.asynchronous:
                other.close()
        elif choice == 12:
            return NoTruth()
        if self.peeks:
            left = [(is_sync, hasattr(callback, "__wrapped__")) for is_sync, callback in stack._exit_callbacks]
            self.note("left", left)
        return self.random.choice([False, 0, [], "text"])

    async def act_later(self, name: int, stack: Any, details: tuple[Any, ...]) -> object:
        for turn in range(self.random.choice([0, 0, 1, 2])):
            self.note(name, "got", await Once((name, turn)))
        return self.act(name, stack, details)

    def register(self, stack: Any) -> Any:
        """Pushes something; a coroutine function to be awaited when the push is async."""
        self.made += 1
        name, this = self.made, self

        def callback(*args: object, **kwargs: object) -> object:
            this.note(name, "called with", args, kwargs)
            return this.act(name, stack, ())

        def leave(kind: Any, error: Any, traceback: TracebackType | None) -> object:
            return this.act(name, stack, (kind, error, traceback))

        async def callback_later(*args: object, **kwargs: object) -> object:
            this.note(name, "called with", args, kwargs)
            return await this.act_later(name, stack, ())

        async def leave_later(kind: Any, error: Any, traceback: TracebackType | None) -> object:
            return await this.act_later(name, stack, (kind, error, traceback))

        class Manager:
            def __enter__(self) -> int:
                return name

            def __exit__(self, *details: Any) -> Any:
                return leave(*details)

            async def __aenter__(self) -> int:
                this.note(name, "entered", await Once(name))
                return name

            async def __aexit__(self, *details: Any) -> Any:
                return await leave_later(*details)

        @contextlib.contextmanager
        def generator() -> Generator[int, None, None]:
            try:
                yield name
            except ValueError:
                this.note(name, "caught")
            finally:
                this.act(name, stack, ())

        def nested() -> None:
            with this.module.ExitStack() as inner:
                for _ in range(this.random.randrange(3)):
                    this.register_sync(inner)
                this.act(name, inner, ())

        args, kwargs = this.random.choice([((), {}), ((1,), {}), ((1, 2), {}), ((1, 2, 3), {}), ((1,), {"self": 2})])
        if self.asynchronous and self.random.random() < 0.6:
            pushes: list[Callable[[], object]] = [
                lambda: stack.push_async_callback(callback_later, *args, **kwargs) is callback_later,
                lambda: stack.push_async_exit(leave_later) is leave_later,
                lambda: type(stack.push_async_exit(Manager())).__name__,
                lambda: stack.enter_async_context(Manager()),
            ]
        else:
            pushes = [
                lambda: stack.callback(callback, *args, **kwargs) is callback,
                lambda: stack.push(leave) is leave,
                lambda: type(stack.push(Manager())).__name__,
                lambda: stack.enter_context(Manager()),
                lambda: stack.enter_context(generator()),
                lambda: stack.callback(nested) is nested,
            ]
        return self.random.choice(pushes)()

    def register_sync(self, stack: Any) -> None:
        before, self.asynchronous = self.asynchronous, False
        try:
            self.note("pushed", self.register(stack))
        finally:
            self.asynchronous = before

    def body(self, stack: Any) -> None:
        if self.random.random() < 0.5:
            raise self.error()

    def run(self) -> None:
        with self.module.ExitStack() as stack:
            for _ in range(self.random.randrange(6)):
                self.note("pushed", self.register(stack))
            self.body(stack)
        self.note("left normally")

    async def run_later(self) -> None:
        async with self.module.AsyncExitStack() as stack:
            for _ in range(self.random.randrange(6)):
                pushed = self.register(stack)
                self.note("pushed", await pushed if hasattr(pushed, "__await__") else pushed)
            self.body(stack)
        self.note("left normally")

    def drive(self) -> None:
        """Runs the coroutine; at some yields it gets an exception or is closed."""
        coroutine = self.run_later()
        action: Callable[[], object] = lambda: coroutine.send(None)  # noqa: E731
        for _ in range(100):
            try:
                self.note("yields", action())
            except StopIteration as stop:
                self.note("returns", chain(stop.value))
                return
            choice = self.random.randrange(10)
            if choice == 0:
                error = self.error()
                action = lambda error=error: coroutine.throw(error)  # type: ignore[misc]  # noqa: E731
            elif choice == 1 and self.random.random() < 0.3:
                coroutine.close()
                self.note("closed")
                return
            else:
                action = lambda value=choice: coroutine.send(value)  # type: ignore[misc]  # noqa: E731
        self.note("goes on")
        coroutine.close()


def lines_of(seed: int, module: Any, asynchronous: bool, peeks: bool) -> list[str]:
    """Runs it inside a handler now and then, since exceptions handled outside are contexts, too."""
    program = Program(seed, module, asynchronous, peeks)

    def go() -> None:
        try:
            program.drive() if asynchronous else program.run()
        except BaseException as error:
            program.note("raises", chain(error), "while", chain(sys.exc_info()[1].__context__))  # type: ignore[union-attr]

    if seed % 3:
        go()
    else:
        try:
            raise OSError("outside")
        except OSError:
            go()
    return program.lines
