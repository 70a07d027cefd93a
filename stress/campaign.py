"""A campaign: the runs of the scenarios asked for, one after another, and the report of them."""
from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import partial

from stress import options
from stress.checks import judge
from stress.plan import Result
from stress.reports import document, outputs, terminal
from stress.runner import Interruption, run
from stress.scenarios import plans_of


def main(arguments: Sequence[str], commands: str = "") -> int:
    """Exit status as --help says. OSError and outputs.Unwritten: what could not be written."""
    command = options.parse(arguments, commands)
    plans = plans_of(command.options)
    own = list(range(1, len(plans) + 1)) if command.shard is None else command.shard.numbers(len(plans))
    if command.shard is not None and not own:
        print(f"python -m stress: error: --shard {command.shard}: the campaign has only {len(plans)} runs",
              file=sys.stderr)
        return 2
    console = terminal.console()
    threading.stack_size(256 * 1024)
    console.print(f"seed {command.options.seed}", highlight=False)
    results: list[tuple[int, Result]] = []
    started, began = datetime.now(timezone.utc), time.perf_counter()
    with Interruption() as interruption, terminal.Progress(console, len(own)) as progress:
        for number in own:
            if interruption.asked:
                break
            plan = plans[number - 1]
            progress.begin()
            result = run(plan, partial(progress.tick, plan.title), interruption)
            judge(result)
            results.append((number, result))
            progress.end(document.of_run(number, result))
    report = document.campaign(command.options, command.rerun, command.shard, [plan.title for plan in plans], results,
                               started, time.perf_counter() - began)
    terminal.close(console, report)
    outputs.write(command.outputs, report)
    return document.conclude(report)["status"]
