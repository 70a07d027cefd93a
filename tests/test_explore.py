"""The schedule explorer: its worlds and schedules as text, its command, and that what it finds it finds again."""
from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT

from stress import schedules, worlds


def explore(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stress", "explore", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


# ---- plain data -------------------------------------------------------------------------------------------

@pytest.mark.parametrize(
    ("path", "text"),
    [
        (bytes([0]), "pair-sections:A1"),
        (bytes([0, 0, 0, 1, 1, 0]), "pair-sections:A3B2A1"),
        (bytes([0, 129, 0, 2]), "pair-sections:A1>1A1C1"),
        (bytes([3] * 200), "pair-sections:D200"),
    ],
)
def test_a_schedule_is_text_and_back(path: bytes, text: str) -> None:
    assert schedules.write("pair-sections", path) == text
    assert schedules.read(text) == ("pair-sections", path)


@pytest.mark.parametrize("text", ["A3B2", "pair-sections:E2", "pair-sections:A", "pair-sections:A3 B2", "pair:>"])
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="schedule|steps"):
        schedules.read(text)


def test_operations_are_read_as_they_are_written() -> None:
    assert worlds.parse("2 take, take 1, give newest, procresize 3") == [
        ("new", 0), ("new", 0), ("new", 1), ("free-newest", 0), ("resize", 3),
    ]
    assert worlds.parse("") == []
    with pytest.raises(KeyError):
        worlds.parse("steal")


def test_worlds_have_names_of_their_own_and_a_reason() -> None:
    titles = [spec.title for spec in worlds.standard()]
    assert len(titles) == len(set(titles)) > 50
    assert all(len(spec.why) > 10 for spec in worlds.standard())
    assert {spec.mode for spec in worlds.standard()} == {"sections", "portable"}


# ---- the command ----------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def explored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    path = tmp_path_factory.mktemp("explore") / "explored.json"
    done = explore("spill", "cross-and-back", "fork", "--bound", "2", "--random", "500", "--json", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS: 5 worlds" in done.stdout
    return {each["world"]: each for each in json.loads(path.read_text())["worlds"]}


def test_worlds_are_exhausted(explored: dict[str, dict[str, object]]) -> None:
    for each in explored.values():
        assert each["verdict"] == "held"
        assert each["exhausted"] is True
        assert each["random_schedules"] == 500
        assert int(str(each["schedules"])) > 100


def test_the_bound_says_how_many_schedules_there_are(explored: dict[str, dict[str, object]], tmp_path: Path) -> None:
    """With no preemption: one for each thread that begins. And each further one gives more."""
    counts = []
    for bound in ("0", "1"):
        path = tmp_path / f"{bound}.json"
        done = explore("spill-portable", "--bound", bound, "--random", "0", "--json", str(path))
        assert done.returncode == 0, done.stdout
        counts.append(json.loads(path.read_text())["worlds"][0]["schedules"])
    assert counts[0] == 2
    assert 2 < counts[1] < int(str(explored["spill-portable"]["schedules"]))


def test_sections_are_sent_back_and_threads_moved(explored: dict[str, dict[str, object]]) -> None:
    assert int(str(explored["spill-sections"]["restarts"])) > 0
    assert int(str(explored["spill-sections"]["moves"])) > 0
    assert explored["spill-portable"]["restarts"] == 0
    assert int(str(explored["cross-and-back-sections"]["restarts"])) > 0  # by the barrier of the stop
    assert int(str(explored["fork-portable"]["waits"])) > 0


def test_a_schedule_is_replayed_and_drawn() -> None:
    """One preemption in the middle of a push, by hand: A's section begins, B's on the same P sends it back."""
    done = explore("--schedule", "one-p-sections:A2B3A99", "--repeat", "100")
    assert done.returncode == 2
    assert "does not fit this build" in done.stdout  # it has no 99 steps left
    assert "(100 of 100 times)" in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["step", "thread", "A", "thread", "B", "thread", "C"]
    assert re.match(r" +1 +section begins on P0$", lines[1])
    assert any("is sent back (P0 class 0)" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nonsense"], "no world is called 'nonsense'"),
        (["--bound", "-1"], "-1 is not from 0 to 100"),
        (["--bound", "many"], "'many' is not a whole number"),
        (["--schedule", "nonsense:A1"], "no world is called 'nonsense'"),
        (["--schedule", "A1"], "has no colon"),
        (["--schedule", "pair-sections:A1x"], "is not a sequence of steps"),
        (["--schedule", "pair-sections:"], "is not a sequence of steps"),
        (["--repeat", "2"], "--repeat goes with --schedule"),
        (["--json", "/nowhere/at/all.json"], "cannot be written"),
    ],
)
def test_bad_arguments(arguments: list[str], reason: str) -> None:
    done = explore(*arguments)
    assert done.returncode == 2
    assert reason in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_the_worlds_are_listed() -> None:
    done = explore("--list")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == len(list(worlds.standard()))


def test_a_schedule_that_does_not_fit_is_no_fault() -> None:
    done = explore("--schedule", "pair-sections:A1")
    assert done.returncode == 2
    assert "does not fit this build" in done.stdout


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "full.json"
    path.symlink_to("/dev/full")
    done = explore("pair-portable", "--bound", "0", "--random", "0", "--json", str(path))
    assert done.returncode == 2
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["explore", "--bound", "7"], ["bench"],
                                     ["overhead", "--rounds", "10000"]])
def test_ctrl_c_is_one_line(command: list[str]) -> None:
    code = "import signal, runpy; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "runpy.run_module('stress', run_name='__main__')"
    with subprocess.Popen([sys.executable, "-c", code, *command], cwd=ROOT, start_new_session=True, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        try:
            time.sleep(4)
            os.killpg(running.pid, signal.SIGINT)
            _, err = running.communicate(timeout=60)
        finally:
            running.kill()
    assert running.returncode == 1, err
    assert "interrupted" in err
    assert "Traceback" not in err
