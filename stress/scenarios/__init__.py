"""One file a scenario, named after the real behaviour it imitates. Each says what it runs: plans(options)."""
from __future__ import annotations

from types import ModuleType

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
