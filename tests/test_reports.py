"""The document of a campaign, what follows from it, and each report that is made of it alone."""
from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import xmlschema
from made_reports import BROKEN, HELD, NOT_CHECKED, all_held, every_outcome, report, result
from rich.console import Console

from stress.plan import Options
from stress.reports import document, junit, terminal
from stress.reports.curves import thinned
from stress.reports.document import Document, Point, checked, conclude, missing
from stress.shard import Shard

SCHEMA = xmlschema.XMLSchema(Path(__file__).parent / "junit.xsd")


def through_json(made: Document) -> Any:
    return json.loads(json.dumps(made))


# ---- the document ---------------------------------------------------------------------------------------

def test_a_document_survives_its_file() -> None:
    made = report(every_outcome(), Shard(1, 1))
    assert checked(through_json(made)) == made


def test_figures_of_a_run() -> None:
    run = report(every_outcome())["runs"][1]
    assert (run["number"], run["title"], run["mode"], run["verdict"]) == (2, "churn, portable", "portable", "FAILED")
    assert (run["operations"], run["ops_per_second"], run["samples"]) == (6_000_000, 3_000_000.0, 2000)
    assert (run["limit"], run["bound"], run["peak_cached"]) == (1024, 1536, 1700)
    assert [(check["check"], check["outcome"]) for check in run["checks"]] == [
        ("conservation", "held"), ("total-bound", "broken"), ("reuse", "not checked")]
    assert run["checks"][1]["evidence"] == list(BROKEN.evidence)
    assert run["curve"][1000] == {"seconds": 1.0, "cached": 1700, "given_back": 1_500_000}


@pytest.mark.parametrize(
    ("results", "lost", "word", "status"),
    [
        (all_held(), (), "SUCCESS", 0),
        (every_outcome(), (), "FAILURE", 1),
        ([result("churn", "portable", HELD, interrupted=True)], (), "interrupted", 1),
        (all_held(), (8,), "interrupted", 1),  # Ctrl-C between two runs
        (all_held(), range(1, 9), "nothing", 1),
    ],
)
def test_the_last_word(results: Any, lost: Any, word: str, status: int) -> None:
    made = report(results, lost=lost)
    assert (conclude(made)["word"], conclude(made)["status"]) == (word, status)
    assert missing(made) == list(lost)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (["format"], 2, "format is 2, and this program reads 1"),
        (["runs", 1, "checks", 0, "outcome"], "maybe", "runs[1].checks[0].outcome is 'maybe', and not one of held"),
        (["runs", 0, "bound"], "much", "runs[0].bound is not of type int"),
        (["runs", 0, "threads"], True, "runs[0].threads is not of type int"),
        (["runs", 0, "curve", 5], 7, "runs[0].curve[5] is not an object"),
        (["runs", 0, "notes"], "none", "runs[0].notes is not a list"),
        (["runs", 0, "title"], "\ud800", "surrogates not allowed"),
        (["runs", 0, "number"], 9, "run number 9 is there twice, or not one of the 4 planned"),
        (["runs", 0, "number"], 2, "run number 2 is there twice"),
        (["shard"], "3/2", "the part is from 1 to the number of parts"),
        (["started"], "yesterday", "yesterday"),
        (["machine"], None, "machine is not an object"),
        (["rerun"], ..., "the report has no 'rerun'"),
        (["runs", 2, "books"], ..., "runs[2] has no 'books'"),
    ],
)
def test_what_is_no_document_is_named(path: list[Any], value: Any, reason: str) -> None:
    made = through_json(report(every_outcome()))
    inner = made
    for step in path[:-1]:
        inner = inner[step]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    with pytest.raises(ValueError, match=".") as caught:
        checked(made)
    assert reason in str(caught.value)


@pytest.mark.parametrize("value", [[], None, 3, "text"])
def test_other_json_is_no_document(value: object) -> None:
    with pytest.raises(ValueError, match="the report is not an object"):
        checked(value)


def test_thinning_keeps_ends_and_peaks() -> None:
    curve = report([result("churn", peak=1700)])["runs"][0]["curve"]
    thin = thinned(curve, 50)
    assert len(thin) <= 50
    assert (thin[0], thin[-1]) == (curve[0], curve[-1])
    assert max(point["cached"] for point in thin) == 1700
    assert [point["seconds"] for point in thin] == sorted({point["seconds"] for point in thin})
    short: list[Point] = curve[:40]
    assert thinned(short, 50) == short


# ---- shards ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("runs", [0, 1, 2, 7, 20, 41])
@pytest.mark.parametrize("of", [1, 2, 3, 5, 8])
def test_shards_share_the_runs_evenly(runs: int, of: int) -> None:
    parts = [Shard(index, of).numbers(runs) for index in range(1, of + 1)]
    assert sorted(number for part in parts for number in part) == list(range(1, runs + 1))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_two_shards_get_both_modes() -> None:
    """Runs alternate between the modes; dealt out in turn, one shard would get all of one mode."""
    for index in (1, 2):
        assert {number % 2 for number in Shard(index, 2).numbers(8)} == {0, 1}


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/0", "a/b", "1/2/3", "-1/2", "1 /2", "¹/²", "1/99999"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="part"):
        Shard.parse(text)


# ---- JUnit ----------------------------------------------------------------------------------------------

def cases(root: ElementTree.Element) -> dict[tuple[str, str], ElementTree.Element]:
    return {(case.get("classname", ""), case.get("name", "")): case for case in root.iter("testcase")}


def test_junit_says_each_outcome(tmp_path: Path) -> None:
    junit.write(tmp_path / "report.xml", report(every_outcome()))
    SCHEMA.validate(tmp_path / "report.xml")
    root = ElementTree.parse(tmp_path / "report.xml").getroot()
    found = cases(root)
    assert len(found) == 4 + 2 + 3 + 1 + 2  # a "run" each, and the checks
    assert {key: root.get(key) for key in ("tests", "failures", "errors")} == {
        "tests": "12", "failures": "1", "errors": "1"}
    failure = found["stress.churn, portable", "total-bound"].find("failure")
    assert failure is not None
    assert failure.get("message") == BROKEN.evidence[0]
    assert "<script>alert(1)</script> & [red]" in (failure.text or "")
    assert "run it again: python -m stress --seed 7" in (failure.text or "")
    skipped = found["stress.churn, sections", "reuse"].find("skipped")
    assert skipped is not None
    assert skipped.get("message") == NOT_CHECKED.evidence[0]
    error = found["stress.migrate, portable", "run"].find("error")
    assert error is not None
    assert error.get("type") == "interrupted"
    assert len(found["stress.churn, sections", "conservation"]) == 0
    suite = next(each for each in root if each.get("name") == "churn, portable")
    assert [suite.get(key) for key in ("tests", "failures", "errors", "skipped")] == ["4", "1", "0", "1"]


def test_a_run_that_never_came_is_an_error_in_junit(tmp_path: Path) -> None:
    junit.write(tmp_path / "report.xml", report(all_held(), lost=(3,)))
    SCHEMA.validate(tmp_path / "report.xml")
    case = cases(ElementTree.parse(tmp_path / "report.xml").getroot())["stress.churn, sections", "run"]
    assert [each.get("message") for each in case] == ["run 3 of 8 is not there"]


def test_the_schema_takes_what_another_program_writes(tmp_path: Path) -> None:
    (tmp_path / "test_three.py").write_text(
        "import pytest\ndef test_a(): pass\ndef test_b(): assert 0\ndef test_c(): pytest.skip('so')\n")
    subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=out.xml", "."],
                   cwd=tmp_path, capture_output=True, check=False, timeout=120)
    SCHEMA.validate(tmp_path / "out.xml")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('failures="1"', 'failures="one"'),
        ("<failure ", "<fault "),
        (' time="2.000"', ' time="2 s"'),
        ('classname="stress.churn, sections" ', ""),
        ("<properties>", "<properties/><properties>"),
        ('timestamp="2026-11-25T12:00:00"', 'timestamp="today"'),
        ('name="churn, portable"', 'name="churn, sections"'),
    ],
)
def test_the_schema_refuses_what_it_must(tmp_path: Path, old: str, new: str) -> None:
    junit.write(tmp_path / "report.xml", report(every_outcome()))
    text = (tmp_path / "report.xml").read_text()
    assert old in text
    (tmp_path / "report.xml").write_text(text.replace("</fault", "</failure").replace(old, new, 1))
    with pytest.raises((xmlschema.XMLSchemaException, ElementTree.ParseError)):
        SCHEMA.validate(tmp_path / "report.xml")


# ---- the terminal ---------------------------------------------------------------------------------------

def printed(made: Document, width: int = 160) -> str:
    out = io.StringIO()
    terminal.close(Console(file=out, width=width), made)
    return out.getvalue()


def row(text: str, name: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"│ {name} "))
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_the_closing_tables() -> None:
    text = printed(report(every_outcome()))
    assert row(text, "conservation") == ["conservation", "held", "held"]
    assert row(text, "total-bound") == ["total-bound", "BROKEN 1 of 1", "held"]
    assert row(text, "reuse") == ["reuse", "-", ""]
    assert "BROKEN churn, portable: total-bound: 1,700 items cached, the bound is 1,536\n" in text
    assert "not checked: reuse: live records may pass the limit (churn, sections; churn, portable)\n" in text
    assert "FAILURE: 1 of 4 runs did not hold\n" in text
    assert text.endswith("run it again: python -m stress --seed 7\n")


def test_brackets_in_evidence_are_no_markup() -> None:
    assert "[red]\"quoted\"[/red]" in printed(report(every_outcome()))


def test_a_check_that_held_in_some_runs_only_says_so() -> None:
    results = [result("churn", "sections", HELD), result("churn", "portable", NOT_CHECKED),
               result("churn", "portable", *[NOT_CHECKED.__class__("conservation", "", "not checked")])]
    text = printed(report(results))
    assert row(text, "conservation") == ["conservation", "held 1 of 2"]


def test_success_and_what_grew() -> None:
    assert "SUCCESS: 8 runs, every invariant held\n" in printed(report(all_held()))
    with_list = [*all_held(), result("migrate", "", HELD, design="a list per P")]
    assert "SUCCESS: 9 runs, every invariant held in deferpool; only the unbounded lists grew\n" in printed(
        report(with_list))


def test_without_a_terminal_a_run_is_one_plain_line() -> None:
    out = io.StringIO()
    made = report(every_outcome())
    with terminal.Progress(Console(file=out, width=20), 4) as progress:
        for run in made["runs"]:
            progress.begin()
            progress.tick(run["title"], 0.5, 1000, 900, 1536)
            progress.end(run)
    lines = out.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["held", "FAILED", "grows", "interrupted"]
    assert "churn, portable" in lines[1]
    assert "peak cached      1,700 of 1,536" in lines[1]
    assert "\x1b" not in out.getvalue()


@pytest.fixture
def screen() -> Iterator[tuple[io.StringIO, terminal.Progress]]:
    out = io.StringIO()
    with terminal.Progress(Console(file=out, force_terminal=True, width=150, height=14, color_system=None), 30) as made:
        yield out, made


def test_the_live_view(screen: tuple[io.StringIO, terminal.Progress]) -> None:
    out, progress = screen
    runs = report(every_outcome())["runs"]
    progress.begin()
    for run in runs * 3:
        progress.end(run)
    progress.tick("burst, portable", 0.25, 1_000_000, 700, 1400)
    drawn = out.getvalue()
    assert "6 earlier: 2 held, 2 FAILED, 1 grows, 1 interrupted" in drawn
    assert "12 of 30 runs" in drawn
    last = drawn.splitlines()[-1]
    assert "burst, portable" in last
    assert " 25%" in last
    assert "ops/s" in last
    assert "cached 700 of 1,400" in last
    assert len(drawn.splitlines()) <= 14
    size = len(drawn)
    progress.tick("burst, portable", 0.26, 1_000_000, 700, 1400)  # at once: not drawn again
    assert len(out.getvalue()) == size


def test_the_document_is_of_the_options() -> None:
    made = report([result("churn", options=Options(seed=9, cap=8))])
    assert made["configuration"]["modes"] == ["sections", "portable"]
    assert (made["runs"][0]["seed"], made["runs"][0]["cap"]) == (9, 8)
    assert document.FORMAT == made["format"] == 1
