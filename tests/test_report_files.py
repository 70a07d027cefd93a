"""The reports as a command writes them: files that cannot be written, shards and their merge, the rerun line."""
from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from helpers import ROOT
from made_reports import HELD, all_held, every_outcome, report, result

from stress import options
from stress.reports.document import Document
from stress.shard import Shard

RECORDS = ("--items", "records")
QUICK = ("churn", "burst", "--mode", "portable", "--calls", "nogil", *RECORDS, "--seconds", "0.2", "--seed", "5")


def stress(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("DEFERPOOL_")}
    command = [sys.executable, "-m", "stress", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**env, **environment}, capture_output=True, text=True, timeout=300)


def refused(done: subprocess.CompletedProcess[str], reason: str) -> None:
    assert done.returncode == 2, done.stdout
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("python -m stress")


# ---- a live run, and the same from its file ---------------------------------------------------------------

def test_all_reports_of_one_run_and_the_same_from_its_file(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    kinds = (("json", "json"), ("junit", "xml"), ("html", "html"))
    live = [f"--{kind}={tmp_path}/live.{ending}" for kind, ending in kinds]
    again = [option.replace("/live.", "/again.") for option in live]
    first = stress(*QUICK, *live)
    assert first.returncode == 0, first.stdout + first.stderr
    second = stress("merge", f"{tmp_path}/live.json", *again)
    assert second.returncode == 0, second.stdout + second.stderr
    for ending in ("json", "xml", "html"):
        assert (tmp_path / f"live.{ending}").read_bytes() == (tmp_path / f"again.{ending}").read_bytes()
    assert first.stdout.endswith(second.stdout)  # the tables and all below; before them come the seed and the runs
    assert "SUCCESS: 2 runs" in second.stdout


def test_stdout_of_a_pipe_is_a_line_a_run() -> None:
    lines = stress(*QUICK).stdout.splitlines()
    assert lines[0] == "seed 5"
    assert [re.split("  +", line)[:2] for line in lines[1:3]] == [["held", "churn, portable"],
                                                                    ["held", "burst, portable"]]


def test_a_terminal_has_a_live_view_and_then_the_tables() -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "stress", "churn", "--mode", "portable", "--calls", "nogil", *RECORDS,
                "--seconds", "0.5"]
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "150", "LINES": "20"}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdin=theirs, stdout=theirs, stderr=theirs) as running:
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # Linux's way to say that the other end is closed
            while chunk := os.read(ours, 65536):
                seen += chunk
    os.close(ours)
    text = seen.decode()
    assert running.returncode == 0, text
    view, tables = text[:text.index("deferpool under stress")], text[text.index("deferpool under stress"):]
    assert view.count("0 of 1 runs") >= 3  # drawn again and again, in place
    assert re.search(r"churn, portable .*%.* ops/s .*cached [\d,]+ of [\d,]+", view)
    assert view.count("\x1b[1A") >= 3
    assert "\x1b[?25h" in view  # the cursor is there again
    assert "SUCCESS" in tables
    assert "\x1b[1A" not in tables


# ---- what cannot be written ---------------------------------------------------------------------------------

def test_files_are_tried_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "folder.html").mkdir()
    refused(stress(*QUICK, "--html", str(tmp_path / "folder.html")), "folder.html cannot be written: Is a directory")
    refused(stress(*QUICK, "--junit", "/nowhere/at/all.xml"), "all.xml cannot be written: No such file")
    refused(stress(*QUICK, "--junit", "report.json"), "--junit report.json: must end in .xml")


def test_trying_leaves_nothing_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "kept.json").write_text("kept")
    (tmp_path / "link.xml").symlink_to(tmp_path / "not-there.xml")
    done = stress(*QUICK, "--json", f"{tmp_path}/kept.json", "--junit", f"{tmp_path}/link.xml",
                  "--html", "/nowhere/x.html")
    assert done.returncode == 2
    assert (tmp_path / "kept.json").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.json", "link.xml"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_disk_that_is_full_at_the_end_does_not_keep_other_files_from_being_written(tmp_path: Path) -> None:
    (tmp_path / "full.json").symlink_to("/dev/full")
    done = stress(*QUICK, "--json", f"{tmp_path}/full.json", "--junit", f"{tmp_path}/report.xml")
    refused(done, f"cannot write {tmp_path}/full.json: No space left on device")
    assert "SUCCESS" in done.stdout
    assert ElementTree.parse(tmp_path / "report.xml").getroot().get("tests") is not None


def test_two_options_for_one_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "b.xml").symlink_to(tmp_path / "a.json")
    done = stress(*QUICK, "--json", f"{tmp_path}/a.json", "--junit", f"{tmp_path}/b.xml")
    refused(done, f"--junit {tmp_path}/b.xml is the same file: --json {tmp_path}/a.json is written")


@pytest.mark.parametrize(("option", "library"), [("--html=x.html", "jinja2"), ("--plot=x.png", "matplotlib")])
def test_a_library_that_is_not_there_is_said(option: str, library: str) -> None:
    code = ("import sys, importlib.util as util; find = util.find_spec; "
            f"util.find_spec = lambda name: None if name == {library!r} else find(name); "
            f"from stress.__main__ import main; sys.exit(main({[*QUICK, option]}))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    refused(done, f"{option[:6]} needs {library}, which is not installed here")


# ---- commands -----------------------------------------------------------------------------------------------

def test_help_lists_every_command() -> None:
    from stress.__main__ import COMMANDS

    done = stress("--help")
    assert done.returncode == 0
    for name, (where, text) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(text)}$", done.stdout, re.MULTILINE)
        assert stress(name, "--help").returncode == 0, where


@pytest.mark.parametrize("arguments", [["mutants-of-mine"], ["--nonsense"], ["merge"], ["merge", "--seed", "1"],
                                       ["bench", "--rounds", "x"]])
def test_bad_arguments_of_every_command_end_with_status_2(arguments: list[str]) -> None:
    refused(stress(*arguments), "error: ")


# ---- the line that runs it again ----------------------------------------------------------------------------

@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["burst", "churn", "--mode=portable", "--ops", "3_000", "--thr", "3", "--cap=8", "--no-limit"], {}),
        (["churn", "--seconds", "0.25", "--mode", "portable", "--limit", "70", "--fail", "50", "--no-checks"],
         {"DEFERPOOL_PROCS": "3"}),
        (["churn", "burst", "--mode", "portable", "--calls", "both", *RECORDS,
                "--ops", "2000", "--seed", "12", "--shard", "2/2",
          "--procs", "5"], {"ASAN_OPTIONS": "detect_leaks=0 allocator_may_return_null=1"}),
    ],
)
def test_the_rerun_line_repeats_the_configuration(
    tmp_path: Path, arguments: list[str], environment: dict[str, str]
) -> None:
    first = stress(*arguments, "--json", f"{tmp_path}/first.json", **environment)
    line = first.stdout.splitlines()[-1].removeprefix("run it again: ")
    assert "first.json" not in line  # run again it must not overwrite the report of what went wrong
    plain = {key: value for key, value in os.environ.items() if key not in environment}
    second = subprocess.run(f"{line} --json {tmp_path}/second.json", shell=True, cwd=ROOT, env=plain,
                            capture_output=True, text=True, timeout=120)
    assert (first.stderr, second.stderr) == ("", "")
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("first.json", "second.json"))
    for same in ("configuration", "planned", "seed", "shard", "rerun"):
        assert one[same] == two[same]
    for a, b in zip(one["runs"], two["runs"], strict=True):
        for same in ("number", "title", "threads", "procs", "cap", "limit", "bound", "calls", "seed"):
            assert a[same] == b[same]


def test_the_rerun_line_works_from_elsewhere(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.run([sys.executable, "-m", "stress", *QUICK], cwd=tmp_path, env=env, capture_output=True,
                           text=True, timeout=120)
    line = first.stdout.splitlines()[-1].removeprefix("run it again: ")
    second = subprocess.run(line, shell=True, cwd="/", capture_output=True, text=True, timeout=120)
    assert second.returncode == 0, second.stderr
    assert "SUCCESS: 2 runs" in second.stdout


def test_the_rerun_line_goes_to_the_folder_of_a_variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has run `make tsan` was never there, though the command itself was."""
    monkeypatch.setattr(options, "__file__", str(tmp_path / "stress" / "options.py"))
    monkeypatch.chdir(tmp_path)
    assert options.parse(["churn"], "").rerun.startswith(f"cd {tmp_path} && ")
    (tmp_path / "setup.py").touch()  # a checkout, where everybody is
    assert not options.parse(["churn"], "").rerun.startswith("cd ")


# ---- shards and their merge ---------------------------------------------------------------------------------

def test_shards_run_each_run_once_and_merge_to_the_whole(tmp_path: Path) -> None:
    campaign = ("churn", "burst", "threads", "--mode", "portable", "--calls", "both", *RECORDS,
                "--seconds", "0.2", "--seed",
                "5")
    names = []
    for index in (1, 2, 3):
        names.append(f"{tmp_path}/{index}.json")
        done = stress(*campaign, "--shard", f"{index}/3", "--json", names[-1])
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"shard {index}/3: " in done.stdout
        assert done.stdout.rstrip().endswith(f"--seed 5 --shard {index}/3")
    whole = stress(*campaign, "--json", f"{tmp_path}/whole.json")
    done = stress("merge", names[2], names[0], names[1], "--json", f"{tmp_path}/merged.json")
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("whole", "merged"))
    assert [run["title"] for run in two["runs"]] == [run["title"] for run in one["runs"]] == one["planned"]
    assert two["rerun"] == one["rerun"] == whole.stdout.splitlines()[-1].removeprefix("run it again: ")
    assert [part["shard"] for part in two["parts"]] == ["1/3", "2/3", "3/3"]
    assert "SUCCESS: 5 runs" in done.stdout


def test_a_shard_without_a_seed_or_without_runs_is_refused() -> None:
    refused(stress("churn", "--shard", "1/2"), "--shard needs --seed")
    refused(stress("churn", "--mode", "portable", "--calls", "nogil", *RECORDS, "--seed", "1", "--shard", "3/3"),
            "--shard 3/3: the campaign has only 1 runs")
    refused(stress("--seed", "1", "--shard", "4/3"), "'4/3': the part is from 1 to the number of parts")


def files(folder: Path, documents: Sequence[Document | str]) -> list[str]:
    names = []
    for at, each in enumerate(documents):
        path = folder / f"{'abcdef'[at]}.json"
        path.write_text(each if isinstance(each, str) else json.dumps(each))
        names.append(str(path))
    return names


def test_a_missing_shard_fails_and_is_named(tmp_path: Path) -> None:
    parts = files(tmp_path, [report(all_held(), Shard(index, 4)) for index in (1, 3)])
    done = stress("merge", *parts, "--json", f"{tmp_path}/merged.json", "--junit", f"{tmp_path}/merged.xml")
    assert done.returncode == 1
    assert "FAILURE: shards 2/4, 4/4 are missing, 4 of 8 runs" in done.stdout
    assert ElementTree.parse(tmp_path / "merged.xml").getroot().get("errors") == "4"
    rest = files(tmp_path, [report(all_held(), Shard(index, 4)) for index in (2, 4)])  # and they may come later
    done = stress("merge", f"{tmp_path}/merged.json", *rest)
    assert done.returncode == 0, done.stdout
    assert "SUCCESS: 8 runs" in done.stdout


def test_a_run_that_failed_in_a_shard_fails_the_whole(tmp_path: Path) -> None:
    done = stress("merge", *files(tmp_path, [report(every_outcome(), Shard(index, 2)) for index in (1, 2)]))
    assert done.returncode == 1
    assert "FAILURE: 1 of 4 runs did not hold" in done.stdout


def test_a_shard_that_was_cut_short_is_no_success(tmp_path: Path) -> None:
    done = stress("merge", *files(tmp_path, [report(all_held(), Shard(index, 2), lost=(8,)) for index in (1, 2)]))
    assert done.returncode == 1
    assert "interrupted after 7 runs" in done.stdout
    assert "never run: fork, portable" in done.stdout


def other(**change: Any) -> Document:
    made = report(all_held(), Shard(2, 2))
    made["configuration"].update(change)
    return made


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (report(all_held(), Shard(1, 2)), "b.json and {0}/a.json are both shard 1/2"),
        (report(all_held(), Shard(2, 2), seed=8),
         "b.json is of another campaign than {0}/a.json: seed is 8, and not 7"),
        (other(cap=4), "cap is 4, and not 32"),
        (report([*all_held(), result("churn", "extra", HELD)], Shard(2, 2)), "the same options gave other runs"),
        (report(all_held(), Shard(2, 3)), "b.json is shard 2/3, but {0}/a.json is shard 1/2"),
        (report(all_held()), "b.json is of a whole campaign, and no shard"),
        ("{", "b.json is no report that can be read: Expecting property name"),
        ("[" * 100_000, "b.json is no report that can be read: "),
        ('{"format": NaN}', "b.json is no report that can be read: NaN is no number"),
        ('{"format": 1}', "b.json is no report that can be read: the report has no 'rerun'"),
        ('{"format": 3}', "b.json is no report that can be read: format is 3, and this program reads 1"),
    ],
)
def test_what_does_not_belong_together_is_refused(tmp_path: Path, second: Document | str, reason: str) -> None:
    done = stress("merge", *files(tmp_path, [report(all_held(), Shard(1, 2)), second]))
    refused(done, reason.format(tmp_path))


def test_inputs_are_not_overwritten(tmp_path: Path) -> None:
    [name] = files(tmp_path, [report(all_held())])
    before = Path(name).read_bytes()
    refused(stress("merge", name, "--json", name), f"--json {name} is the same file: {name} is read")
    refused(stress("merge", f"{tmp_path}/nothing.json"), "nothing.json is no report that can be read: No such file")
    refused(stress("merge", "/dev/zero"), "/dev/zero is no report that can be read: it is no regular file")
    assert Path(name).read_bytes() == before


def test_merging_needs_no_compiled_module(tmp_path: Path) -> None:
    """The job that merges has no need to build anything."""
    names = files(tmp_path, [report(all_held(), Shard(index, 2)) for index in (1, 2)])
    code = ("import sys; sys.modules['deferpool'] = None; from stress.__main__ import main; "
            f"sys.exit(main(['merge', *{names}]))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "SUCCESS: 8 runs" in done.stdout
