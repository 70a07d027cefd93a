"""The planted bugs: each still fits the sources and says who catches it; and the verdicts are what they say."""
from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

from stress import mutants, trials
from stress.means import Means, all_means
from stress.trials import Attempt, Mutant, Trial, attempt_at, evidence_in

MEANS = {"explore", "traps", "model", "tests", "faces", "stress", "wheel", "interrupt", "tsan", "asan"}
ALL = list(mutants.mutants())


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "stress", "mutants", *arguments]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.skipif(shutil.which("patch") is None, reason="the program `patch` is not installed")
@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_sources_and_says_what_it_is(mutant: Mutant) -> None:
    done = subprocess.run(["patch", "-p1", "--dry-run", "--force", "-s", "-i", str(mutant.patch)], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert set(mutant.by) <= MEANS
    assert ": " in mutant.breaks


def test_there_are_enough_and_the_sample_is_of_them() -> None:
    names = {mutant.name for mutant in ALL}
    assert len(names) >= 60
    assert set(mutants.SAMPLE) <= names
    assert set(all_means()) <= MEANS


def trial(*outcomes: tuple[str, str], seconds: float = 2.0, sound: bool = False) -> Trial:
    made = Trial(Mutant("made-up", "nothing: made up", ("explore",), None if sound else Path("made-up.patch")))
    made.attempts = [Attempt(means, outcome, 1.0, seconds) for means, outcome in outcomes]
    return made


@pytest.mark.parametrize(
    ("made", "verdict"),
    [
        (trial(("explore", "caught")), "killed"),
        (trial(("explore", "caught"), ("tests", "passed")), "killed"),
        (trial(("explore", "passed"), ("tests", "caught")), "MISSED"),
        (trial(("explore", "passed"), ("tests", "passed")), "SURVIVED"),
        (trial(("explore", "caught"), seconds=60.0), "LATE"),
        (trial(("explore", "passed"), ("tests", "caught"), seconds=60.0), "MISSED"),
        (trial(("explore", "caught"), ("tests", "error")), "ERROR"),
        (trial(("explore", "passed"), sound=True), "sound"),
        (trial(("explore", "caught"), sound=True), "CRIES"),
    ],
)
def test_verdicts(made: Trial, verdict: str) -> None:
    assert made.verdict == verdict
    assert made.killed == (verdict in ("killed", "LATE"))


def test_the_first_catch_counts_all_that_came_before_it() -> None:
    assert trial(("explore", "passed"), ("tests", "caught"), ("stress", "caught")).first_catch == 6.0
    assert trial(("explore", "passed")).first_catch is None


@pytest.mark.parametrize(
    ("output", "evidence"),
    [
        ("a\nBROKEN fork: x\nFAILED y", "BROKEN fork: x"),
        ("==1==ERROR: AddressSanitizer: heap", "==1==ERROR: AddressSanitizer: heap"),
        ("WARNING: ThreadSanitizer: data race (pid=1)", "WARNING: ThreadSanitizer: data race (pid=1)"),
        ("E   assert 1\nFAILED tests/test_x.py::test_y", "FAILED tests/test_x.py::test_y"),
        ("deferpool: double free: record 0x1, pool 0x2", "deferpool: double free: record 0x1, pool 0x2"),
        ("all is well", ""),
    ],
)
def test_evidence_is_the_line_that_says_what_was_wrong(output: str, evidence: str) -> None:
    assert evidence_in(output) == evidence


SOUND = "import os; os.path.basename(os.getcwd()) == 'base' and os._exit(0)\n"


def copies(folder: Path) -> Path:
    """Of a mutant; the sound one is beside it."""
    for name in ("base", "mutant"):
        (folder / name).mkdir()
    return folder / "mutant"


@pytest.mark.parametrize(
    ("code", "outcome"),
    [("pass", "passed"), ("raise SystemExit(1)", "caught"), ("import os; os.abort()", "caught"),
     ("raise SystemExit(2)", "error"), ("import time; time.sleep(60)", "caught")],
)
def test_what_a_command_ends_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, outcome: str) -> None:
    monkeypatch.setattr(trials, "build", lambda root, variant: None)
    means = Means("made-up", "", (sys.executable, "-c", f"{SOUND}{code}"), patience=5.0)
    assert attempt_at(copies(tmp_path), means, tmp_path / "base").outcome == outcome


def test_what_hangs_on_the_sound_copy_too_is_not_caught(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(trials, "build", lambda root, variant: None)
    means = Means("made-up", "", (sys.executable, "-c", "import time; time.sleep(60)"), patience=0.5)
    assert attempt_at(copies(tmp_path), means, tmp_path / "base").outcome.startswith("error: on the copy")


def test_bad_arguments() -> None:
    for arguments, reason in (
        (["nonsense"], "no mutant is called 'nonsense'"),
        (["--jobs", "0"], "0 is not from 1 to 64"),
        (["--json", "/nowhere/x.json"], "cannot be written"),
    ):
        done = command(*arguments)
        assert done.returncode == 2
        assert reason in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_mutants_are_listed() -> None:
    done = command("--list")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == len(ALL)
