"""python -m stress: runs the scenarios asked for, one after another, and says what held."""
from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from functools import partial

from rich.console import Console

from stress import options, report
from stress.checks import judge
from stress.plan import Result
from stress.runner import run
from stress.scenarios import ALL


def main(arguments: Sequence[str]) -> int:
    command = options.parse(arguments)
    console = Console(width=None if sys.stdout.isatty() else 160)
    threading.stack_size(256 * 1024)
    console.print(f"seed {command.options.seed}", highlight=False)
    results: list[Result] = []
    with report.live(console) as progress:
        for name in command.options.scenarios:
            for plan in ALL[name].plans(command.options):
                task = progress.add_task(plan.title, total=1.0, figures="")
                result = run(plan, partial(report.show, progress, task))
                judge(result)
                results.append(result)
                if result.interrupted:
                    break
            if results and results[-1].interrupted:
                break
    report.close(console, results, command.rerun)
    if command.json is not None:
        report.write_json(command.json, results, command.rerun)
    if command.plot is not None:
        from stress import plot  # only who wants a picture waits for matplotlib

        plot.draw(command.plot, results)
    return 0 if results and all(result.verdict in ("held", "grows") for result in results) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["bench"]:
        from stress import bench

        sys.exit(bench.main(sys.argv[2:]))
    sys.exit(main(sys.argv[1:]))
