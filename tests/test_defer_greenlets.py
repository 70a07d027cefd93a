"""Greenlets that are left in their middle and resumed in another order keep their own deferred calls."""
from __future__ import annotations

import random
import sysconfig
from typing import Any

import pytest
from helpers import output_of

from deferpool import defer, deferring, recover

if sysconfig.get_config_var("Py_GIL_DISABLED"):
    pytest.skip("greenlet would switch the GIL back on", allow_module_level=True)
greenlet = pytest.importorskip("greenlet")


def test_two_functions_are_left_in_their_middle() -> None:
    logs: dict[str, list[Any]] = {"a": [], "b": []}

    @deferring
    def function(name: str) -> None:
        defer(logs[name].append, 1)
        main.switch()
        defer(logs[name].append, 2)
        main.switch()

    main = greenlet.getcurrent()
    made = {name: greenlet.greenlet(function) for name in "ab"}
    made["a"].switch("a")
    made["b"].switch("b")
    made["a"].switch()
    made["b"].switch()
    made["a"].switch()
    assert logs == {"a": [2, 1], "b": []}
    made["b"].switch()
    assert logs == {"a": [2, 1], "b": [2, 1]}


@pytest.mark.parametrize("below", [False, True])
def test_the_same_function_begun_and_left_before_it_defers(below: bool) -> None:
    """Nothing tells their activations apart but the frame, and that is not known yet."""
    logs: list[list[Any]] = [[] for _ in range(5)]

    @deferring
    def function(log: list[Any]) -> None:
        main.switch()
        defer(log.append, "first")
        main.switch()
        defer(log.append, "second")

    main = greenlet.getcurrent()
    begins: Any = (lambda log: function(log)) if below else function
    made = [greenlet.greenlet(begins) for _ in logs]
    for each, log in zip(made, logs, strict=True):
        each.switch(log)
    for order in (range(5), range(4, -1, -1)):
        for i in order:
            made[i].switch()
    assert logs == [["second", "first"]] * 5


def test_one_is_left_while_it_unwinds() -> None:
    log: list[Any] = []

    def cleanup(name: str) -> None:
        main.switch()
        log.append((name, recover()))

    @deferring
    def function(name: str) -> None:
        defer(cleanup, name)
        raise KeyError(name)

    main = greenlet.getcurrent()
    made = [greenlet.greenlet(function) for _ in range(3)]
    for i, each in enumerate(made):
        each.switch(str(i))
    for each in made:
        each.switch()
    assert repr(log) == "[('0', KeyError('0')), ('1', KeyError('1')), ('2', KeyError('2'))]"
    assert all(each.dead for each in made)


def test_many_in_any_order() -> None:
    chosen = random.Random(7)
    logs: list[list[int]] = [[] for _ in range(200)]

    @deferring
    def function(log: list[int], depth: int) -> None:
        main.switch()
        defer(log.append, depth)
        if depth:
            function(log, depth - 1)
        main.switch()

    main = greenlet.getcurrent()
    made = [greenlet.greenlet(function) for _ in logs]
    for each, log in zip(made, logs, strict=True):
        each.switch(log, 5)
    alive = list(made)
    while alive:
        chosen.choice(alive).switch()
        alive = [each for each in alive if not each.dead]
    assert logs == [list(range(6))] * 200


def test_greenlets_that_are_imported_meanwhile() -> None:
    code = """if True:
        import _thread, deferpool, time
        told = []
        @deferpool.deferring
        def function():
            import greenlet
            deferpool.defer(told.append, "deferred")
        _thread.start_new_thread(function, ())
        while not told:
            time.sleep(0.001)
        print(told)
    """
    assert output_of(code) == "['deferred']"
