"""python -m stress explore: all schedules of small worlds, up to a number of preemptions, on the engine itself.

The engine's sources are compiled a second time, with schedule points (points.h) and with models in place of the
sections (model.h), and threads are fibers, one of which runs at a time. So a schedule is plain data: it is
found, printed as a string, and replayed exactly.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from stress import machine, schedules, variants
from stress.apart import Died, run_apart
from stress.arguments import Parser, number, seconds
from stress.reports.outputs import check_writable
from stress.worlds import Spec, standard

if TYPE_CHECKING:
    from stress._worlds import World

BOUND = 3
HELD = "every invariant held"
CHANGES = 6  # of priorities, in a random schedule


@dataclass
class Explored:
    """What became of one world."""

    world: str
    why: str
    bound: int
    exhausted: bool = False  # every schedule within the bound was run
    schedules: int = 0
    random_schedules: int = 0
    steps: int = 0
    seconds: float = 0.0
    preemptions: int = 0
    moves: int = 0  # of threads to another P
    restarts: int = 0  # of sections
    waits: int = 0
    broken: str | None = None
    schedule: str | None = None  # that broke it

    @property
    def verdict(self) -> str:
        if self.broken:
            return "FAILED"
        return "held" if self.exhausted else "cut short"


def main(arguments: Sequence[str]) -> int:
    given = _parse(arguments)
    if find_spec("stress._worlds") is None:
        return _in_own_build(arguments)
    if given.schedule is not None:
        return replay(given.schedule, given.repeat or 1)
    chosen = [spec for spec in standard() if not given.world or spec.title in given.world or spec.name in given.world]
    console = Console(width=None if sys.stdout.isatty() else 160)
    _load()
    done: dict[int, Explored] = {}
    tasks = [partial(explore, spec, given.bound, given.random, given.seed, given.seconds) for spec in chosen]
    for at, result in run_apart(tasks, given.jobs):
        if isinstance(result, Died):
            spec = chosen[at]
            result = Explored(spec.title, spec.why, given.bound, broken=f"crash of the explorer itself: {result}")
        done[at] = result
        if result.broken and given.fail_fast:
            break
    results = [done[at] for at in sorted(done)]
    _close(console, results, given.seed)
    if given.json is not None:
        document = {
            "format": 1,
            "seed": given.seed,
            "worlds": [{**asdict(each), "verdict": each.verdict} for each in results],
        }
        given.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0 if all(each.verdict == "held" for each in results) else 1


_made: list[World] = []  # a world that broke may not be able to end: it lives as long as its process


def explore(spec: Spec, bound: int, random: int, seed: int, seconds: float) -> Explored:
    """Exhaustively to the bound, then so many random schedules; the first fault ends it."""
    world = spec.make()
    _made.append(world)
    result = Explored(spec.title, spec.why, bound)
    began = time.perf_counter()
    result.exhausted = world.exhaust(bound, seconds)
    result.schedules = world.schedules
    if world.broken_by is None and random:
        world.wander(CHANGES, seed, random, seconds)
        result.random_schedules = world.schedules - result.schedules
    result.seconds = time.perf_counter() - began
    result.steps, result.preemptions, result.moves = world.all_steps, world.preemptions, world.moves
    result.restarts, result.waits = world.restarts, world.waits
    if world.broken_by is not None:
        result.broken = world.explain()
        result.schedule = schedules.write(spec.title, world.last_path)
    return result


def replay(text: str, times: int) -> int:
    """One schedule, again and again: it must end in the same way each time. Then its picture."""
    _load()
    name, path = schedules.read(text)
    spec = next(spec for spec in standard() if spec.title == name)
    ends = Counter(str(end) for _, end in run_apart([partial(_follow, spec, path)] * times, 1))
    (_, drawn), = run_apart([partial(_draw, spec, path)], 1)
    print(drawn)
    print(f"{name}: {spec.why}")
    (last, same), = ends.most_common(1)
    print(f"ends with: {last} ({same} of {times} times)")
    if "does not fit" in last:
        return 2
    return 0 if (last, same) == (HELD, times) else 1


def _follow(spec: Spec, path: bytes) -> str:
    world = spec.make()
    _made.append(world)
    world.follow(path)
    return world.explain() or HELD


def _draw(spec: Spec, path: bytes) -> str:
    world = spec.make()
    _made.append(world)
    world.follow(path, True)
    return "\n".join(schedules.picture(world, len(spec.threads)))


def _load() -> None:
    """The controller first, for all to see: the engine's modules find its functions there. Then the engine."""
    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags | os.RTLD_GLOBAL)
    try:
        import stress._fibers
        import stress._worlds  # noqa: F401
    finally:
        sys.setdlopenflags(flags)


def _in_own_build(arguments: Sequence[str]) -> int:
    try:
        lib = variants.build("explore")
    except variants.BuildError as error:
        print(f"python -m stress explore: error: the explorer's build failed:\n{error}", file=sys.stderr)
        return 2
    return subprocess.run(variants.python(lib, "stress.__main__", ["explore", *arguments]), check=False).returncode


def _close(console: Console, results: Sequence[Explored], seed: int) -> None:
    table = Table(title="every schedule of small worlds", title_justify="left")
    table.add_column("world", no_wrap=True)
    for name in ("bound", "schedules", "random", "steps", "restarts", "moves", "waits", "schedules/s"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for each in results:
        runs = each.schedules + each.random_schedules
        table.add_row(
            each.world,
            str(each.bound),
            f"{each.schedules:,}",
            f"{each.random_schedules:,}",
            f"{each.steps:,}",
            f"{each.restarts:,}",
            f"{each.moves:,}",
            f"{each.waits:,}",
            f"{runs / max(each.seconds, 1e-9):,.0f}",
            {"held": "[green]held[/]", "FAILED": "[red]FAILED[/]"}.get(each.verdict, each.verdict),
        )
    console.print(table)
    runs = sum(each.schedules + each.random_schedules for each in results)
    seconds = sum(each.seconds for each in results)  # of all worlds: as if one CPU had run them
    console.print(
        f"{sum(each.schedules for each in results):,} schedules exhaustively and "
        f"{sum(each.random_schedules for each in results):,} at random (seed {seed}), {runs / max(seconds, 1e-9):,.0f} "
        f"a second, {sum(each.steps for each in results):,} steps, in {seconds:.1f} s",
        highlight=False,
    )
    for each in results:
        if each.broken:
            console.print(f"[red]BROKEN[/] {each.world} ({each.why}): {each.broken}", highlight=False, soft_wrap=True)
            console.print(
                f"replay it: python -m stress explore --schedule '{each.schedule}'", highlight=False, soft_wrap=True
            )
    failed = sum(each.broken is not None for each in results)
    cut = sum(each.verdict == "cut short" for each in results)
    if failed:
        console.print(f"[red]FAILURE[/]: {failed} of {len(results)} worlds broke")
    elif cut:
        console.print(f"[red]FAILURE[/]: {cut} of {len(results)} worlds were cut short; nothing was broken so far")
    else:
        console.print(f"[green]SUCCESS[/]: {len(results)} worlds, every invariant held in every schedule")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="python -m stress explore",
        description=__doc__.partition("\n")[0],
        epilog="Exit status: 0 every invariant held in every schedule; 1 not, or cut short; 2 bad arguments.",
    )
    names = {name for spec in standard() for name in (spec.name, spec.title)}
    add = parser.add_argument
    add("world", nargs="*", help="default: all; --list names them")
    add(
        "--bound",
        type=number(0, 100),
        default=BOUND,
        metavar="N",
        help=f"preemptions, and moves to another P, in one schedule (default: {BOUND})",
    )
    add(
        "--random",
        type=number(0, 10**9),
        default=2_000,
        metavar="N",
        help="random schedules of each world besides (default: 2,000)",
    )
    add("--seed", type=number(0, 2**63), default=1, metavar="N", help="of the random schedules (default: 1)")
    add("--seconds", type=seconds, default=600.0, metavar="S", help="at most so long for each world (default: 600)")
    add(
        "--jobs",
        type=number(1, 1024),
        default=len(machine.usable_cpus()),
        metavar="N",
        help="worlds at a time, each in a process of its own (default: CPUs)",
    )
    add("--fail-fast", action="store_true", help="stop at the first world that breaks")
    add("--schedule", metavar="STRING", help="replay one schedule and draw it")
    add("--repeat", type=number(1, 10**6), metavar="N", help="with --schedule: replay it so many times")
    add("--json", type=Path, metavar="FILE", help="write all figures")
    add("--list", action="store_true", help="name the worlds, and why each is there")
    given = parser.parse_args(arguments)
    for name in given.world:
        if name not in names:
            parser.error(f"no world is called {name!r} (--list names them)")
    if given.repeat is not None and given.schedule is None:
        parser.error("--repeat goes with --schedule")
    if given.schedule is not None:
        try:
            world, _ = schedules.read(given.schedule)
        except ValueError as error:
            parser.error(str(error))
        if world not in {spec.title for spec in standard()}:
            parser.error(f"no world is called {world!r} (--list names them)")
    if given.json is not None:
        check_writable(parser, given.json)
    if given.list:
        for spec in standard():
            print(f"{spec.title:<30} {spec.why}")
        sys.exit(0)
    return given


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
