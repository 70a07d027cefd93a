"""defer: what runs when, and what the exceptions look like. Each test is a row of docs/defer.md."""
from __future__ import annotations

import inspect
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import pytest

import deferpool
from deferpool import defer, deferring


def test_last_in_first_out() -> None:
    log: list[object] = []

    @deferring
    def function() -> str:
        for i in range(3):
            defer(log.append, i)
        log.append("body")
        return "result"

    assert function() == "result"
    assert log == ["body", 2, 1, 0]


def test_arguments_are_evaluated_now() -> None:
    log: list[tuple[object, ...]] = []

    def note(*args: object, **kwargs: object) -> None:
        log.append((*args, *sorted(kwargs.items())))

    @deferring
    def function() -> None:
        x = 1
        defer(note, x, y=x)
        x = 2
        defer(note, x, 3, a=x, b=4)

    function()
    assert log == [(2, 3, ("a", 2), ("b", 4)), (1, ("y", 1))]


def test_it_returns_what_it_is_given_and_so_decorates() -> None:
    log: list[str] = []

    @deferring
    def function() -> None:
        @defer
        def later() -> None:
            log.append("later")

        assert callable(later)
        later()
        assert log == ["later"]

    function()
    assert log == ["later", "later"]


@pytest.mark.parametrize("count", range(12))
def test_any_number_of_arguments(count: int) -> None:
    """Five size classes of records; more arguments bypass them."""
    log: list[object] = []

    def note(*args: object, **kwargs: object) -> None:
        log.append((args, kwargs))

    @deferring
    def function() -> None:
        defer(note, *range(count))
        defer(note, **{f"k{i}": i for i in range(count)})

    function()
    assert log == [((), {f"k{i}": i for i in range(count)}), (tuple(range(count)), {})]


def test_what_the_function_returns_is_not_what_deferred_calls_return() -> None:
    @deferring
    def function() -> int:
        defer(lambda: 5)
        return 1

    assert function() == 1


def test_in_a_function_that_is_not_deferring() -> None:
    def helper() -> None:
        defer(print)

    @deferring
    def function() -> None:
        helper()

    with pytest.raises(RuntimeError, match=r"defer\(\) in .*helper\(\), which is not @deferring"):
        function()
    with pytest.raises(RuntimeError, match="helper"):
        helper()


def test_in_a_helper_even_when_the_function_has_deferred_before() -> None:
    log: list[int] = []

    def helper() -> None:
        defer(log.append, 1)

    @deferring
    def function() -> None:
        defer(log.append, 2)
        helper()

    with pytest.raises(RuntimeError, match="helper"):
        function()
    assert log == [2]


def test_in_the_undecorated_function_called_by_itself() -> None:
    """Same code, but an activation that nobody notes."""
    log: list[int] = []

    @deferring
    def function(depth: int) -> None:
        if depth:
            function.__wrapped__(depth - 1)  # type: ignore[attr-defined]
        defer(log.append, depth)

    with pytest.raises(RuntimeError, match="function"):
        function(1)
    assert log == []


def test_in_a_module() -> None:
    with pytest.raises(RuntimeError, match=r"defer\(\) in a module"):
        exec("defer(print)", {"defer": defer})


def test_in_a_comprehension() -> None:
    """Of the function that it stands in, in every version of Python."""
    log: list[int] = []

    @deferring
    def function() -> None:
        [defer(log.append, i) for i in range(2)]
        {defer(log.append, i) for i in range(2, 4)}

    function()
    assert log == [3, 2, 1, 0]


def test_by_way_of_a_c_function() -> None:
    log: list[int] = []

    @deferring
    def function() -> None:
        assert list(map(defer, [log.clear, log.copy])) == [log.clear, log.copy]

    function()


def test_signatures() -> None:
    assert str(inspect.signature(deferpool.defer)) == "(function, /, *args, **kwargs)"
    assert str(inspect.signature(deferpool.recover)) == "(*, returning=None)"
    assert str(inspect.signature(deferpool.goexit)) == "()"
    inspect.signature(deferpool.defer).bind(print, 1, end="")


@pytest.mark.parametrize("nothing", [None, 1, "print"])
def test_something_that_is_not_callable_is_refused_at_once(nothing: Any) -> None:
    log: list[int] = []

    @deferring
    def function() -> None:
        defer(log.append, 1)
        defer(nothing)

    with pytest.raises(TypeError, match=f"not {type(nothing).__name__}"):
        function()
    assert log == [1]


def test_no_arguments_at_all() -> None:
    @deferring
    def function() -> None:
        defer()  # type: ignore[call-arg]

    with pytest.raises(TypeError, match="needs a callable"):
        function()


def test_arguments_that_raise_register_nothing() -> None:
    log: list[object] = []

    @deferring
    def function() -> None:
        defer(log.append, 1)
        defer(log.append, 1 // 0)

    with pytest.raises(ZeroDivisionError):
        function()
    assert log == [1]


def test_one_that_raises_does_not_stop_the_others() -> None:
    log: list[int] = []

    @deferring
    def function() -> None:
        defer(log.append, 1)
        defer(lambda: 1 // 0)
        defer(log.append, 2)

    with pytest.raises(ZeroDivisionError):
        function()
    assert log == [2, 1]


# ---- exceptions: as with nested finally clauses ----------------------------------------

def chain(error: BaseException | None) -> list[str]:
    found = []
    while error is not None:
        found.append(f"{error!r} from {error.__cause__!r} {error.__suppress_context__}")
        error = error.__context__
    return found


class First(Exception):
    pass


def raises(kind: type[BaseException]) -> Callable[[], None]:
    def function() -> None:
        raise kind

    return function


def raises_from(kind: type[BaseException], cause: type[BaseException]) -> Callable[[], None]:
    def function() -> None:
        raise kind from cause()

    return function


def raises_again() -> None:
    error = sys.exc_info()[1]
    if error is not None:
        raise error


def raises_and_handles() -> None:
    try:
        raise KeyError
    except KeyError:
        pass


def raises_in_c() -> None:
    int("x")


CALLS: list[tuple[Callable[[], None], ...]] = [
    (raises(KeyError), raises(IndexError)),
    (raises_from(KeyError, OSError), raises(IndexError)),
    (raises(KeyError), raises_again),
    (raises_again, raises(KeyError), raises_again),
    (raises_and_handles, raises(KeyError), raises_and_handles),
    (raises_in_c, raises_in_c),
    (raises(KeyboardInterrupt), raises(KeyError)),
]


@pytest.mark.parametrize("body", [raises(First), lambda: None])
@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.parametrize("outside", [False, True])
def test_exceptions_are_chained_as_by_nested_finally_clauses(
    body: Callable[[], None], calls: tuple[Callable[[], None], ...], outside: bool
) -> None:
    @deferring
    def ours() -> None:
        for call in calls:
            defer(call)
        body()

    def nested(left: tuple[Callable[[], None], ...]) -> None:
        if not left:
            body()
            return
        try:
            nested(left[1:])
        finally:
            left[0]()

    def ends_with(function: Callable[[], None]) -> list[str]:
        try:
            if outside:
                try:
                    raise LookupError("outside")
                except LookupError:
                    function()
            else:
                function()
        except BaseException as error:
            return chain(error)
        return []

    assert ends_with(ours) == ends_with(lambda: nested(calls))
    assert sys.exc_info() == (None, None, None)


def test_a_deferred_call_sees_the_exception_in_flight_and_no_other() -> None:
    seen: list[object] = []

    def look() -> None:
        seen.append(sys.exc_info()[1])

    @deferring
    def fails() -> None:
        defer(look)
        raise First

    @deferring
    def does_not() -> None:
        defer(look)

    with pytest.raises(First) as caught:
        fails()
    does_not()
    outside = KeyError()
    try:
        raise outside
    except KeyError:
        does_not()
    assert seen == [caught.value, None, outside]


def lines(error: BaseException) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{frame.name} in {frame.filename.rpartition('/')[2]}" for frame in frames]


def test_tracebacks_show_user_code_only() -> None:
    @deferring
    def inner() -> None:
        defer(raises(KeyError))
        raise First

    @deferring
    def outer() -> None:
        defer(lambda: None)
        inner()

    here = "in test_defer.py"
    with pytest.raises(KeyError) as caught:
        outer()
    assert lines(caught.value) == [f"test_tracebacks_show_user_code_only {here}", f"outer {here}", f"function {here}"]
    assert caught.value.__context__ is not None
    assert lines(caught.value.__context__) == [f"inner {here}"]


# ---- many, deep, everywhere ----------------------------------------

def test_ten_thousand_in_a_loop() -> None:
    log: list[int] = []

    @deferring
    def function() -> None:
        for i in range(10_000):
            defer(log.append, i)

    function()
    assert log == list(range(9_999, -1, -1))


def test_recursion_to_the_limit() -> None:
    ended: list[int] = []

    @deferring
    def function(depth: int) -> None:
        defer(ended.append, depth)
        function(depth + 1)

    with pytest.raises(RecursionError):
        function(0)
    assert len(ended) > 100
    assert ended == list(range(ended[0], -1, -1))
    ended.clear()
    with pytest.raises(RecursionError):
        function(0)
    assert ended


def test_threads_have_their_own() -> None:
    logs: list[list[int]] = [[] for _ in range(8)]
    barrier = threading.Barrier(8)

    @deferring
    def function(log: list[int], depth: int) -> None:
        defer(log.append, depth)
        if depth:
            function(log, depth - 1)

    def work(log: list[int]) -> None:
        barrier.wait()
        for _ in range(300):
            function(log, 20)

    threads = [threading.Thread(target=work, args=(log,)) for log in logs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(log == list(range(21)) * 300 for log in logs)


def test_records_come_from_a_bounded_pool() -> None:
    def records() -> dict[str, Any]:
        pools = deferpool.stats()["pools"]
        return next(pool for pool in pools if len(pool["per_p"][0]) == 5 and pool["gets"] >= 10_000)

    test_ten_thousand_in_a_loop()
    before = records()
    test_ten_thousand_in_a_loop()
    after = records()
    assert after["gets"] - before["gets"] >= 10_000
    assert after["puts"] - before["puts"] >= 10_000
    assert after["live"] == before["live"] == 0
    assert after["cached"] <= after["bound"]


def test_a_deferred_function_that_defers() -> None:
    log: list[str] = []

    @deferring
    def cleanup() -> None:
        defer(log.append, "inner")
        log.append("cleanup")

    @deferring
    def function() -> None:
        defer(log.append, "outer")
        defer(cleanup)

    function()
    assert log == ["cleanup", "inner", "outer"]


def test_a_deferred_function_that_is_not_deferring_cannot_defer() -> None:
    """Not even when its frame lies where that of the function lay."""
    log: list[str] = []

    def cleanup() -> None:
        defer(log.append, "never")

    @deferring
    def function() -> None:
        defer(cleanup)

    with pytest.raises(RuntimeError, match="cleanup"):
        function()
    assert log == []
