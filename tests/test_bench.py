"""The bench: the work it times is done whole, its judgement is what it says, and rows that we lose are shown."""
from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

import deferpool
from stress import _bench, machine
from stress.bench import cells, command, endings, peers, race, report
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


# ---- the judgement ----------------------------------------------------------------------------------------------

def made(ours: Figures, others: list[Figures], row: Row | None = None, **more: object) -> Report:
    row = row or Row("pair", 2, USUAL, 0.5)
    given: dict[str, object] = {"rows": [row], "raced": {(row.work, row.threads): [ours, *others]}, "flat": [],
                                "bound": [], "python": [], "endings": report.Endings(),
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
                 python=[(1, figures("deferpool", 30.0)), (2, figures("deferpool", 40.0))])
    report.show(Console(width=200), shown)
    out = " ".join(capsys.readouterr().out.split())
    assert "0.40" in out
    assert "3.80" in out
    assert "not run: Go: made up: no compiler" in out
    assert "failed: other: made up: cannot be preloaded" in out
    assert "NOT within 10% (largest +15%)" in out
    assert "the bound, 2 threads: 100; most seen cached 80; at rest 70" in out
    assert "1.50 times as much at once, target 1.70" in out
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
    arguments = ["pair", "bound", "flat", "endings", "--threads", "1", "--rounds", "1", "--share", "1",
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
    assert "<svg" in (tmp_path / "bench.svg").read_text()
    lines = (tmp_path / "bench.md").read_text().splitlines()
    assert {line.count("|") for line in lines[:4]} == {9}
    assert {line.count("|") for line in lines if line.startswith(("| @deferring, 3", "| ExitStack, raising"))} == {7}
    assert lines[2].startswith("| pair | 1 | ")
    assert "made-up: not made" in capsys.readouterr().out


@pytest.mark.skipif(machine.has_gil(), reason="with the GIL threads take turns")
def test_from_python(monkeypatch: pytest.MonkeyPatch) -> None:
    found, = race.race([race.ours(USUAL, "python", 2)], 1, 2_000)
    assert found.error == ""
    assert len(found.ns) == 1
