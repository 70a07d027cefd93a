"""What can catch a planted bug: what to build, and what to run, on this machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stress import machine, variants

LIMIT_S = 60.0  # from the start of its build to the first catch; who takes longer is said to be late
EXPLORED = "explored.json"
ENGINE_TESTS = (
    "origin",
    "local_bound",
    "total_bound",
    "reuse",
    "one_owner",
    "conservation",
    "no_pin",
    "clear",
    "resize",
    "failure",
    "fork",
    "thread_exit",
    "records",
    "sched",
    "stats",
    "instructions",
    "handles",
    "buffer_bounds",
)
FACE_TESTS = (
    "pool",
    "pool_lease",
    "pool_end",
    "pool_finalizers",
    "pool_waiting",
    "pool_async",
    "pool_debug",
    "pool_leaks",
    "pool_threads",
    "defer",
    "recover",
    "deferring",
    "deferring_kinds",
    "deferring_generators",
    "deferring_endings",
    "deferring_dropped",
    "deferring_signals",
    "exitstack",
    "exitstack_awaiting",
    "exitstack_face",
    "exitstack_private",
    "exitstack_programs",
    "defer_greenlets",
    "defer_leaks",
    "exitstack_leaks",
    "buffers",
    "buffer_memory",
)


@dataclass(frozen=True)
class Means:
    """One way to catch a bug: what to build, and what to run; it ends with 0 on sound code and 1 on a bug."""

    name: str
    variant: str  # "": in place
    command: tuple[str, ...]
    patience: float = LIMIT_S  # seconds, or four times what it takes on sound code; past that it hangs

    def command_in(self, root: Path) -> list[str]:
        return [word.replace("{json}", str(root / EXPLORED)) for word in self.command]


def pytest(tests: Sequence[str], workers: int = 2) -> tuple[str, ...]:
    """The command that runs these files of tests, up to the first failure."""
    files = (f"tests/test_{name}.py" for name in tests)
    return (sys.executable, "-m", "pytest", "-x", "-q", "-n", str(workers), "-p", "no:cacheprovider", *files)


def all_means() -> dict[str, Means]:
    python = sys.executable
    stress = (python, "-m", "stress", "--seconds", "0.3")
    found = [
        Means(
            "explore",
            "explore",
            (python, "-m", "stress", "explore", "--fail-fast", "--random", "500", "--json", "{json}"),
        ),
        Means("tests", "", pytest(ENGINE_TESTS)),
        Means("faces", "", pytest(FACE_TESTS)),
        Means("stress", "", stress, 2 * LIMIT_S),
        Means(
            "wheel",
            "",
            pytest(("cimport",), 0),
            2 * LIMIT_S,
        ),
    ]
    if machine.has_sections():
        found.insert(1, Means("traps", "", (python, "-m", "stress", "traps")))
        found.insert(
            2, Means("model", "", pytest(("model",), 0))
        )
        found.append(Means("interrupt", "", (python, "-m", "stress", "interrupt", "--ops", "4000000")))
    for sanitizer in ("tsan", "asan"):
        if variants.sanitizer_library(sanitizer) is not None:
            modes = ("--mode", "portable") if sanitizer == "tsan" else ()
            command = (
                python,
                "-m",
                "stress.variants",
                sanitizer,
                "churn",
                "burst",
                "oversubscribe",
                "--seconds",
                "0.3",
                *modes,
            )
            found.append(Means(sanitizer, sanitizer, command, 3 * LIMIT_S))
    return {means.name: means for means in found}
