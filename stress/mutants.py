"""python -m stress mutants: bugs planted in copies of this checkout, one at a time. Each must be caught.

A mutant is a patch in stress/patches/, whose first lines say what it breaks and who is expected to catch it. It is
applied to a copy, what it touches is built again, and the means are asked one after another, the expected ones first,
until two have caught it. Before that the copy without a mutant must pass all of them: a rig that cries always shows
nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from stress import machine, variants
from stress.arguments import Parser, number
from stress.reports.outputs import check_writable

PATCHES = Path(__file__).parent / "patches"
LIMIT_S = 60.0  # from the start of its build to the first catch; who takes longer is said to be late
REPLAYS = 100
EXPLORED = "explored.json"
BUILDING = threading.Lock()  # a build takes all CPUs
ALL_MEANS = 100  # more than there are
SAMPLE = (
    "batch-pushed-twice",
    "drain-without-barrier",
    "limit-not-reserved",
    "mode-before-holder",
    "section-push-commits-early",
    "spare-kept-after-unlock",
)  # for each commit: one for each means at least
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
class Mutant:
    """One planted bug."""

    name: str
    breaks: str
    by: tuple[str, ...]  # the means that are expected to catch it
    patch: Path | None  # None: the copy as it is


@dataclass(frozen=True)
class Means:
    """One way to catch a bug: what to build, and what to run; it ends with 0 on sound code and 1 on a bug."""

    name: str
    variant: str  # "": in place
    command: tuple[str, ...]
    patience: float = LIMIT_S  # seconds, or four times what it takes on sound code; past that it hangs

    def command_in(self, root: Path) -> list[str]:
        return [word.replace("{json}", str(root / EXPLORED)) for word in self.command]


@dataclass
class Attempt:
    """What one means made of one mutant."""

    means: str
    outcome: str  # caught, passed, or an error of the rig
    build_seconds: float
    seconds: float
    evidence: str = ""
    schedule: str | None = None
    replays: int = 0


@dataclass
class Trial:
    """What became of one mutant."""

    mutant: Mutant
    attempts: list[Attempt] = field(default_factory=list)
    error: str | None = None

    @property
    def first_catch(self) -> float | None:
        """Seconds of its builds and runs up to then."""
        seconds = 0.0
        for attempt in self.attempts:
            seconds += attempt.build_seconds + attempt.seconds
            if attempt.outcome == "caught":
                return seconds
        return None

    @property
    def caught_by(self) -> list[str]:
        return [attempt.means for attempt in self.attempts if attempt.outcome == "caught"]

    @property
    def verdict(self) -> str:
        if self.error or any(attempt.outcome not in ("caught", "passed") for attempt in self.attempts):
            return "ERROR"
        if self.mutant.patch is None:
            return "CRIES" if self.caught_by else "sound"
        if not self.caught_by:
            return "SURVIVED"
        late = self.first_catch is not None and self.first_catch > LIMIT_S
        missed = [means for means in self.mutant.by if means not in self.caught_by]
        return "MISSED" if missed else "LATE" if late else "killed"

    @property
    def killed(self) -> bool:
        """However late: how long it takes is the machine's matter too."""
        return self.verdict in ("killed", "LATE")


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
        sound = judge(Mutant("none", "nothing: the copy as it is", (), None), base, means, ALL_MEANS)
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


# ---- copies -------------------------------------------------------------------------------------------------


def prepare(folder: Path, means: dict[str, Means]) -> Path:
    """A copy of this checkout in which everything is built, times of change and all."""
    base = folder / "base"
    copy(variants.ROOT, base)
    for variant in dict.fromkeys(each.variant for each in means.values()):
        build(base, variant)
    return base


def copy(source: Path, target: Path) -> None:
    shutil.copytree(
        source,
        target,
        symlinks=True,
        ignore=shutil.ignore_patterns(".git", ".venv*", "dist", "*.egg-info", "__pycache__", ".*_cache"),
    )


def build(root: Path, variant: str) -> None:
    if variant:
        variants.build(variant, root)
    else:
        variants.build_in_place(root)


# ---- one mutant ------------------------------------------------------------------------------------------------


def judge(mutant: Mutant, base: Path, means: dict[str, Means], enough: int) -> Trial:
    """Asks the expected means, then the others until so many have caught it."""
    trial = Trial(mutant)
    order = [means[name] for name in mutant.by if name in means]
    order += [each for each in means.values() if each not in order]
    with tempfile.TemporaryDirectory(prefix=f"{mutant.name}-", dir=base.parent) as folder:
        root = Path(folder) / "copy"
        copy(base, root)
        if mutant.patch is not None:
            done = subprocess.run(
                ["patch", "-p1", "-s", "-i", str(mutant.patch)], cwd=root, capture_output=True, text=True, check=False
            )
            if done.returncode:
                trial.error = f"the patch does not fit: {done.stdout.strip()}"
                return trial
        for each in order:
            expected = each.name in mutant.by
            if not expected and len(trial.caught_by) >= enough:
                break
            attempt = attempt_at(root, each, base)
            trial.attempts.append(attempt)
    return trial


def attempt_at(root: Path, means: Means, base: Path) -> Attempt:
    with BUILDING:
        began = time.perf_counter()
        try:
            build(root, means.variant)
        except variants.BuildError as error:
            return Attempt(means.name, "error", time.perf_counter() - began, 0.0, f"build failed: {str(error)[-300:]}")
        built = time.perf_counter()
    found = root / EXPLORED
    status, output = run(means.command_in(root), root, means.patience)
    took = time.perf_counter() - built
    evidence = evidence_in(output)
    if status == 0:
        return Attempt(means.name, "passed", built - began, took)
    if status is None:  # it hangs, or the machine is too busy: the copy without a mutant tells, now and here
        sound, _ = run(means.command_in(base), base, means.patience)
        outcome = "caught" if sound == 0 else "error: on the copy without a mutant it does not end well either"
        return Attempt(means.name, outcome, built - began, took, f"hangs: not done after {means.patience:.0f} s")
    failed = status in (1, 66) or status < 0 or status >= 128  # a bug, the sanitizers', a signal
    failed = failed or (status == 2 and evidence.startswith("FAILED "))  # pytest-xdist, stopped by the first failure
    if not failed:
        return Attempt(means.name, "error", built - began, took, f"exit status {status}: {output.strip()[-300:]}")
    attempt = Attempt(means.name, "caught", built - began, took, evidence or f"exit status {status}")
    if means.name == "explore" and found.exists():
        attempt.schedule = next(
            (each["schedule"] for each in json.loads(found.read_text())["worlds"] if each["schedule"]), None
        )
        if attempt.schedule is not None:
            attempt.replays = replay(root, attempt.schedule)
            if attempt.replays != REPLAYS:
                attempt.outcome = f"error: {attempt.schedule} replayed {attempt.replays} of {REPLAYS} times"
    return attempt


def replay(root: Path, schedule: str) -> int:
    command = [sys.executable, "-m", "stress", "explore", "--schedule", schedule, "--repeat", str(REPLAYS)]
    _, output = run(command, root, LIMIT_S)
    found = re.search(rf"^ends with: (?!every invariant held).*\((\d+) of {REPLAYS} times\)$", output, re.MULTILINE)
    return int(found[1]) if found else 0


def run(command: Sequence[str], root: Path, patience: float) -> tuple[int | None, str]:
    """(exit status, output); None when it had to be ended. What it started ends with it."""
    with subprocess.Popen(
        command,
        cwd=root,
        env=machine.plain_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            output, _ = process.communicate()
            return None, output
    return process.returncode, output


def evidence_in(output: str) -> str:
    """The first line that says what was wrong."""
    for pattern in (
        r"^BROKEN.*",
        r"^.*WARNING: ThreadSanitizer.*",
        r"^.*ERROR: AddressSanitizer.*",
        r"^FAILED .*",
        r"^E   .*",
        r"^deferpool: .*",
        r"^Fatal Python error.*",
        r"^FAILURE.*",
    ):
        found = re.search(pattern, output, re.MULTILINE)
        if found:
            return " ".join(found[0].split())[:200]
    return ""


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
