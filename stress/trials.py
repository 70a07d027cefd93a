"""One planted bug in a copy of this checkout: what each means made of it, and the verdict."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stress import machine, variants
from stress.means import EXPLORED, LIMIT_S, Means

REPLAYS = 100
BUILDING = threading.Lock()  # a build takes all CPUs


@dataclass(frozen=True)
class Mutant:
    """One planted bug."""

    name: str
    breaks: str
    by: tuple[str, ...]  # the means that are expected to catch it
    patch: Path | None  # None: the copy as it is


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
