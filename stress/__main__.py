"""python -m stress: runs the scenarios, or a command beside them. What goes wrong outside a run is one line."""
from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence

COMMANDS = {  # name: who does it, with the rest of the arguments, and what --help says of it
    "bench": ("stress.bench.command:main", "speed: beside other allocators, Go and the 2015 design"),
    "explore": ("stress.explore:main", "every schedule of small worlds, on the engine itself"),
    "traps": ("stress.traps:main", "each section, interrupted before each of its instructions"),
    "mutants": ("stress.mutants:main", "planted bugs: each must be caught"),
    "overhead": ("stress.overhead:main", "what the checks cost: churn with and without them"),
    "instructions": ("stress.bench.instructions:main", "how many a take and a give are"),
    "merge": ("stress.reports.merge:main", "join the JSON reports of a campaign's shards"),
}


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0 all held, 1 something did not, 2 bad arguments or a file that cannot be written."""
    from stress.reports.outputs import Unwritten, reason

    other = bool(arguments) and arguments[0] in COMMANDS
    module, _, name = (COMMANDS[arguments[0]][0] if other else "stress.campaign:main").partition(":")
    try:
        command: Callable[..., int] = getattr(importlib.import_module(module), name)
    except ValueError as error:  # a setting in the environment that makes no sense, met when deferpool is imported
        return complain(str(error))
    try:
        return command(arguments[1:]) if other else command(arguments, overview())
    except Unwritten as error:
        return complain(str(error))
    except KeyboardInterrupt:
        print("python -m stress: interrupted", file=sys.stderr)
        return 1
    except OSError as error:
        return complain(f"cannot write: {reason(error)}")


def overview() -> str:
    lines = [f"  {name:<12} {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(["Instead of scenarios, one of the commands (each has its own --help):", *lines, "", ""])


def complain(text: str) -> int:
    print(f"python -m stress: error: {text}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    if sys.stdout is None or sys.stderr is None:
        sys.exit(2)
    sys.exit(main(sys.argv[1:]))
