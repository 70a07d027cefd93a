"""One file a scenario, named after the real behaviour it imitates. Each says what it runs: plans(options).

With records, that is. The same runs are made with Python objects and with buffers, unless what the scenario does is
done to records only.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

from stress.plan import DEFERPOOL, OBJECTS, RECORDS, Options, Plan
from stress.scenarios import (
    burst,
    churn,
    collect,
    defer,
    exitstack,
    fork,
    interrupt,
    limit,
    migrate,
    mixed,
    oversubscribe,
    resize,
    soak,
    starve,
    threads,
)

ALL: dict[str, ModuleType] = {
    "migrate": migrate,
    "churn": churn,
    "burst": burst,
    "oversubscribe": oversubscribe,
    "interrupt": interrupt,
    "resize": resize,
    "threads": threads,
    "fork": fork,
    "collect": collect,
    "starve": starve,
    "limit": limit,
    "mixed": mixed,
    "defer": defer,
    "exitstack": exitstack,
    "soak": soak,
}
DEFAULT = tuple(name for name in ALL if name != "soak")  # what runs unless somebody asks: minutes, not hours
OF_RECORDS = ("interrupt", "defer", "exitstack")  # the engine's own primitives, and what holds records by itself
SECONDS = 1.0  # of a run with objects or buffers: the engine below is the same
OBJECT = (112,)  # the one class of objects, as a size of records: the largest that a scenario asks for


def plans_of(options: Options) -> list[Plan]:
    """All runs that these options ask for, in order."""
    return [plan for name in options.scenarios for items in options.items for plan in _plans(name, options, items)]


def _plans(name: str, options: Options, items: str) -> Iterator[Plan]:
    scenario = ALL[name]
    if items == RECORDS:
        yield from scenario.plans(options)
    elif name == "migrate":
        yield from migrate.plans_of(options, items)
    elif name not in OF_RECORDS:
        short = options.seconds if options.seconds or options.ops or name == "soak" else SECONDS
        for plan in scenario.plans(replace(options, calls=("nogil",), seconds=short)):
            if plan.design == DEFERPOOL:
                sizes = OBJECT if items == OBJECTS else plan.sizes
                yield replace(plan, items=items, sizes=sizes)
