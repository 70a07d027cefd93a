"""The stress suite with Python objects and buffers: what is run, that it is really these, and that faults are seen."""
from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from helpers import CPUS

import deferpool
from stress._faces import SCALE, Buffers, LocalLists, Objects, living_cells
from stress._ledger import Ledger
from stress._load import Load
from stress.calls import give, take
from stress.checks import judge
from stress.plan import BUFFERS, DEFERPOOL, LOCAL_LISTS, OBJECTS, RECORDS, Options, Plan, Result
from stress.runner import run
from stress.scenarios import ALL, DEFAULT, OF_RECORDS, plans_of

SHORT = {"seconds": 0.2, "seed": 9, "modes": ("portable",)}


def judged(plan: Plan) -> Result:
    result = run(plan, lambda share, ops, cached, bound: None)
    judge(result)
    return result


def plan_of(name: str, items: str, **more: Any) -> Plan:
    options = Options(scenarios=(name,), items=(items,), **{**SHORT, **more})
    return next(plan for plan in plans_of(options) if plan.design == DEFERPOOL)


def test_every_scenario_is_run_with_all_items_that_it_can_have() -> None:
    options = Options(scenarios=DEFAULT, items=(RECORDS, OBJECTS, BUFFERS))
    runs = {(plan.scenario, plan.items, plan.mode) for plan in plans_of(options) if plan.design == DEFERPOOL}
    for name in DEFAULT:
        for items in (RECORDS, OBJECTS, BUFFERS):
            wanted = set(options.modes) if items == RECORDS or name not in OF_RECORDS else set()
            assert {mode for scenario, what, mode in runs if (scenario, what) == (name, items)} == wanted, name
    assert set(OF_RECORDS) < set(ALL)


@pytest.mark.parametrize("items", [OBJECTS, BUFFERS])
@pytest.mark.parametrize("name", ["churn", "burst", "collect", "starve", "mixed", "threads"])
def test_a_run_that_holds(name: str, items: str) -> None:
    seconds = 0.2
    result = judged(plan_of(name, items, seconds=seconds))
    while result.books["takes"] <= 100 and seconds < 10:  # a busy machine: the threads have hardly begun
        seconds *= 4
        result = judged(plan_of(name, items, seconds=seconds))
    assert result.broken == []
    assert result.books["takes"] == result.books["gives"] == result.stats["gets"] > 100
    assert result.books["created"] > 0
    assert f"{name}" in result.plan.title
    assert f"of {items}" in result.plan.title


def test_finalizers_call_back_by_the_thousand() -> None:
    result = judged(plan_of("limit", OBJECTS, seconds=0.5, limit=0))
    assert result.broken == []
    assert result.books["called_back"] > 1_000


def test_objects_pass_from_one_thread_to_another_and_lists_grow() -> None:
    options = Options(scenarios=("migrate",), items=(OBJECTS,), ops=40_000, seed=1, modes=("portable",))
    lists, pool = plans_of(options)
    assert (lists.design, lists.threads, pool.threads) == (LOCAL_LISTS, 2, 2)
    grown, held = judged(lists), judged(pool)
    assert grown.broken == held.broken == []
    assert (grown.verdict, held.verdict) == ("grows", "held")
    assert grown.curve[-1][1] == 20_000
    assert 0 < held.books["peak_cached"] <= (held.bound or 0)


def test_ten_millions_where_nothing_else_is_asked_for() -> None:
    alone = plans_of(Options(scenarios=("migrate",), items=(OBJECTS,)))
    among = plans_of(Options(scenarios=("migrate",), items=(RECORDS, OBJECTS, BUFFERS)))
    assert {plan.ops for plan in alone} == {20_000_000}
    assert {plan.ops for plan in among if plan.items == OBJECTS} == {1_000_000}


# ---- faults are seen ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("items", [OBJECTS, BUFFERS])
def test_a_take_and_a_give_are_the_pool_s(items: str) -> None:
    ledger = Ledger()
    sched = deferpool.Sched(CPUS, portable=True)
    face = (Objects(ledger, cap=4, limit=10, sched=sched) if items == OBJECTS
            else Buffers((16, 32), ledger, cap=4, limit=10, sched=sched))
    load = Load(face, ledger, 1, seed=1)
    load.run_churn(0, 8, 100)
    load.stop()
    stats, books = face.stats(), load.books()
    assert stats["gets"] == stats["puts"] == books["takes"] > 10
    assert stats["created"] == books["created"] > 0
    assert load.violated() == {}
    assert face.error is None


def test_an_object_with_two_owners_is_seen() -> None:
    ledger = Ledger()
    pool = Objects(ledger, cap=4, limit=10, sched=deferpool.Sched(CPUS, portable=True))
    load = Load(pool, ledger, 2, seed=1)
    cell = take(load, pool, 0, 64)
    assert cell is not None
    pool.free(cell)  # while thread 0 has it: reset wipes its mark
    again = pool.new(64)
    assert again is cell
    assert load.took(1, again.address, 64)
    give(load, pool, 0, cell, 0)  # it is thread 1's now
    assert set(load.violated()) == {"one-owner"}


def test_an_object_that_was_not_reset_is_seen() -> None:
    ledger = Ledger()
    pool = Objects(ledger, cap=4, limit=10, sched=deferpool.Sched(CPUS, portable=True))
    load = Load(pool, ledger, 1, seed=1)
    cell = pool.new(64)
    load.taking(0)
    assert load.took(0, cell.address, 64)
    load.giving(0, cell.address, 64, 0)  # wiped of its owner, and of nothing else
    assert load.took(0, cell.address, 64)
    assert set(load.violated()) == {"no-pin"}


def test_a_call_that_raises_is_told() -> None:
    plan = plan_of("churn", OBJECTS)

    def body(load: Load, pool: Any, thread: int) -> None:
        pool.pool.close()
        load.run_churn(thread, 4, 100)

    result = judged(replace(plan, body=body, threads=1))
    assert any(text.startswith("alive: a call of the pool raised RuntimeError") for text in result.broken)


def test_cells_are_counted() -> None:
    ledger = Ledger()
    lists = LocalLists(ledger)
    before = living_cells()
    cells = [lists.new(16) for _ in range(3)]
    assert living_cells() == before + 3
    lists.free(cells.pop())
    assert (lists.new(16).address or 0) % 16 == 0
    del cells
    assert ledger.created == 3


def test_a_buffer_is_as_large_as_its_class() -> None:
    pool = Buffers((16, 32), Ledger(), cap=4, limit=10, sched=deferpool.Sched(CPUS, portable=True))
    assert isinstance(pool.pool, deferpool.BufferPool)
    assert pool.pool.classes == (16 * SCALE, 32 * SCALE)
