"""The installed plugin, in a project of its own: broken pools are found, right ones pass, other plugins work on."""
from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent / "testing_project"
SOON_S = 5.0


@dataclass
class Outcome:
    """Of one pytest run: what it printed, and of each test the outcome, its text and its seconds."""

    code: int
    output: str
    tests: dict[str, tuple[str, str, float]]

    def of(self, outcome: str) -> set[str]:
        return {name for name, (what, _, _) in self.tests.items() if what == outcome}


def run_pytest(folder: Path, installed: Path, *arguments: str) -> Outcome:
    """In a process of its own, which finds deferpool and its plugin where the wheel was installed, and nowhere else."""
    unwanted = ("PYTEST_", "DEFERPOOL_", "COV_", "PYTHONPATH")
    env = {key: value for key, value in os.environ.items() if not key.startswith(unwanted)}
    env["PYTHONPATH"] = str(installed)
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}", *arguments]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=240, check=False)
    tests = {}
    for case in ElementTree.parse(report).iter("testcase") if report.exists() else ():
        what, text = "passed", ""
        for each in case:
            if each.tag in ("failure", "error", "skipped"):
                what, text = each.tag, f"{each.get('message')}\n{each.text}"
        tests[case.get("name", "")] = (what, text, float(case.get("time", "nan")))
    return Outcome(done.returncode, done.stdout + done.stderr, tests)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(PROJECT, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def cases(project: Path, text: str) -> None:
    (project / "cases.py").write_text("import threading, pytest\nfrom deferpool.testing import Checked\n" + text)


# ---- the proof ------------------------------------------------------------------------------------------

def test_races_are_found_soon(project: Path, installed: Path) -> None:
    done = run_pytest(project, installed, "-n", "2", "broken.py")
    assert len(done.tests) == 10, done.output
    assert done.of("failure") == set(done.tests), done.output
    for name, (_, text, seconds) in done.tests.items():
        assert seconds < SOON_S, (name, seconds)
        assert "hammer: in t" in text, text  # thread or the watch
    found = {name: text for name, (_, text, _) in done.tests.items()}
    for test in ("fixture", "marker"):  # that pool has no other way to show it
        assert "one object was handed out twice" in found[f"test_with_the_{test}[Counted]"]
        assert "taken in hammer-" in found[f"test_with_the_{test}[Counted]"]
    assert "IndexError: pop from empty list" in found["test_with_the_marker[LookThenPop]"]
    assert "total-bound: " in found["test_bound"]


def test_right_pools_pass(project: Path, installed: Path) -> None:
    done = run_pytest(project, installed, "-n", "2", "right.py")
    assert done.of("passed") == {"test_locked", "test_queue", "test_records", "test_marker"}, done.output
    assert done.code == 0


# ---- seeds ----------------------------------------------------------------------------------------------

SEEDS = """
def test_fixture(hammer):
    drawn = []
    result = hammer(lambda me: drawn.append(me.random.random()), threads=1, calls=3)
    assert not drawn, f"drew {drawn} with {result.seed}"

@pytest.mark.hammer(threads=1, calls=1)
def test_marker(hammer_worker):
    assert False, f"drew {hammer_worker.random.random()}"
"""


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_one_seed_a_session_and_a_line_that_repeats_it(
    project: Path, installed: Path, workers: tuple[str, ...]
) -> None:
    cases(project, SEEDS)
    first = run_pytest(project, installed, *workers, "cases.py")
    (seed,) = set(re.findall(r"--hammer-seed=(\d+)", first.output))  # one, wherever it stands
    assert re.search(rf"^hammer: --hammer-seed={seed}$", first.output, re.MULTILINE)
    assert f"with {seed}" in first.tests["test_fixture"][1]
    assert f"its call 1, seed {seed}" in first.tests["test_marker"][1]
    for test in ("test_fixture", "test_marker"):
        (line,) = re.findall(rf"^again: pytest (cases.py::{test} --hammer-seed=\d+)$", first.output, re.MULTILINE)
        again = run_pytest(project, installed, *line.split())
        drew = re.findall(r"drew (\S+)", first.tests[test][1])
        assert drew
        assert re.findall(r"drew (\S+)", again.tests[test][1]) == drew
    other = run_pytest(project, installed, *workers, "cases.py")
    assert re.findall(r"--hammer-seed=(\d+)", other.output)[0] != seed


def test_the_line_is_for_the_folder_in_which_pytest_was_started(project: Path, installed: Path) -> None:
    cases(project, SEEDS)
    folder = project / "sub"
    folder.mkdir()
    (project / "cases.py").rename(folder / "cases.py")
    done = run_pytest(folder, installed, "--rootdir=..", "cases.py::test_marker")
    assert "again: pytest cases.py::test_marker " in done.output


# ---- the marker -----------------------------------------------------------------------------------------

MARKED = """
met = threading.Barrier(3, timeout=20)
made, calls, alone = [], [], []

@pytest.fixture
def shared():
    made.append(1)
    return object()

@pytest.mark.hammer(threads=3, calls=7)
def test_at_once(shared, hammer_worker):
    assert hammer_worker.threads == 3
    calls.append((id(shared), hammer_worker.thread))
    met.wait()

def test_calls():
    assert len(calls) == 21 and len({shared for shared, _ in calls}) == len(made) == 1
    assert {thread for _, thread in calls} == {0, 1, 2}

class TestMethods:
    @pytest.mark.hammer(threads=2, calls=2)
    @pytest.mark.parametrize("x", [1, 2])
    def test_method(self, x):
        assert x in (1, 2)
        assert threading.current_thread().name.startswith("hammer-")

def test_others_are_left_alone():
    assert threading.current_thread() is threading.main_thread()

@pytest.mark.hammer(threads=4)
def test_skips():
    pytest.skip("no")

@pytest.mark.xfail
@pytest.mark.hammer(threads=2)
def test_xfails():
    assert False
"""

REFUSED = """
import unittest

@pytest.mark.hammer(workers=3)
def test_unknown(): pass

@pytest.mark.hammer(8)
def test_position(): pass

@pytest.mark.hammer(threads=0)
def test_value(): pass

@pytest.mark.hammer
def test_fixture_too(hammer): pass

def test_worker_without_marker(hammer_worker): pass

@pytest.mark.hammer
async def test_coroutine(): pass

class TestCase(unittest.TestCase):
    @pytest.mark.hammer
    def test_unittest(self): pass

@pytest.mark.hammer(timeout=0.3, threads=2, seconds=0.1)
def test_hangs(): threading.Event().wait(20)
"""
SAID = {
    "test_unknown": "takes calls, seconds, threads, timeout, yields by name, not workers",
    "test_position": "by name, not 8",
    "test_value": "threads must be at least 1, not 0",
    "test_fixture_too": "cannot use the fixture hammer",
    "test_worker_without_marker": "hammer_worker is for tests marked with hammer",
    "test_coroutine": "only makes a coroutine or generator",
    "test_unittest": "works on test functions and methods",
    "test_hangs": "2 of 2 threads have finished no call for 0.3 s",
}


def test_marked_tests_run_from_many_threads(project: Path, installed: Path) -> None:
    cases(project, MARKED)
    done = run_pytest(project, installed, "cases.py")
    assert done.code == 0, done.output
    assert done.of("skipped") == {"test_skips", "test_xfails"}
    assert len(done.of("passed")) == 5


def test_what_means_nothing_is_refused(project: Path, installed: Path) -> None:
    cases(project, REFUSED)
    done = run_pytest(project, installed, "cases.py")
    assert set(done.tests) == set(SAID)
    for name, text in SAID.items():
        assert done.tests[name][0] in ("failure", "error"), name
        assert text in done.tests[name][1]


# ---- beside other plugins, and without ------------------------------------------------------------------

BESIDE = """
from collections import Counter
calls = Counter()

@pytest.mark.hammer(threads=3, calls=5)
def test_marked(thread_index, num_parallel_threads, hammer_worker):
    assert threading.current_thread().name.startswith("hammer")
    assert thread_index == hammer_worker.thread and num_parallel_threads == 3
    with lock:
        calls["marked"] += 1

def test_fixture(hammer, num_parallel_threads):
    assert num_parallel_threads == 1
    calls["fixture"] += 1
    hammer(lambda: None, calls=2)

@pytest.mark.parallel_threads_limit(3)
def test_theirs(num_parallel_threads):
    assert num_parallel_threads == 3
    assert not threading.current_thread().name.startswith("hammer")

@pytest.mark.thread_unsafe
@pytest.mark.hammer(threads=3, calls=5)
def test_unsafe(hammer_worker):
    assert hammer_worker is None
    calls["unsafe"] += 1

@pytest.mark.thread_unsafe
def test_calls():
    assert calls == {"marked": 15, "fixture": 1, "unsafe": 1}

lock = threading.Lock()
"""


@pytest.mark.parametrize("options", [(), ("-n", "1"), ("--iterations=3",)])
def test_beside_run_parallel(project: Path, installed: Path, options: tuple[str, ...]) -> None:
    pytest.importorskip("pytest_run_parallel")
    cases(project, BESIDE)
    done = run_pytest(project, installed, "--parallel-threads=4", *options, "cases.py")
    assert done.code == 0, done.output
    assert len(done.of("passed")) == 5


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("-p", "no:deferpool"), 0),
        (("-p", "no:terminal", "-p", "no:run-parallel"), 0),  # that one needs the other
        (("-p", "no:xdist", "-p", "no:run-parallel"), 0),
        (("-p", "no:python"), 5),
        (("-W", "error"), 0),
        (("-p", "deferpool"), 0),
        (("--markers",), 0),
        (("--fixtures",), 0),
    ],
)
def test_gets_out_of_the_way(tmp_path: Path, installed: Path, arguments: tuple[str, ...], code: int) -> None:
    (tmp_path / "test_plain.py").write_text("def test_plain(): assert True\n")
    done = run_pytest(tmp_path, installed, *arguments)
    assert "Traceback" not in done.output, done.output
    assert done.code == code, done.output
    assert ("hammer" in done.output) == (not {"no:deferpool", "no:terminal"} & set(arguments))


def test_costs_nothing_unused(project: Path, installed: Path) -> None:
    """Threads, tracing and ownership are not even imported by a session that hammers nothing."""
    (project / "cases.py").write_text(
        "import sys\n"
        "def test_plain():\n"
        "    assert 'deferpool.testing.plugin' in sys.modules\n"
        "    assert not [name for name in sys.modules if name.startswith('deferpool.testing._')]\n"
    )
    done = run_pytest(project, installed, "cases.py")
    assert done.code == 0, done.output
