"""python -m stress mutants: bugs planted in copies of this checkout, one at a time. Each must be caught.

A mutant is a patch in stress/patches/, whose first lines say what it breaks and who is expected to catch it. It is
applied to a copy, what it touches is built again, and the means are asked one after another, the expected ones first,
until two have caught it. Before that the copy without a mutant must pass all of them: a rig that cries always shows
nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from stress import machine
from stress.arguments import Parser, number
from stress.means import LIMIT_S, all_means
from stress.reports.outputs import check_writable
from stress.trials import REPLAYS, Mutant, Trial, judge, prepare

PATCHES = Path(__file__).parent / "patches"
ALL_MEANS = 100  # more than there are
SAMPLE = (
    "batch-pushed-twice",
    "drain-without-barrier",
    "limit-not-reserved",
    "mode-before-holder",
    "section-push-commits-early",
    "spare-kept-after-unlock",
)  # for each commit: one for each means at least


def main(arguments: Sequence[str]) -> int:
    given = _parse(arguments)
    console = Console(width=None if sys.stdout.isatty() else 200)
    means = all_means()
    chosen = [mutant for mutant in mutants() if mutant.name in given.mutant] if given.mutant else list(mutants())
    enough = ALL_MEANS if given.everything else 0 if given.expected else 2
    if given.expected:  # each by those who are expected to catch it, and nobody else is built for
        means = {name: each for name, each in means.items() if any(name in mutant.by for mutant in chosen)}
    with tempfile.TemporaryDirectory(prefix="deferpool-mutants-") as folder:
        base = prepare(Path(folder), means)
        began = time.perf_counter()
        patient = {name: replace(each, patience=4 * each.patience) for name, each in means.items()}  # a slow machine's
        sound = judge(Mutant("none", "nothing: the copy as it is", (), None), base, patient, ALL_MEANS)
        _say(console, sound)
        if sound.verdict != "sound":
            console.print("[red]FAILURE[/]: the rig does not pass on the copy without a mutant")
            return 1
        took = {attempt.means: attempt.seconds for attempt in sound.attempts}
        means = {
            name: replace(each, patience=max(each.patience, 4 * took.get(name, 0))) for name, each in means.items()
        }
        with ThreadPoolExecutor(given.jobs) as pool:
            trials = []
            for trial in pool.map(lambda mutant: judge(mutant, base, means, enough), chosen):
                trials.append(trial)
                _say(console, trial)
        _close(console, trials, time.perf_counter() - began)
    if given.json is not None:
        document = {
            "format": 1,
            "machine": machine.describe(),
            "mutants": [
                {
                    **asdict(trial),
                    "mutant": trial.mutant.name,
                    "breaks": trial.mutant.breaks,
                    "by": trial.mutant.by,
                    "first_catch": trial.first_catch,
                    "verdict": trial.verdict,
                }
                for trial in trials
            ],
        }
        given.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0 if all(trial.killed for trial in trials) else 1


def mutants() -> Iterator[Mutant]:
    for path in sorted(PATCHES.glob("*.patch")):
        head = path.read_text().partition("\n---")[0]
        breaks = re.search(r"^breaks: (.+)$", head, re.MULTILINE)
        by = re.search(r"^by: (.+)$", head, re.MULTILINE)
        if breaks is None or by is None:
            raise SystemExit(f"{path}: its head must have a line `breaks: ...` and a line `by: ...`")
        yield Mutant(path.stem, breaks[1], tuple(name.strip() for name in by[1].split(",")), path)


# ---- for people -----------------------------------------------------------------------------------------------


def _say(console: Console, trial: Trial) -> None:
    """A line as soon as it is known."""
    first = "" if trial.first_catch is None else f", first after {trial.first_catch:.1f} s"
    by = ", ".join(trial.caught_by) or trial.error or "nobody"
    console.print(f"{trial.mutant.name}: {trial.verdict}: {by}{first}", highlight=False, soft_wrap=True)
    for attempt in trial.attempts:
        if attempt.outcome not in ("caught", "passed") or (trial.mutant.patch is None and attempt.outcome == "caught"):
            console.print(
                f"    {attempt.means}: {attempt.outcome}: {attempt.evidence}", highlight=False, soft_wrap=True
            )


def _close(console: Console, trials: Sequence[Trial], seconds: float) -> None:
    table = Table(title="planted bugs, and who caught them", title_justify="left", show_lines=True)
    for name in ("mutant", "what it breaks", "caught by, seconds to build and to run", "first catch, s", "verdict"):
        table.add_column(name)
    for trial in trials:
        caught = [
            f"{attempt.means} {attempt.build_seconds:.1f} + {attempt.seconds:.1f}"
            + (f", replays {attempt.replays} of {REPLAYS}" if attempt.replays else "")
            for attempt in trial.attempts
            if attempt.outcome == "caught"
        ]
        missed = [f"not by {attempt.means}" for attempt in trial.attempts if attempt.outcome == "passed"]
        table.add_row(
            trial.mutant.name,
            trial.mutant.breaks,
            "\n".join(caught + missed) or trial.error,
            "" if trial.first_catch is None else f"{trial.first_catch:.1f}",
            trial.verdict,
        )
    console.print(table)
    killed = sum(trial.killed for trial in trials)
    late = sum(trial.verdict == "LATE" for trial in trials)
    twice = sum(len(trial.caught_by) > 1 for trial in trials)
    slowest = max((trial.first_catch or 0.0 for trial in trials), default=0.0)
    line = f"{killed} of {len(trials)} mutants killed, {twice} by two means or more; all in {seconds:.0f} s, "
    line += f"the slowest first catch after {slowest:.1f} s"
    if late:
        line += f"; {late} later than {LIMIT_S:.0f} s"
    console.print(
        f"[green]SUCCESS[/]: {line}" if killed == len(trials) else f"[red]FAILURE[/]: {line}", highlight=False
    )


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="python -m stress mutants",
        description=__doc__.partition("\n")[0],
        epilog="Exit status: 0 all were caught by those who were expected to, however late; 1 not; 2 bad arguments.",
    )
    known = {mutant.name: mutant for mutant in mutants()}
    add = parser.add_argument
    add("mutant", nargs="*", help="default: all; --list names them")
    add(
        "--sample",
        action="store_true",
        help=f"those of each commit, each by whom it is expected to be caught: {', '.join(SAMPLE)}",
    )
    how_many = parser.add_mutually_exclusive_group()
    how_many.add_argument("--everything", action="store_true", help="ask all means, whoever has caught it")
    how_many.add_argument("--expected", action="store_true", help="ask nobody but who is expected to catch a mutant")
    add(
        "--jobs",
        type=number(1, 64),
        default=len(machine.usable_cpus()),
        metavar="N",
        help="mutants at a time (default: CPUs)",
    )
    add("--json", type=Path, metavar="FILE", help="write all figures")
    add("--list", action="store_true", help="name the mutants, and what each breaks")
    given = parser.parse_args(arguments)
    if given.sample:
        given.mutant, given.expected = list(SAMPLE), True
    for name in given.mutant:
        if name not in known:
            parser.error(f"no mutant is called {name!r} (--list names them)")
    if shutil.which("patch") is None:
        parser.error("the program `patch` is not installed")
    if given.json is not None:
        check_writable(parser, given.json)
    if given.list:
        for mutant in known.values():
            print(f"{mutant.name:<30} {mutant.breaks} [{', '.join(mutant.by)}]")
        sys.exit(0)
    return given
