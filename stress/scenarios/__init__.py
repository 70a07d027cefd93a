"""One file a scenario, named after the real behaviour it imitates. Each says what it runs: plans(options)."""
from __future__ import annotations

from types import ModuleType

from stress.scenarios import burst, churn, fork, interrupt, migrate, oversubscribe, resize, threads

ALL: dict[str, ModuleType] = {
    "migrate": migrate,
    "churn": churn,
    "burst": burst,
    "oversubscribe": oversubscribe,
    "interrupt": interrupt,
    "resize": resize,
    "threads": threads,
    "fork": fork,
}
