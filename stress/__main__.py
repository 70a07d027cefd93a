"""python -m stress: runs the scenarios asked for, one after another, and says what held."""
from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from functools import partial

from rich.console import Console

try:
    import deferpool  # noqa: F401
except ValueError as error:  # a setting in the environment that makes no sense
    print(f"python -m stress: error: {error}", file=sys.stderr)
    sys.exit(2)

from stress import options, report
from stress.checks import judge
from stress.plan import Result
from stress.runner import Interruption, run
from stress.scenarios import ALL


def main(arguments: Sequence[str]) -> int:
    command = options.parse(arguments)
    console = Console(width=None if sys.stdout.isatty() else 160)
    threading.stack_size(256 * 1024)
    console.print(f"seed {command.options.seed}", highlight=False)
    results: list[Result] = []
    with Interruption() as interruption, report.live(console) as progress:
        for name in command.options.scenarios:
            for plan in ALL[name].plans(command.options):
                if interruption.asked:
                    break
                task = progress.add_task(plan.title, total=1.0, figures="")
                result = run(plan, partial(report.show, progress, task), interruption)
                judge(result)
                results.append(result)
    report.close(console, results, command.rerun)
    if command.json is not None:
        report.write_json(command.json, results, command.rerun)
    if command.plot is not None:
        from stress import plot  # only who wants a picture waits for matplotlib

        plot.draw(command.plot, results)
    return 0 if results and all(result.verdict in ("held", "grows") for result in results) else 1


def guarded(arguments: Sequence[str]) -> int:
    """What goes wrong outside the runs is one line and status 2."""
    try:
        if arguments[:1] == ["bench"]:
            from stress import bench

            return bench.main(arguments[1:])
        if arguments[:1] == ["traps"]:
            from stress import traps

            return traps.main(arguments[1:])
        return main(arguments)
    except OSError as error:
        print(f"python -m stress: error: cannot write: {error.strerror}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    if sys.stdout is None or sys.stderr is None:
        sys.exit(2)
    sys.exit(guarded(sys.argv[1:]))
