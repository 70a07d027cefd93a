"""The stress suite itself: its command line, its verdicts, and that each of its checks can fail."""
from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT

import deferpool
from stress import machine
from stress._ledger import Ledger
from stress._load import Load
from stress.checks import judge
from stress.plan import PER_P, PER_THREAD, Options, Plan, Result
from stress.runner import run
from stress.scenarios import ALL

SHORT = ("--seconds", "0.3")


def stress(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("DEFERPOOL_")}
    command = [sys.executable, "-m", "stress", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**env, **environment}, capture_output=True, text=True, timeout=300)


# ---- the command line -----------------------------------------------------------------------------------

def test_a_run_that_holds(tmp_path: Path) -> None:
    done = stress("churn", "burst", *SHORT, "--seed", "7", "--json", str(tmp_path / "run.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout
    assert "-m stress churn burst --seconds 0.3 --seed 7" in done.stdout
    document = json.loads((tmp_path / "run.json").read_text())
    assert {each["scenario"] for each in document["runs"]} == {"churn", "burst"}
    for each in document["runs"]:
        assert each["verdict"] == "held"
        assert each["books"]["samples"] >= 1000
        assert each["books"]["takes"] == each["books"]["gives"] == each["stats"]["gets"] > 10_000
        assert 0 < each["books"]["peak_cached"] <= each["bound"]
        assert len(each["curve"]) > 100


def test_seed_is_printed_and_kept() -> None:
    done = stress("churn", "--mode", "portable", "--ops", "1000")
    assert done.returncode == 0, done.stdout
    seed = done.stdout.split("seed ")[1].split()[0]
    assert f"-m stress churn --mode portable --ops 1000 --seed {seed}" in done.stdout


def test_operations_asked_for_are_done(tmp_path: Path) -> None:
    done = stress("migrate", "--ops", "200_000", "--json", str(tmp_path / "run.json"))
    assert done.returncode == 0, done.stdout
    for each in json.loads((tmp_path / "run.json").read_text())["runs"]:
        assert each["operations"] == 200_000


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_picture(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"picture.{suffix}"
    done = stress("migrate", "--ops", "100000", "--plot", str(path))
    assert done.returncode == 0, done.stdout
    assert path.read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")


@pytest.mark.skipif(not machine.has_sections(), reason="this machine has no restartable sections")
@pytest.mark.parametrize("environment", [{"DEFERPOOL_PORTABLE": "1"}, {"GLIBC_TUNABLES": "glibc.pthread.rseq=0"}])
def test_falling_back_fails_and_does_not_skip(environment: dict[str, str]) -> None:
    done = stress("churn", *SHORT, **environment)
    assert done.returncode == 1
    assert "meant for sections, and this machine has them, but the engine is in portable mode" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nonsense"], "no scenario is called 'nonsense': there are migrate, churn"),
        (["--threads", "0"], "0 is not from 1 to 4096"),
        (["--threads", "many"], "'many' is not a whole number"),
        (["--cap", "7"], "7 is odd"),
        (["--cap", "0"], "0 is not from 2 to 32766"),
        (["--limit", "-1"], "-1 is not from 0"),
        (["--limit", "1", "--no-limit"], "not allowed with argument"),
        (["--seconds", "0"], "is not more than 0"),
        (["--seconds", "1", "--ops", "5"], "not allowed with argument"),
        (["--procs", "2000"], "2000 is not from 1 to 1024"),
        (["--json", "/nowhere/at/all.json"], "cannot be written: No such file"),
        (["--json", "run.txt"], "must end in .json"),
        (["--plot", "picture.bmp"], "must end in .png or .svg"),
        (["--fail", "1"], "1 is not from 2"),
    ],
)
def test_bad_arguments(arguments: list[str], reason: str) -> None:
    done = stress(*arguments)
    assert done.returncode == 2
    assert reason in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("scenario", ["churn", "threads", "resize"])
def test_ctrl_c_ends_with_the_figures_so_far(scenario: str) -> None:
    # in a shell's background job SIGINT is ignored, and this would be inherited
    code = "import signal, runpy, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "sys.argv[0] = 'stress'; runpy.run_module('stress', run_name='__main__')"
    command = [sys.executable, "-c", code, scenario, "--mode", "portable", "--seconds", "100"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            while running.poll() is None and threads_of(running.pid) < 3:
                time.sleep(0.01)
            running.send_signal(signal.SIGINT)
            out, err = running.communicate(timeout=60)
        finally:
            running.kill()
    assert running.returncode == 1, err
    assert "interrupted after 1 runs; nothing was broken so far" in " ".join(out.split())
    assert "run it again" in out
    assert "Traceback" not in err


def threads_of(process: int) -> int:
    return len(os.listdir(f"/proc/{process}/task"))


@pytest.mark.parametrize("setting", [{"DEFERPOOL_PROCS": "x"}, {"DEFERPOOL_PORTABLE": "2"}])
def test_bad_settings_are_refused(setting: dict[str, str]) -> None:
    done = stress("churn", *SHORT, **setting)
    assert done.returncode == 2
    assert next(iter(setting)) in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_are_used_and_repeated() -> None:
    done = stress("churn", "--ops", "1000", "--mode", "portable", DEFERPOOL_PROCS="3", DEFERPOOL_DEBUG="1")
    assert done.returncode == 0, done.stdout
    assert f"{3 * 5 * 32 + 5 * 1024:,}" in done.stdout
    assert "DEFERPOOL_PROCS=3 " in done.stdout


def test_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "stress", "churn", "--ops", "1000"], cwd=ROOT, stdout=full,
                              stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "cannot write: No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_both_halves_of_interrupt_run_whatever_the_length() -> None:
    done = stress("interrupt", "--mode", "portable", *SHORT)
    assert done.returncode == 0, done.stdout
    found = re.search(r"([\d,]+) pop, ([\d,]+) push, ([\d,]+) popn, ([\d,]+) pushn", done.stdout)
    assert found is not None, done.stdout
    assert all(int(each.replace(",", "")) > 1_000 for each in found.groups())


# ---- the verdicts: from a run that holds, one figure is changed at a time --------------------------------

@pytest.fixture(scope="module")
def good() -> Result:
    options = Options(seconds=0.3, modes=("portable",))
    result = run(ALL["churn"].plans(options)[0], lambda *_: None)
    judge(result)
    assert result.broken == []
    return result


def changed(
    result: Result, books: dict[str, int] | None = None, stats: dict[str, Any] | None = None, **rest: Any
) -> Result:
    books, stats = {**result.books, **(books or {})}, {**result.stats, **(stats or {})}
    return replace(result, books=books, stats=stats, broken=[], **rest)


@pytest.mark.parametrize(
    ("what", "check"),
    [
        ({"mode_at_start": "sections"}, "mode: the run was meant for portable"),
        ({"books": {"samples": 999}}, "sampled: only 999 samples, not 1000"),
        ({"evidence": ["local-bound: made up"]}, "seen-while-running: local-bound: made up"),
        ({"books": {"violations": 3}}, "seen-while-running: and 3 more"),
        ({"stats": {"cached": 10**6}}, "total-bound: by stats() 1,000,000 items are cached"),
        ({"stats": {"peak_cached": 10**6}}, "total-bound: by its peak 1,000,000 items are cached"),
        ({"books": {"created": 10**12}}, "total-bound: by the books"),
        ({"stats": {"gets": 1}}, "conservation: stats() says 1 gets"),
        ({"stats": {"puts": 1}}, "conservation: stats() says 1 puts"),
        ({"stats": {"created": 1}}, "conservation: stats() says 1 created"),
        ({"stats": {"destroyed": 1}}, "conservation: stats() says 1 destroyed"),
        ({"stats": {"live": 1}}, "conservation: stats() says 1 live"),
        ({"stats": {"bypassed": 1}}, "conservation: stats() says 1 bypassed"),
        ({"books": {"gives": 0}}, "conservation: "),
        ({"one_p": 161}, "thread-exit: one P is left, whose caches hold 160 items at most, and 161 are cached"),
        ({"left": {"records": 2}}, "conservation: 2 allocations never came back to the allocator: records"),
        ({"books": {"created": 10**12, "destroyed": 10**12}}, "reuse: "),
        ({"resident": [10**8] * 6 + [10**8 + 2**21] * 2}, "flat-memory: resident memory grew"),
    ],
)
def test_each_check_can_fail(good: Result, what: dict[str, Any], check: str) -> None:
    result = changed(good, **what)
    judge(result)
    assert any(text.startswith(check) for text in result.broken), result.broken
    assert result.verdict == "FAILED"


def test_sections_that_nobody_interrupted_show_nothing(good: Result) -> None:
    plan = replace(good.plan, scenario="interrupt", mode="sections")
    result = changed(good, plan=plan, mode_at_start="sections", restarts=3)
    judge(result)
    assert any(text.startswith("restarts: only 3 sections were restarted") for text in result.broken)


@pytest.mark.parametrize("design", [PER_P, PER_THREAD])
def test_a_list_that_does_not_grow_fails(good: Result, design: str) -> None:
    plan = Plan(scenario="migrate", threads=2, most_live=100, options=Options(ops=1), design=design)
    grows = [(at / 10, at * 1000, at * 1000) for at in range(50)]
    result = changed(good, plan=plan, curve=grows, books={"gives": 49_000})
    judge(result)
    assert result.broken == []
    stays = [(at, min(cached, 5_000), gives) for at, cached, gives in grows]
    result = changed(good, plan=plan, curve=stays, books={"gives": 49_000})
    judge(result)
    assert any(text.startswith("growth: only 5,000 cached") for text in result.broken)


# ---- the harness's eyes: what it must see in the records --------------------------------------------------

def test_two_owners_are_seen() -> None:
    ledger = Ledger()
    pool = deferpool.RecordPool([64], allocator=ledger.capsule())
    load = Load(pool, ledger, 2, seed=1)
    address = pool.new(64).address or 0
    for thread in (0, 1):
        load.taking(thread)
        load.took(thread, address, 64)
    assert load.books()["violations"] == 1
    assert "taken by thread 1, but its owner word says 0" in load.first_evidence()[0]


def test_a_give_by_somebody_else_and_a_second_one_are_seen() -> None:
    ledger = Ledger()
    pool = deferpool.RecordPool([64], allocator=ledger.capsule())
    load = Load(pool, ledger, 2, seed=1)
    address = pool.new(64).address or 0
    load.taking(0)
    load.took(0, address, 64)
    load.giving(1, address, 64, 1)
    load.giving(0, address, 64, 0)
    assert load.books()["violations"] == 1
    load.giving(0, address, 64, 0)
    assert load.books()["violations"] == 2


def test_a_scribble_is_seen() -> None:
    ledger = Ledger()
    pool = deferpool.RecordPool([64], allocator=ledger.capsule())
    load = Load(pool, ledger, 1, seed=1)
    record = pool.new(64)
    load.taking(0)
    load.took(0, record.address or 0, 64)
    with memoryview(record) as view:
        view[40] ^= 1
    load.giving(0, record.address or 0, 64, 0)
    assert "word 5 of record" in load.first_evidence()[0]


def test_the_ledger_counts_what_the_pool_asks_for() -> None:
    ledger = Ledger()
    sched = deferpool.Sched(1, portable=True)
    pool = deferpool.RecordPool([16], cap=2, limit=0, sched=sched, allocator=ledger.capsule())
    records = [pool.new(16) for _ in range(10)]
    assert (ledger.created, ledger.destroyed) == (10, 0)
    for record in records:
        pool.free(record)
    assert ledger.created - ledger.destroyed == pool.stats()["cached"]
    assert ledger.meta_outstanding > 0
    del pool, record, records
    assert (ledger.created - ledger.destroyed, ledger.meta_outstanding) == (0, 0)


def test_a_failing_ledger_fails_about_as_often_as_told() -> None:
    ledger = Ledger()
    pool = deferpool.RecordPool([16], cap=2, limit=0, allocator=ledger.capsule())
    ledger.failing(10, seed=3)
    failed = 0
    for _ in range(2_000):
        try:
            pool.new(2_000)  # bypasses the caches: one call of the allocator each
        except MemoryError:
            failed += 1
    assert failed == ledger.refused
    assert 100 < failed < 400


def hammered(bound: int | None) -> Load:
    """One thread, 1,000 records out and in again, while the sampler looks; told that the bound is so."""
    ledger = Ledger()
    sched = deferpool.Sched(1, portable=True)
    pool = deferpool.RecordPool([64], limit=2_000, sched=sched, allocator=ledger.capsule())
    load = Load(pool, ledger, 1, seed=1, bound=bound)
    sampler = threading.Thread(target=load.run_sampler, args=(50,))
    sampler.start()
    load.run_burst(0, 1_000, 20_000)
    while load.samples < 10:
        time.sleep(0.001)
    load.finish()
    sampler.join()
    return load


def test_books_of_the_sampler_see_what_is_cached() -> None:
    """Without allocator calls at their side, published figures would be believed; so the books must see as much."""
    books = hammered(None).books()
    assert books["violations"] == 0
    assert books["peak_outside"] == 1_000
    assert 900 <= books["peak_cached"] <= 1_000


def test_too_much_cached_is_seen_twice() -> None:
    load = hammered(900)
    assert load.books()["violations"] >= 2
    evidence = " | ".join(load.first_evidence())
    assert "total-bound: 1000 items cached, the bound is 900" in evidence
    assert "total-bound: by the harness's books 1000 items cached, the bound is 900" in evidence


def test_a_child_that_finds_a_live_record_cached_says_so() -> None:
    ledger = Ledger()
    pool = deferpool.RecordPool([16, 32, 48, 64, 80], allocator=ledger.capsule())
    load = Load(pool, ledger, 1, seed=1)
    assert load.exercise(1_000)
    record = pool.new(80)
    address = record.address or 0
    pool.free(record)
    load.taking(0)
    load.took(0, address, 80)  # as if it were still out
    assert not load.exercise(1_000)
