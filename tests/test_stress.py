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
from stress import checks, children, machine, options, overhead
from stress._ledger import Ledger
from stress._load import Load
from stress.calls import give, take
from stress.checks import judge
from stress.plan import PER_P, PER_THREAD, Options, Plan, Result, Verdict
from stress.runner import Running, run
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

INVARIANTS = {"local-bound", "total-bound", "reuse", "one-owner", "conservation", "no-pin", "clear", "resize",
              "failure", "fork", "thread-exit"}


def quiet(*_: object) -> None:
    """Who looks at a run's progress: nobody."""


def judged(plan: Plan) -> Result:
    result = run(plan, quiet)
    judge(result)
    return result


def verdict(result: Result, check: str) -> Verdict:
    return next(each for each in result.verdicts if each.check == check)


@pytest.fixture(scope="module")
def good() -> Result:
    result = judged(ALL["churn"].plans(Options(seconds=0.3, modes=("portable",)))[0])
    assert result.broken == []
    return result


def changed(
    result: Result, books: dict[str, int] | None = None, stats: dict[str, Any] | None = None, **rest: Any
) -> Result:
    """A copy with its own verdicts."""
    books, stats = {**result.books, **(books or {})}, {**result.stats, **(stats or {})}
    if "cleared" in rest:
        assert result.cleared is not None
        rest["cleared"] = replace(result.cleared, **rest["cleared"])
    if "plan" in rest:
        rest["plan"] = replace(result.plan, **rest["plan"])
    result = replace(result, books=books, stats=stats, **rest)
    judge(result)
    return result


def test_every_invariant_has_a_verdict_with_a_reason(good: Result) -> None:
    names = [each.check for each in good.verdicts]
    assert len(set(names)) == len(names)
    assert set(names) > INVARIANTS
    assert all(len(each.reason) > 40 and each.reason.endswith(".") for each in good.verdicts)
    not_checked = {each.check: each.evidence for each in good.verdicts if each.outcome == "not checked"}
    assert set(not_checked) == {"fork", "endings", "restarts", "refusals", "flat-memory"}
    assert all(len(why) == 1 and why[0] for why in not_checked.values())
    assert all(each.evidence == () for each in good.verdicts if each.outcome == "held")


@pytest.mark.parametrize(
    ("what", "check"),
    [
        ({"mode_at_start": "sections"}, "mode: the run was meant for portable"),
        ({"books": {"samples": 999}}, "sampled: only 999 samples, not 1000"),
        ({"evidence": ["alive: made up"]}, "alive: made up"),
        ({"evidence": ["local-bound: made up"]}, "local-bound: made up"),
        ({"evidence": ["one-owner: made up"]}, "one-owner: made up"),
        ({"evidence": ["no-pin: made up"]}, "no-pin: made up"),
        ({"evidence": ["fork: made up"]}, "fork: made up"),
        ({"evidence": ["endings: made up"]}, "endings: made up"),
        ({"evidence": ["resize: made up"]}, "resize: made up"),
        ({"evidence": ["failure: made up"]}, "failure: made up"),
        ({"violated": {"total-bound": 3}}, "total-bound: and 3 more like these"),
        ({"violated": {"one-owner": 3}}, "one-owner: and 3 more like these"),
        ({"stats": {"per_p": [[0, 0], [0, 33]]}},
         "local-bound: at rest the local cache of P 1, class 1, holds 33 items, its cap is 32"),
        ({"stats": {"cached": 10**6}}, "total-bound: by stats() 1,000,000 items are cached"),
        ({"stats": {"peak_cached": 10**6}}, "total-bound: by its peak 1,000,000 items are cached"),
        ({"stats": {"per_p": [[1, 2]], "central": 5121}},
         "total-bound: 3 local and 5,121 central at rest, and the limit"),
        ({"books": {"created": 10**12}}, "total-bound: by the books"),
        ({"stats": {"gets": 1}}, "conservation: stats() says 1 gets"),
        ({"stats": {"puts": 1}}, "conservation: stats() says 1 puts"),
        ({"stats": {"created": 1}}, "conservation: stats() says 1 created"),
        ({"stats": {"destroyed": 1}}, "conservation: stats() says 1 destroyed"),
        ({"stats": {"live": 1}}, "conservation: stats() says 1 live"),
        ({"stats": {"bypassed": 1}}, "conservation: stats() says 1 bypassed"),
        ({"books": {"gives": 0}}, "conservation: "),
        ({"left": {"records": 2}}, "conservation: 2 allocations never came back to the allocator: records"),
        ({"one_p": 161}, "thread-exit: one P is left, whose caches hold 160 items at most, and 161 are cached"),
        ({"books": {"created": 10**12, "destroyed": 10**12}}, "reuse: "),
        ({"cleared": {"central": (200, 1)}}, "clear: after clearpools() the central pool holds 1 items, before it 200"),
        ({"cleared": {"central": (0, 0)}}, "clear: the central pool was empty already"),
        ({"cleared": {"per_p": ([[1, 9]], [[1, 8]])}},
         "clear: clearpools() changed the local cache of P 0, class 1, from 9 to 8 items"),
        ({"cleared": {"per_p": ([[0], [0]], [[0], [0]])}}, "clear: the local caches were empty already"),
        ({"cleared": {"left": 7}}, "clear: after the pool's clear() 7 items are cached"),
        ({"beyond": [(3, 1, 9)]}, "resize: procresize(1) has returned, and P 3 holds 9 items of class 1"),
        ({"books": {"failed": 1}}, "failure: 1 takes failed, and the allocator refused 0 calls for them"),
        ({"books": {"refused_record": 1}}, "failure: 0 takes failed, and the allocator refused 1 calls for them"),
        ({"books": {"resizes_refused": 1}}, "failure: 1 calls of procresize failed, and the allocator refused 0"),
        ({"books": {"refused_caches": 1}}, "failure: 0 calls of procresize failed, and the allocator refused 1"),
        ({"books": {"pools_refused": 1}}, "failure: 1 makings of a pool failed, and the allocator refused 0"),
        ({"plan": {"scenario": "starve"}}, "refusals: no call was refused at the site batch"),
        ({"resident": [10**8] * 9 + [10**8 + 2**21] * 3}, "flat-memory: resident memory grew"),
        ({"plan": {"scenario": "interrupt", "mode": "sections"}, "mode_at_start": "sections", "cpu_seconds": 0.1,
          "restarts": 3}, "restarts: only 3 sections were restarted, not 10, in "),
        ({"plan": {"scenario": "interrupt", "mode": "sections"}, "mode_at_start": "sections", "cpu_seconds": 4.0,
          "restarts": 199}, "restarts: only 199 sections were restarted, not 200, in 4.0 s of CPU"),
        ({"plan": {"scenario": "interrupt", "mode": "sections"}, "mode_at_start": "sections", "cpu_seconds": 400.0,
          "restarts": 999}, "restarts: only 999 sections were restarted, not 1000, in 400.0 s of CPU"),
        ({"plan": {"options": Options(ops=9, modes=("portable",)), "threads": 1}, "cpu_seconds": 2.0,
          "books": {"samples": 499}}, "sampled: only 499 samples, not 500, in 2.0 s"),
    ],
)
def test_each_check_can_fail(good: Result, what: dict[str, Any], check: str) -> None:
    result = changed(good, **what)
    assert any(text.startswith(check) for text in result.broken), result.broken
    assert verdict(result, check.partition(":")[0]).outcome == "broken"
    assert result.verdict == "FAILED"


@pytest.mark.parametrize(
    ("check", "what", "why"),
    [
        ("reuse", {"plan": {"clears": True}}, "cleared while the run is on"),
        ("reuse", {"plan": {"refuses": True}}, "fail on purpose"),
        ("reuse", {"plan": {"most_live": 10**6, "usual_limit": 64}}, "1,000,000 records may be live"),
        ("reuse", {"bound": None}, "no limit"),
        ("total-bound", {"bound": None}, "no limit"),
        ("one-owner", {"plan": {"options": Options(checks=False)}}, "--no-checks"),
        ("no-pin", {"plan": {"options": Options(checks=False)}}, "--no-checks"),
        ("sampled", {"interrupted": True, "books": {"samples": 3}}, "cut short"),
        ("clear", {"books": {}}, ""),
        ("flat-memory", {"resident": [1, 2, 3]}, "3 looks at memory are too few"),
    ],
)
def test_what_was_not_checked_says_why(good: Result, check: str, what: dict[str, Any], why: str) -> None:
    if not why:
        bare = replace(good, cleared=None)
        judge(bare)
        what, why, good = {}, "did not come to its end", bare
        result = bare
    else:
        result = changed(good, **what)
    found = verdict(result, check)
    assert found.outcome == "not checked"
    assert why in found.evidence[0]


def test_what_was_seen_outweighs_that_nothing_else_was_looked_at(good: Result) -> None:
    result = changed(good, evidence=["fork: child 1 hung"])
    assert verdict(result, "fork") == replace(verdict(good, "fork"), outcome="broken", evidence=("child 1 hung",))


def test_much_evidence_is_cut(good: Result) -> None:
    found = verdict(changed(good, evidence=[f"resize: {i}" for i in range(30)]), "resize")
    assert found.evidence == (*map(str, range(7)), "and 23 more")


@pytest.mark.parametrize("design", [PER_P, PER_THREAD])
def test_a_list_that_does_not_grow_fails(good: Result, design: str) -> None:
    plan = Plan(scenario="migrate", threads=2, most_live=100, options=Options(ops=1), design=design)
    grows = [(at / 10, at * 1000, at * 1000) for at in range(50)]
    result = replace(good, plan=plan, curve=grows, books={**good.books, "gives": 49_000})
    judge(result)
    assert result.broken == []
    result.curve = [(at, min(cached, 5_000), gives) for at, cached, gives in grows]
    judge(result)
    assert any(text.startswith("growth: only 5,000 cached") for text in result.broken)


# ---- the scenarios: one seed, one sequence of decisions; and each does what it is for ---------------------

@pytest.mark.parametrize("name", ALL)
def test_one_seed_is_one_sequence_of_decisions(name: str) -> None:
    def decisions(seed: int) -> dict[str, list[int]]:
        options = Options(ops=40_000, seed=seed, modes=("portable",), calls=("nogil", "python"), threads=4)
        results = [judged(plan) for plan in ALL[name].plans(options)]
        broken = [text for result in results for text in result.broken]
        assert broken == []
        disturbed = {"mixed", "soak", "resize", "collect", "fork"}  # what their hand did is counted in the notes
        notes.append([text for result in results for text in result.notes[:1] if name in disturbed])
        return {result.plan.title: result.decisions for result in results}

    notes: list[list[str]] = []
    first = decisions(5)
    assert first == decisions(5)
    assert notes[0] == notes[1]
    assert all(len(set(each)) == len(each) for each in first.values())  # each thread has a sequence of its own
    assert all(first[title] != other for title, other in decisions(6).items())


def test_a_decision_more_is_another_hash() -> None:
    ledger = Ledger()
    pool = deferpool.RecordPool(allocator=ledger.capsule())

    def hash_of(ops: int) -> int:
        load = Load(pool, ledger, 1, seed=1)
        load.run_life(0, 16, ops)
        load.settle()
        return load.decisions()[0]

    assert len({hash_of(ops) for ops in (1_000, 1_000, 10_000, 20_000)}) == 3


def test_soak_is_for_those_who_ask() -> None:
    assert set(ALL) - set(options.parse([]).options.scenarios) == {"soak"}
    assert options.parse(["soak"]).options.scenarios == ("soak",)


def one(name: str, **more: Any) -> Result:
    result = judged(ALL[name].plans(Options(modes=("portable",), **{"seconds": 0.5, "seed": 3, **more}))[0])
    assert result.broken == []
    return result


def figure(result: Result, what: str) -> int:
    found = re.search(rf"([\d,]+) {what}", " ".join(result.notes))
    assert found is not None, result.notes
    return int(found[1].replace(",", ""))


def test_threads_leave_records_to_others() -> None:
    result = one("threads", threads=10)
    assert figure(result, "records given back by other threads") > 10 * figure(result, "rounds of 10 threads")


def test_collect_clears_in_every_way() -> None:
    result = one("collect")
    assert all(figure(result, what) > 0 for what in ("times clearpools", "times clear\\(", "full collections"))
    assert result.cleared is not None
    assert result.cleared.central[0] > 0 == result.cleared.central[1]  # here it is a collection that clears


def test_starve_refuses_at_every_site() -> None:
    result = one("starve")
    assert verdict(result, "refusals").outcome == "held"
    assert all(result.books[f"refused_{site}"] > 0 for site in ("record", "batch", "caches", "pool"))
    assert result.books["failed"] > 0 < result.books["resizes_refused"]


@pytest.mark.parametrize(("number", "limit"), [(0, 0), (1, 64), (2, 100_000)])
def test_limit_runs_with_none_little_and_much(number: int, limit: int) -> None:
    options = Options(ops=100_000, modes=("portable",))
    result = judged(ALL["limit"].plans(options)[number])
    assert result.broken == []
    assert result.bound == result.procs * 5 * 32 + limit
    assert (result.stats["dropped"] > 0) == (limit < 1_000)


def test_mixed_does_all_of_it() -> None:
    result = one("mixed", seconds=None, ops=400_000)
    for what in ("births", "resizes", "clearpools", "phases of failure"):
        assert figure(result, what) > 0
    assert result.books["resizes"] == figure(result, "resizes")


def test_soak_prints_a_line_and_looks_at_memory(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(ALL["soak"], "LINE_EVERY_S", 0.2)
    result = one("soak", seconds=2.0)
    assert len(result.resident) >= 4
    few = len(result.resident) // 4 < checks.LOOKS  # where other work takes the time for them
    assert verdict(result, "flat-memory").outcome == ("not checked" if few else "held")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 2
    assert all(re.fullmatch(r"[\d:]{8} soak, portable: [\d.]+ min, [\d,]+ ops, resident [\d.]+ MiB, cached [\d,]+, "
                            r"bound [\d,]+", line) for line in lines)


def test_what_a_scenario_sees_is_counted_and_the_first_kept() -> None:
    def during(running: Running) -> None:
        for number in range(9):
            running.saw("resize", f"made up {number}")

    plan = replace(ALL["churn"].plans(Options(ops=1_000, modes=("portable",)))[0], during=during)
    kept = [f"made up {number}" for number in range(4)]
    assert verdict(judged(plan), "resize").evidence == (*kept, "and 5 more like these")


@pytest.mark.skipif(not children.POSSIBLE, reason="children are waited for by pidfd")
def test_what_a_child_finds_is_evidence_in_the_parent() -> None:
    ledger = Ledger()
    pool = deferpool.RecordPool([16, 32, 48, 64, 80], allocator=ledger.capsule())
    load = Load(pool, ledger, 1, seed=1)
    for _ in range(2):
        held = [pool.new(80) for _ in range(40)]  # some on this P, some central; nothing of this is out any more
        for each in held:
            pool.free(each)
    running = Running(ALL["fork"].plans(Options())[0], load, pool, pool, ledger, quiet)
    assert children.fork_one(running)
    assert running.evidence == []
    record = pool.new(80)
    address = record.address or 0
    pool.free(record)
    load.taking(0)
    load.took(0, address, 80)  # as if it were still out
    assert not children.fork_one(running)
    assert f"fork: child 2 ended with 3: one-owner: record {address:#x} taken by thread 1" in running.evidence[0]
    assert "thread 0 took 80 bytes" in running.evidence[0]
    assert running.counts["forks"] == 2


def test_what_the_checks_cost_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    status = overhead.main(["--rounds", "2", "--ops", "100_000", "--threads", "2"])
    out = capsys.readouterr().out
    assert status == ("below" in out)
    kept = [float(each) for each in re.findall(r" (\d\.\d\d) │ +[\d.]+ - ", out)]
    assert len(kept) == 1 + machine.has_sections()
    assert (min(kept) < overhead.LEAST) == status
    assert all(each > 0 for each in kept)


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
    assert load.violated() == {"one-owner": 1}
    assert "taken by thread 1, but its owner word says 0" in load.first_evidence()[0]


def test_evidence_tells_the_last_events_of_the_record_and_of_no_other() -> None:
    ledger = Ledger()
    pool = deferpool.RecordPool([64], allocator=ledger.capsule())
    load = Load(pool, ledger, 3, seed=1)
    record, other = pool.new(64), pool.new(48)
    address = record.address or 0
    for thread in (2, 0, 1):  # by the clock, not by number
        assert load.took(thread, address, 64)
        assert load.took(thread, other.address or 0, 48)
        assert load.giving(thread, address, 64, thread)
        assert load.giving(thread, other.address or 0, 48, thread)
        with memoryview(record) as view:
            view[:] = bytes(64)
        with memoryview(other) as view:
            view[:] = bytes(48)
    assert load.took(1, address, 64)
    assert not load.took(0, address, 64)
    _, _, story = load.first_evidence()[0].partition("oldest first: ")
    told = [re.sub(r"^[-+][\d,.]+ us ", "", each) for each in story.split(", ")]
    pairs = [f"thread {thread} {did} 64 bytes" for thread in (2, 0, 1) for did in ("took", "gave back")]
    assert told == [*pairs, "thread 1 took 64 bytes", "thread 0 took 64 bytes"]
    times = [float(each.split()[0].replace(",", "")) for each in story.split(", ")]
    assert times == sorted(times)
    assert times[-1] <= 0


def test_a_ring_keeps_the_newest_events() -> None:
    ledger = Ledger()
    pool = deferpool.RecordPool([64], allocator=ledger.capsule())
    load = Load(pool, ledger, 2, seed=1)
    record = pool.new(64)
    assert load.took(0, record.address or 0, 64)
    load.run_churn(0, 8, 1_000)  # that was long ago: its ring is full of others
    assert not load.took(1, record.address or 0, 64)
    assert "thread 0 took" not in load.first_evidence()[0]
    assert "thread 1 took 64 bytes" in load.first_evidence()[0]


def test_a_record_that_is_not_zero_is_seen() -> None:
    ledger = Ledger()
    pool = deferpool.RecordPool([64], allocator=ledger.capsule())
    load = Load(pool, ledger, 1, seed=1)
    record = pool.new(64)
    with memoryview(record) as view:
        view[56] = 7
    load.took(0, record.address or 0, 64)
    assert load.violated() == {"no-pin": 1}
    assert "was handed out to thread 0 with 0x7 in word 7" in load.first_evidence()[0]


def test_each_kind_of_evidence_has_room_of_its_own() -> None:
    ledger = Ledger()
    pool = deferpool.RecordPool([64], allocator=ledger.capsule())
    load = Load(pool, ledger, 1, seed=1)
    record = pool.new(64)
    for _ in range(100):
        load.giving(0, record.address or 0, 64, 0)
    with memoryview(record) as view:
        view[:] = bytes(56) + b"\x07" + bytes(7)
    load.took(0, record.address or 0, 64)
    assert load.violated() == {"one-owner": 200, "no-pin": 1}
    assert [text.partition(":")[0] for text in load.first_evidence()].count("no-pin") == 1
    assert len(load.first_evidence()) == 4 + 4 + 1


def test_a_record_of_two_owners_does_not_end_the_process() -> None:
    """Their frees would: so nobody would hear of it."""
    ledger = Ledger()
    pool = deferpool.RecordPool([64], allocator=ledger.capsule())
    load = Load(pool, ledger, 2, seed=1)
    record = take(load, pool, 0, 64)
    assert record is not None
    give(load, pool, 1, record, 1)  # not its owner
    assert load.violated() == {"one-owner": 1}
    assert pool.stats()["live"] == 1
    give(load, pool, 0, record, 0)
    assert load.violated() == {"one-owner": 1}
    assert pool.stats()["live"] == 0


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


def hammered(bound: int | None = None, cap: int | None = None, limit: int | None = None) -> Load:
    """One thread, 1,000 records out and in again, while the sampler looks; told what to hold the pool to."""
    ledger = Ledger()
    sched = deferpool.Sched(1, portable=True)
    pool = deferpool.RecordPool([16, 64], limit=2_000, sched=sched, allocator=ledger.capsule())
    load = Load(pool, ledger, 1, seed=1, bound=bound, cap=cap, limit=limit)
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
    books = hammered().books()
    assert books["violations"] == 0
    assert books["peak_outside"] == 1_000
    assert 900 <= books["peak_cached"] <= 1_000


def test_too_much_cached_is_seen_twice() -> None:
    load = hammered(bound=900)
    assert load.violated()["total-bound"] == load.books()["violations"] >= 2
    evidence = " | ".join(load.first_evidence())
    found = re.search(r"total-bound: (\d+) items cached, (\d+) local and (\d+) central, the bound is 900", evidence)
    assert found is not None, evidence
    assert 900 < int(found[1]) == int(found[2]) + int(found[3]) <= 1_000
    books = re.search(r"total-bound: by the harness's books (\d+) items cached, the bound is 900", evidence)
    assert books is not None, evidence
    assert 900 < int(books[1]) <= 1_000  # at the first look that saw too many


def test_a_local_cache_past_its_cap_is_named() -> None:
    load = hammered(cap=16)
    assert set(load.violated()) == {"local-bound"}
    found = re.match(r"local-bound: the local cache of P 0, class 1, held (\d+) items, its cap is 16 ",
                     load.first_evidence()[0])
    assert found is not None, load.first_evidence()
    assert 16 < int(found[1]) <= 32


def test_a_central_pool_past_its_limit_is_seen() -> None:
    load = hammered(limit=900)
    assert set(load.violated()) == {"total-bound"}
    found = re.search(r"(\d+) items in the central pool, its limit is 900 \((\d+) were local\)",
                      load.first_evidence()[0])
    assert found is not None, load.first_evidence()
    assert 900 < int(found[1]) <= 1_000 >= int(found[1]) + int(found[2])


def test_the_ledger_refuses_the_call_it_was_told_to() -> None:
    ledger = Ledger()
    sched = deferpool.Sched(1, portable=True)
    pool = deferpool.RecordPool([16], cap=2, limit=8, sched=sched, allocator=ledger.capsule())
    Load(pool, ledger, 1, 1)  # tells it what a batch is
    ledger.refuse("record", 3)
    outcomes = []
    records = []
    for _ in range(5):
        try:
            records.append(pool.new(16))
            outcomes.append(True)
        except MemoryError:
            outcomes.append(False)
    assert outcomes == [True, True, False, True, True]
    ledger.refuse("batch", 1)
    for record in records:
        pool.free(record)
    assert (ledger.refused_at("record"), ledger.refused_at("batch"), ledger.refused_at("caches")) == (1, 1, 0)
    ledger.refuse("caches", 1)
    with pytest.raises(MemoryError):
        pool.sched.procresize(pool.sched.procs + 1)
    assert ledger.refused_at("caches") == 1


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
