"""Concurrency tests for your own CI: threads that hammer a function, and checks that find a pool with a race.

Nothing here needs a deferpool pool, or pytest; with pytest there are a fixture and a marker, both named `hammer`.
Names are loaded when they are first used: pytest loads the plugin, and with it this file, in every session.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deferpool.testing._checked import Checked, OwnershipError
    from deferpool.testing._crew import Crew, Failure, stacks
    from deferpool.testing._figures import HasStats, assert_bounded, assert_conserved
    from deferpool.testing._hammer import Hammer, HammerResult, Hung, Worker, hammer

__all__ = [
    "Checked", "Crew", "Failure", "Hammer", "HammerResult", "HasStats", "Hung", "OwnershipError", "Worker",
    "assert_bounded", "assert_conserved", "hammer", "stacks",
]
_FILES = {
    "_checked": ("Checked", "OwnershipError"),
    "_crew": ("Crew", "Failure", "stacks"),
    "_figures": ("HasStats", "assert_bounded", "assert_conserved"),
    "_hammer": ("Hammer", "HammerResult", "Hung", "Worker", "hammer"),
}


def __getattr__(name: str) -> object:
    for file, names in _FILES.items():
        if name in names:
            globals()[name] = value = getattr(import_module(f"{__name__}.{file}"), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
