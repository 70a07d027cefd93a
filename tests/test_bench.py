"""The bench: the work it times is done whole, its judgement is what it says, and rows that we lose are shown."""
from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import deferpool
from stress import _bench, machine
from stress.bench import cells, command, endings, peers, pool_packages, pools, race, report, turns
from stress.bench.cells import LARGE, PORTABLE, USUAL, Row
from stress.bench.peers import Peer
from stress.bench.race import Figures
from stress.bench.report import Report

GLIBC = Peer("glibc", "2")
OTHER = Peer("other", "1", Path("other.so"))
NO_GO = Peer("Go", why_not="made up: no compiler")


# ---- what is timed ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("design", [deferpool.RecordPool, _bench.Malloc, _bench.Origin])
@pytest.mark.parametrize("work", ["rest", "pair", "burst", "pass", "mixed"])
def test_work_is_done_whole_and_gives_all_back(work: str, design: type) -> None:
    made = design()
    threads, pairs = 4, 6_400
    gate = _bench.Gate(threads)
    seconds: list[float] = []
    running = [threading.Thread(target=lambda i=i: seconds.append(_bench.WORK[work](made, gate, i, pairs)))
               for i in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert len(seconds) == threads
    assert all(0 <= each < 60 for each in seconds)
    if isinstance(made, deferpool.RecordPool):
        stats = made.stats()
        least = {"rest": 0, "burst": threads * 7_000}.get(work, threads * pairs)  # bursts are whole thousands
        assert stats["gets"] == stats["puts"] == least
        assert stats["live"] == 0


def test_mixed_takes_every_class() -> None:
    pool = deferpool.RecordPool(cap=2, limit=0)
    _bench.WORK["mixed"](pool, _bench.Gate(1), 0, 10_000)
    assert all(sum(items) for items in zip(*pool.stats()["per_p"], strict=True))


def test_targets_are_the_projects() -> None:
    rows = {(row.title, row.threads): row.target for row in cells.rows(4)}
    assert rows["pair", 4] == rows["pair", 64] == 0.50
    assert rows["pair", 256] == 0.55
    assert rows["burst of 1,000, cap 32", 256] == 0.90
    assert rows["burst of 1,000, cap 128", 1] == 0.70
    assert rows["producer/consumer, cap 32", 2] == 0.50
    assert rows["producer/consumer, cap 128", 64] == 0.45
    assert rows["mixed sizes", 16] == 0.80
    assert rows["pair, portable", 4] == rows["burst of 1,000, cap 32, portable", 1] == 2.0
    assert rows["pair, portable", 16] == rows["burst of 1,000, cap 32, portable", 64] == 3.0
    assert rows["pair, sync.Pool", 4] == rows["burst of 1,000, cap 32, heap defers", 4] == 0.33
    assert rows["producer/consumer, cap 32, sync.Pool", 4] == 0.33
    assert len(rows) == len(cells.rows(4)) == 5 + 5 + 5 + 3 + 3 + 3 + 4 + 4 + 3
    assert len(set(cells.rows(1))) == len(cells.rows(1))


def test_each_loop_does_what_it_is_timed_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many cycles, and in each of them so many calls at the end."""
    calls = {"1 call": 1, "3 calls": 3, "1 callback": 1, "3 callbacks": 3, "10 callbacks": 10, "enter_context": 1,
             "raising": 1, "enter_async_context": 1}
    done = 0

    def count(*details: object) -> None:
        nonlocal done
        done += 1

    async def count_later(*details: object) -> None:
        count()

    monkeypatch.setattr(endings, "nothing", count)
    monkeypatch.setattr(endings, "nothing_later", count_later)
    monkeypatch.setattr(endings.Manager, "__exit__", count)
    monkeypatch.setattr(endings.Manager, "__aexit__", count_later)
    for row in endings.rows():
        if row.why_not:
            continue
        for loop in (row.ours, row.peer):
            done = 0
            loop(20)
            assert done == 20 * calls[row.title.partition(", ")[2]], row


class Counted:
    """A pool that counts its calls."""

    def __init__(self) -> None:
        self.taken = self.given = 0

    def acquire(self) -> Counted:
        self.taken += 1
        return self

    def release(self, thing: object) -> None:
        self.given += 1


@pytest.mark.parametrize("how", [how for how, _ in pools.FORMS])
@pytest.mark.parametrize("give", ["pool.release(x)", "x.release(None)"])
def test_a_contender_is_called_so_often(how: Callable[[pools.Contender], turns.Loop], give: str) -> None:
    pool = Counted()
    how(pools.Contender("", lambda: pool, "pool.acquire()", give))(200)
    assert (pool.taken, pool.given) == (200, 200)


@pytest.mark.parametrize("contender", [pools.POOL, pools.DEQUE, *pools.OTHERS], ids=lambda each: each.name)
def test_contenders_hold_as_many_objects(contender: pools.Contender) -> None:
    made: Any = contender.make()
    held: dict[str, Callable[[], int]] = {
        "Pool": lambda: made.stats()["cached"], "threading.local list": lambda: len(made.items),
        "queue.SimpleQueue": lambda: made.qsize(), "queue.LifoQueue": lambda: made.qsize()}
    assert held.get(contender.name, lambda: len(made))() == pools.KEPT


def test_every_row_of_pools_runs() -> None:
    for row in pools.rows(2):
        if row.why_not:
            continue
        turns.timed(row.ours, row.threads, 20)
        turns.timed(row.peer, row.peer_threads or row.threads, 20)


def test_targets_of_pools_are_the_projects() -> None:
    targets = {(row.title, row.against): row.target for row in pools.rows(4)}
    for form in ("", ", bound methods"):
        assert targets[f"acquire, release{form}", "collections.deque"] == 1 / 1.5
        assert targets[f"acquire, release{form}", "queue.SimpleQueue"] == 1
        assert targets[f"acquire, release{form}, 2 threads", "collections.deque"] == 2.5
        assert targets[f"acquire, release{form}, 4 threads", "collections.deque"] == 4
        assert targets[f"acquire, release{form}, 4 threads", "Pool, 1 thread"] == 0.85 * 4
        for threads in ("", ", 4 threads"):
            assert targets[f"get, release of 65,536 bytes{form}{threads}", "bytearray(65536)"] == 8
            assert targets[f"get, release of 1,048,576 bytes{form}{threads}", "bytearray(1048576)"] == 100
    assert targets["lease", "acquire, release"] == 1 / 1.6
    assert targets["acquire, release with debug", "without"] is None


def test_not_more_threads_than_cores_or_than_run_at_once() -> None:
    why_not = {(row.title, row.against): row.why_not for row in pools.rows(2)}
    alone = pools.GIL if machine.has_gil() else ""
    assert why_not["acquire, release, 2 threads", "collections.deque"] == alone
    assert why_not["acquire, release, 2 threads", "Pool, 1 thread"] == alone
    assert why_not["acquire, release, 4 threads", "collections.deque"] == (alone or "2 cores")
    assert why_not["get, release of 65,536 bytes, 2 threads", "bytearray(65536)"] == alone


@pytest.mark.parametrize("package", pool_packages.PACKAGES, ids=lambda each: each.name)
def test_a_pool_of_a_package_holds_its_objects(package: pool_packages.Package) -> None:
    made: list[pools.Thing] = []

    def new() -> pools.Thing:
        made.append(pools.Thing())
        return made[-1]

    try:
        pool = package.make(new, 3)
    except ImportError as error:
        pytest.skip(str(error))
    assert len(made) == 3
    loop = pools.Contender("", lambda: pool, package.take, package.give).looked_up()
    loop(20)
    assert len(made) == 3


def test_a_package_that_cannot_be_had_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    def fail(new: Callable[[], object], count: int) -> object:
        raise ImportError("made up: no [such] package")

    package = pool_packages.Package("made-up", fail, "pool.get()", "pool.put(x)")
    monkeypatch.setattr(pool_packages, "PACKAGES", (package,))
    of_it = [row for row in pools.rows(1) if row.against == "made-up"]
    assert [row.why_not for row in of_it] == ["ImportError: made up: no [such] package"] * len(pools.FORMS)
    turns.race(of_it, 1, 1, lambda text: None)
    report.show(Console(width=200), made(figures("deferpool", 1.0), [figures("glibc", 5.0)], pools=of_it))
    assert "not run: ImportError: made up: no [such] package" in capsys.readouterr().out
    assert report.document(made(figures("deferpool", 1.0), [], pools=of_it))["pools"][0]["why_not"]


# ---- the judgement ----------------------------------------------------------------------------------------------

def made(ours: Figures, others: list[Figures], row: Row | None = None, **more: object) -> Report:
    row = row or Row("pair", 2, USUAL, 0.5)
    given: dict[str, object] = {"rows": [row], "raced": {(row.work, row.threads): [ours, *others]}, "flat": [],
                                "bound": [], "python": [], "endings": report.Endings(), "pools": [],
                                "allocators": [GLIBC, OTHER], "go": NO_GO, "rounds": 3, "seconds": 1.0, **more}
    return Report(**given)  # type: ignore[arg-type]


def figures(name: str, *ns: float, peak: int = 0, **more: object) -> Figures:
    return Figures(name, list(ns), peak, **more)  # type: ignore[arg-type]


def test_the_ratio_is_of_least_to_the_least_of_the_best() -> None:
    others = [figures("glibc", 9.0, 9.0, 9.0), figures("other", 8.0, 5.0, 6.0)]
    found, = made(figures("deferpool", 4.0, 2.0, 3.0), others).judged
    assert found.best is not None
    assert found.best.name == "other"
    assert found.ratio == 2.0 / 5.0
    assert found.median == 0.5
    assert found.quartiles == (0.45, 0.5)
    assert found.reached


@pytest.mark.parametrize(("ours", "reached"), [(2.5, True), (2.6, False)])
def test_a_target_is_reached_or_not(ours: float, reached: bool) -> None:
    assert made(figures("deferpool", ours), [figures("glibc", 5.0)]).judged[0].reached is reached


@pytest.mark.parametrize(
    ("target", "reached", "said"), [(2.0, True, "2.00 yes"), (2.1, False, "2.10 no"), (None, None, "- -")]
)
def test_times_as_fast_are_of_least_to_least(
    target: float | None, reached: bool | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    row = turns.Row("ours", "the peer", turns.idle, turns.idle, target, ns=[2.0, 1.0, 4.0], peer_ns=[6.0, 4.0, 2.0])
    assert row.times == 2.0
    assert row.ratios == [3.0, 4.0, 0.5]
    assert row.reached is reached
    report.show(Console(width=200), made(figures("deferpool", 1.0), [figures("glibc", 5.0)], pools=[row]))
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"ours the peer 1 2 2.00 {said} 3.00 1.75 - 3.50" in shown
    assert f"{int(reached is True)} of {int(reached is not None)} targets met, 0 rows not run" in shown


def test_one_thread_beside_many_is_apart_as_they_are() -> None:
    seen: list[int] = []
    row = turns.Row("", "", lambda cycles: None, lambda cycles: seen.append(threading.get_ident()), None, 100, 2, 1)
    turns.race([row], 1, 100, lambda text: None)
    assert len(seen) == 2
    assert threading.get_ident() not in seen
    turns.timed(row.peer, 1, 100)
    assert seen[2:] == [threading.get_ident()]


def test_threads_at_once_take_no_less_than_the_longest_of_them() -> None:
    assert turns.at_once(lambda cycles: time.sleep(0.01 * cycles), 3, 2) >= 0.02


def test_what_was_not_run_has_not_reached_its_target() -> None:
    assert turns.not_run("ours", "the peer", 1.0, "made up").reached is False


def test_rows_take_turns_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []

    def ours(cycles: int) -> None:
        calls.append(f"ours {cycles}")

    def peer(cycles: int) -> None:
        calls.append(f"peer {cycles}")

    row = turns.Row("", "", ours, peer, None, 50_000, 1, 2)
    turns.race([row], 3, 1, lambda text: None)
    assert calls == [*["peer 500"] * 2, "ours 500", "ours 500", *["peer 500"] * 2] * 2
    assert len(row.ns) == len(row.peer_ns) == 3


@pytest.mark.parametrize(("peak", "small"), [(100, True), (101, False)])
def test_the_peak_is_beside_the_smallest(peak: int, small: bool) -> None:
    others = [figures("glibc", 5.0, peak=100), figures("other", 1.0, peak=900)]
    assert made(figures("deferpool", 1.0, peak=peak), others).judged[0].small is small


def test_go_is_judged_alone() -> None:
    row = Row("pair", 2, USUAL, 0.33, "Go")
    go = Peer("Go", "1.27", Path("bench"))
    found, = made(figures("deferpool", 2.0), [figures("glibc", 1.0), figures("Go", 10.0)], row, go=go).judged
    assert found.ratio == 0.2
    found, = made(figures("deferpool", 2.0), [figures("glibc", 1.0)], row).judged
    assert found.ratio is None
    assert found.why_not == "made up: no compiler"
    assert not found.reached


@pytest.mark.parametrize(
    ("past", "outstanding", "held"), [(0, 100, True), (1, 100, False), (0, 101, False), (0, None, False)]
)
def test_the_bound_holds_or_not(past: int, outstanding: int | None, held: bool) -> None:
    counted = figures("deferpool", 1.0, bound=100, outstanding=outstanding)
    ours = figures("deferpool", 1.0, bound=100, past=past)
    assert made(ours, [], bound=[(2, counted)]).bound_held is held


def test_what_did_not_run_is_no_success() -> None:
    good, other = figures("deferpool", 1.0, bound=100), [figures("glibc", 5.0)]
    assert made(good, other).ran
    assert made(good, [figures("glibc")]).ran  # a peer says why, and no more
    broken = figures("deferpool", bound=100)
    broken.error = "made up: it ended with 1"
    assert not made(broken, other).ran
    assert not made(good, other, bound=[(2, broken)]).ran
    assert not made(good, other, python=[(1, broken)]).ran
    assert not made(figures("deferpool", 1.0), other).bound_held  # it never said what its bound is


def test_the_command_fails_with_its_workers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "allocators", lambda: [GLIBC])
    monkeypatch.setattr(peers, "go", lambda: NO_GO)
    monkeypatch.setattr(race, "ours", lambda *given, **more: lambda: race.Runner(given[0].name, ["/bin/false"]))
    assert command.main(["pair", "--threads", "1", "--rounds", "1", "--share", "1"]) == 1
    assert "failed: deferpool: it ended with 1" in capsys.readouterr().out


def test_losing_rows_and_what_could_not_run_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    rows = [Row("pair", 2, USUAL, 0.5), Row("pair", 2, PORTABLE, 2.0), Row("pair", 2, USUAL, 0.33, "Go")]
    ours = [figures("deferpool", 2.0), figures("deferpool, portable", 19.0), figures("glibc", 5.0)]
    broken = figures("other")
    broken.error = "made up: cannot be preloaded"
    shown = made(ours[0], [*ours[1:], broken], rows=rows, flat=[("pair", 10**5, 2.0), ("pair", 10**6, 2.3)],
                 bound=[(2, figures("deferpool", 1.0, bound=100, outstanding=70, cached=80))],
                 python=[(1, figures("deferpool", 30.0)), (2, figures("deferpool", 40.0))],
                 endings=report.Endings(at_once=[turns.AtOnce("theirs", turns.idle, 2, None, [3.0, 2.0], [2.5, 4.0]),
                                                 turns.AtOnce("ours", turns.idle, 2, 0.85, [3.0], [4.0])]))
    report.show(Console(width=200), shown)
    out = " ".join(capsys.readouterr().out.split())
    assert "0.40" in out
    assert "3.80" in out
    assert "not run: Go: made up: no compiler" in out
    assert "failed: other: made up: cannot be preloaded" in out
    assert "NOT within 10% (largest +15%)" in out
    assert "the bound, 2 threads: 100; most seen cached 80; at rest 70" in out
    assert "1.50 times as much at once, target 1.70" in out
    assert "theirs: 1.60 times as much at once with 2 threads, to compare with" in out
    assert "ours: 1.50 times as much at once with 2 threads, target 1.70" in out
    assert "1 of 3 ratios reach their target" in out
    assert json.loads(json.dumps(report.document(shown)))["rows"][1]["ratio"] == 3.8


# ---- the race ---------------------------------------------------------------------------------------------------

def test_a_race_takes_turns_and_the_first_round_does_not_count() -> None:
    found = race.race([race.ours(USUAL, "pair", 2, ledger=True), race.ours(LARGE, "burst", 2),
                       race.origin("2015", "pass", 2), race.allocator(GLIBC, "mixed", 1)], 2, 20_000)
    assert [each.error for each in found] == [""] * 4
    assert [len(each.ns) for each in found] == [2] * 4
    assert all(0 < ns < 1e6 for each in found for ns in each.ns)
    assert all(each.peak is not None and 0 <= each.peak < 1 << 30 for each in found)
    assert found[0].bound is not None
    assert found[0].outstanding is not None
    assert 0 < found[0].outstanding <= found[0].bound
    assert [each.past for each in found] == [0] * 4


def test_who_cannot_run_says_why() -> None:
    found, = race.race([race.go(Peer("Go", file=Path("/bin/false")), "pair", 1)], 1, 1)
    assert found.error == "it ended with 1"
    assert found.ns == []


def test_a_missing_package_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peers, "FOLDER", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {peer.name: peer for peer in peers.allocators()}
    assert found["jemalloc"].file is None
    assert "no apt-get here" in found["jemalloc"].why_not
    assert found[peers.allocators()[0].name].why_not == ""


def test_the_command_writes_its_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(peers, "allocators", lambda: [GLIBC, Peer("made-up", why_not="not made")])
    monkeypatch.setattr(peers, "go", lambda: NO_GO)
    arguments = ["pair", "bound", "flat", "endings", "pools", "--threads", "1", "--rounds", "1", "--share", "1",
                 "--json", str(tmp_path / "bench.json"), "--chart", str(tmp_path / "bench.svg"),
                 "--markdown", str(tmp_path / "bench.md")]
    assert command.main(arguments) == 0
    document = json.loads((tmp_path / "bench.json").read_text())
    assert {row["title"] for row in document["rows"]} >= {"pair", "pair, portable"}
    assert document["not_run"] == {"made-up": "not made", "Go": "made up: no compiler"}
    assert [each["threads"] for each in document["bound"]] == [2, 1000]
    assert all(0 < each["outstanding"] <= each["bound"] for each in document["bound"])
    assert [each["pairs"] for each in document["flat"]] == [10**5, 10**6, 10**7] * 2
    assert {(each["title"], each["against"]): each["target"] for each in document["endings"]}.items() >= {
        ("@deferring, 3 calls", "nested try/finally"): 1 / 1.5, ("@deferring, 1 call", "contextlib.ExitStack"): 15,
        ("ExitStack, 10 callbacks", "contextlib's"): 7, ("ExitStack, enter_context", "contextlib's"): 3,
        ("ExitStack, raising", "contextlib's"): 3, ("AsyncExitStack, 1 callback", "contextlib's"): 3}.items()
    assert all(each["times"] == min(each["peer_ns"]) / min(each["ns"]) > 0 for each in document["endings"]
               if not each["why_not"])
    assert {(each["title"], each["against"]) for each in document["pools"]} == {
        (row.title, row.against) for row in pools.rows(len(machine.usable_cpus()))}
    assert all(len(each["ns"]) == len(each["peer_ns"]) == (not each["why_not"]) for each in document["pools"])
    assert "<svg" in (tmp_path / "bench.svg").read_text()
    lines = (tmp_path / "bench.md").read_text().splitlines()
    assert {line.count("|") for line in lines[:4]} == {9}
    in_turns = "| @deferring, 3", "| ExitStack, raising", "| lease"
    assert {line.count("|") for line in lines if line.startswith(in_turns)} == {7}
    assert lines[2].startswith("| pair | 1 | ")
    assert "made-up: not made" in capsys.readouterr().out


@pytest.mark.skipif(machine.has_gil(), reason="with the GIL threads take turns")
def test_from_python(monkeypatch: pytest.MonkeyPatch) -> None:
    found, = race.race([race.ours(USUAL, "python", 2)], 1, 2_000)
    assert found.error == ""
    assert len(found.ns) == 1
