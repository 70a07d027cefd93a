"""recover and Goexit: who may stop what. Each test is a row of docs/defer.md."""
from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from helpers import ROOT

from deferpool import Goexit, defer, deferring, goexit, recover

FATAL = [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, BaseException]


def recovered_by(*calls: Callable[..., object], error: BaseException | None = None) -> Any:
    @deferring
    def function() -> Any:
        for call in calls:
            defer(call)
        if error is not None:
            raise error
        return "returned"

    return function()


def noting(log: list[Any], **options: Any) -> Callable[[], None]:
    def recovers() -> None:
        log.append(recover(**options))

    return recovers


def test_it_stops_an_exception_and_gives_it() -> None:
    error, log = ValueError("x"), list[Any]()
    assert recovered_by(noting(log), error=error) is None
    assert log == [error]
    assert sys.exc_info() == (None, None, None)


def test_the_function_returns_what_recover_is_told() -> None:
    log: list[Any] = []
    assert recovered_by(noting(log, returning=7), error=ValueError()) == 7


@pytest.mark.parametrize("wrap", [lambda call: call, partial, lambda call: partial(partial(call))])
def test_called_directly_by_the_deferred_call(wrap: Callable[[Any], Any]) -> None:
    log: list[Any] = []
    error = ValueError()
    recovered_by(wrap(noting(log)), error=error)
    assert log == [error]


def test_called_by_a_deferred_method() -> None:
    class Closes:
        found: BaseException | None = None

        def close(self) -> None:
            self.found = recover()

        def __call__(self) -> None:
            self.found = recover()

    closes = Closes()
    recovered_by(closes.close, error=ValueError())
    assert isinstance(closes.found, ValueError)
    recovered_by(closes, error=KeyError())
    assert isinstance(closes.found, KeyError)


def test_called_by_a_helper_of_the_deferred_call() -> None:
    log: list[Any] = []
    helper = noting(log)
    with pytest.raises(ValueError, match="x"):
        recovered_by(lambda: helper(), error=ValueError("x"))
    assert log == [None]


def test_called_by_a_c_function_that_is_the_deferred_call() -> None:
    log: list[Any] = []

    def key(value: int) -> int:
        log.append(recover())
        return value

    with pytest.raises(ValueError, match="x"):
        recovered_by(partial(sorted, [1], key=key), error=ValueError("x"))
    assert log == [None]


def test_outside_of_any_deferred_call() -> None:
    assert recover() is None
    try:
        raise ValueError
    except ValueError:
        assert recover() is None

    @deferring
    def function() -> None:
        assert recover() is None

    function()


def test_when_the_function_ends_normally() -> None:
    log: list[Any] = []
    assert recovered_by(noting(log, returning=3)) == "returned"
    assert log == [None]


def test_deferred_by_itself_it_stops_nothing() -> None:
    with pytest.raises(ValueError, match="x"):
        recovered_by(recover, error=ValueError("x"))


def test_deferred_by_a_deferred_call_it_does() -> None:
    @deferring
    def cleanup() -> None:
        defer(recover, returning=5)

    assert recovered_by(cleanup, error=ValueError("x")) == 5


def test_deferred_by_a_helper_of_the_deferred_call_it_does_not() -> None:
    @deferring
    def helper() -> None:
        defer(recover)

    with pytest.raises(ValueError, match="x"):
        recovered_by(lambda: helper(), error=ValueError("x"))


def test_called_by_a_deferred_call_that_is_deferring() -> None:
    log: list[Any] = []

    @deferring
    def cleanup() -> None:
        defer(log.append, "ended")
        log.append(recover())

    error = ValueError()
    assert recovered_by(cleanup, error=error) is None
    assert log == [error, "ended"]


def test_a_second_recover_gives_none() -> None:
    log: list[Any] = []

    def twice() -> None:
        log.extend([recover(), recover()])

    error = ValueError()
    recovered_by(noting(log), twice, error=error)
    assert log == [error, None, None]


def test_the_other_deferred_calls_still_run() -> None:
    log: list[Any] = []
    recovered_by(lambda: log.append(sys.exc_info()[1]), noting([]), error=ValueError())
    assert log == [None]


def test_a_new_exception_after_a_recover_goes_on() -> None:
    def recovers_and_raises() -> None:
        recover()
        raise KeyError("new")

    error = ValueError("old")
    with pytest.raises(KeyError, match="new") as caught:
        recovered_by(recovers_and_raises, error=error)
    assert caught.value.__context__ is error


def test_a_deferred_call_that_raises_replaces_the_exception() -> None:
    log: list[Any] = []
    error = ValueError("old")

    def fails() -> None:
        raise KeyError("new")

    recovered_by(noting(log), noting(log), fails, error=error)
    assert [repr(each) for each in log] == ["KeyError('new')", "None"]
    assert log[0].__context__ is error


def test_an_exception_of_a_deferred_call_of_a_normal_end_can_be_stopped() -> None:
    """What the function had returned is gone: unlike Go's, results here have no names to keep them under."""
    log: list[Any] = []

    def fails() -> None:
        raise KeyError("new")

    assert recovered_by(noting(log), fails) is None
    assert repr(log[0]) == "KeyError('new')"


@pytest.mark.parametrize("kind", FATAL)
def test_it_never_stops(kind: type[BaseException]) -> None:
    log: list[Any] = []
    with pytest.raises(kind):
        recovered_by(noting(log), error=kind())
    assert log == [None]


@pytest.mark.parametrize("kind", FATAL)
def test_it_never_stops_by_way_of_what_replaced_them(kind: type[BaseException]) -> None:
    log: list[Any] = []

    def fails() -> None:
        raise KeyError("new")

    with pytest.raises(kind):
        recovered_by(noting(log), fails, error=kind())
    assert repr(log) == "[KeyError('new')]"


def test_the_callers_exception_is_not_recovered() -> None:
    """A deferred call that calls a deferring function: in there nothing is in flight."""
    log: list[Any] = []

    @deferring
    def inner() -> None:
        defer(noting(log))

    with pytest.raises(ValueError, match="x"):
        recovered_by(lambda: inner(), error=ValueError("x"))
    assert log == [None]


@pytest.mark.parametrize(("arguments", "named"), [((1,), {}), ((), {"other": 1}), ((), {"returning": 1, "other": 2})])
def test_wrong_arguments(arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="recover"):
        recover(*arguments, **named)


# ---- Goexit ----------------------------------------

def in_thread(function: Callable[[], object]) -> list[type[BaseException]]:
    """The uncaught exceptions that its hook was told of."""
    told: list[type[BaseException]] = []
    before = threading.excepthook
    threading.excepthook = lambda args: told.append(args.exc_type)
    try:
        thread = threading.Thread(target=function)
        thread.start()
        thread.join()
    finally:
        threading.excepthook = before
    return told


def test_goexit_ends_a_thread_silently_and_runs_everything() -> None:
    log: list[Any] = []

    @deferring
    def inner() -> None:
        defer(log.append, "inner")
        goexit()

    def between() -> None:
        inner()
        log.append("never")

    @deferring
    def outer() -> None:
        defer(log.append, "outer")
        between()

    assert in_thread(outer) == []
    assert log == ["inner", "outer"]


def test_another_exception_still_reaches_the_hook() -> None:
    def fails() -> None:
        try:
            goexit()
        except Goexit:
            raise KeyError from None

    assert in_thread(fails) == [KeyError]


def test_goexit_cannot_be_recovered() -> None:
    log: list[Any] = []
    with pytest.raises(Goexit):
        recovered_by(noting(log), error=Goexit())
    assert log == [None]


def test_an_exception_during_goexit_can_be_and_then_goexit_goes_on() -> None:
    log: list[Any] = []

    def fails() -> None:
        raise KeyError

    with pytest.raises(Goexit):
        recovered_by(lambda: log.append("after"), noting(log), fails, error=Goexit())
    assert repr(log) == "[KeyError(), 'after']"


def test_also_further_out() -> None:
    log: list[Any] = []

    @deferring
    def inner() -> None:
        @defer
        def fails() -> None:
            raise KeyError

        goexit()

    @deferring
    def outer() -> None:
        defer(noting(log))
        inner()

    with pytest.raises(Goexit):
        outer()
    assert repr(log) == "[KeyError()]"


def test_what_an_exception_says_of_its_context_is_not_asked() -> None:
    class Says(Exception):
        @property
        def __context__(self) -> Any:
            raise OSError

        @__context__.setter
        def __context__(self, context: Any) -> None:
            raise OSError

    @deferring
    def function() -> None:
        @defer
        def _() -> None:
            assert isinstance(recover(), Says)
        raise Says

    function()


def test_goexit_during_an_exception_drops_it() -> None:
    log: list[Any] = []

    def work() -> None:
        recovered_by(noting(log), goexit, error=ValueError())

    assert in_thread(work) == []
    assert log == [None]


def test_goexit_in_the_main_thread_is_an_uncaught_exception() -> None:
    code = """
from deferpool import deferring, defer, goexit
@deferring
def main():
    defer(print, "deferred")
    goexit()
main()
"""
    import subprocess

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == "deferred\n"
    assert "Goexit" in done.stderr


def test_goexit_in_a_task_ends_the_task() -> None:
    log: list[Any] = []

    @deferring
    async def task() -> None:
        defer(log.append, "deferred")
        await asyncio.sleep(0)
        goexit()

    async def main() -> None:
        started = asyncio.ensure_future(task())
        await asyncio.wait([started])
        assert isinstance(started.exception(), Goexit)
        log.append("the loop goes on")

    asyncio.run(main())
    assert log == ["deferred", "the loop goes on"]


def test_goexit_in_an_executor_ends_the_piece_of_work() -> None:
    with ThreadPoolExecutor(1) as executor:
        ended = executor.submit(goexit)
        with pytest.raises(Goexit):
            ended.result()
        assert executor.submit(int, "5").result() == 5


def test_what_is_replaced_beneath_is_gone() -> None:
    """The one that no recover stops is the last that was raised of its kind."""
    def raises(error: BaseException) -> None:
        raise error

    @deferring
    def function() -> None:
        defer(lambda: recover())
        defer(raises, ValueError(2))
        defer(raises, SystemExit(3))
        defer(raises, ValueError(1))
        raise KeyboardInterrupt

    with pytest.raises(SystemExit, match="3"):
        function()


class Thing:
    pass


def test_a_result_that_an_exception_has_replaced_is_let_go() -> None:
    made: list[weakref.ref[Thing]] = []

    @deferring
    def function() -> Thing:
        defer(lambda: recover())
        defer(lambda: 1 / 0)
        thing = Thing()
        made.append(weakref.ref(thing))
        return thing

    for _ in range(20):
        assert function() is None
    gc.collect()
    assert [each() for each in made] == [None] * 20


def test_what_is_handled_around_a_recover_is_not_kept() -> None:
    @deferring
    def function() -> None:
        defer(lambda: recover())
        raise KeyError

    handled = ValueError()
    before = sys.getrefcount(handled)
    try:
        raise handled
    except ValueError:
        for _ in range(50):
            function()
    assert sys.getrefcount(handled) <= before + 5
