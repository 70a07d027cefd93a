"""Each example, end to end with few operations: its work is right, and it prints its figures. No time is asserted."""
from __future__ import annotations

import os
import re
import subprocess
import sys
import zlib
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers import ROOT

EXAMPLES = ROOT / "examples"
FIGURE = re.compile(r"^(.+?) +\d+\.\d\d +\d+\.\d\d   \d+\.\d\d \(\d+\.\d\d to \d+\.\d\d\)", re.MULTILINE)
SERVED = "  the same in the service, 4 clients"


def command(*arguments: str, library: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DEFERPOOL_")}
    environment["PYTHONPATH"] = str(library)
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True,
                          timeout=120, check=False)


def needed(*packages: str) -> None:
    for package in packages:
        if find_spec(package) is None:
            pytest.skip(f"no {package} here")


def figures(name: str, *, cwd: Path, library: Path = ROOT) -> list[str]:
    """What the example has timed. It looks at its own results, and fails when one is wrong."""
    done = command(str(EXAMPLES / f"{name}.py"), "--rounds", "2", "--count", "24", library=library, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert list(cwd.iterdir()) == []
    return FIGURE.findall(done.stdout)


def test_compress_service(tmp_path: Path) -> None:
    expected = ["zlib, full flush", SERVED, "zlib, a copy of a template", SERVED]
    if find_spec("zstandard") is not None:
        expected += ["zstandard", SERVED, "zstandard with a dictionary", SERVED]
    assert figures("compress_service", cwd=tmp_path) == expected


def test_file_server(tmp_path: Path) -> None:
    assert figures("file_server", cwd=tmp_path) == [f"{size} KiB, 4 clients" for size in (4, 64, 1024)]


def test_web(tmp_path: Path) -> None:
    needed("httpx", "markdown", "starlette", "uvicorn")
    assert figures("web", cwd=tmp_path) == ["parsed", "a whole request, 4 clients"]


def test_scratch_arrays(tmp_path: Path) -> None:
    needed("numpy")
    assert figures("scratch_arrays", cwd=tmp_path) == [f"{size} KiB each" for size in (4, 64, 1024)]


def test_count_words(installed: Path, tmp_path: Path) -> None:
    """Built against what is installed, which is all that it needs of us."""
    needed("Cython", "setuptools")
    assert figures("count_words", cwd=tmp_path, library=installed) == ["1 thread", "2 threads", "16 threads"]


def test_what_pays(tmp_path: Path) -> None:
    names = figures("what_pays", cwd=tmp_path)
    assert len(names) == 10
    assert names[0] == "object()"


def test_every_example_is_tested_and_named_in_the_readme() -> None:
    names = {path.stem for path in EXAMPLES.glob("[a-z]*.py")}
    assert names == {name.removeprefix("test_") for name in globals() if (EXAMPLES / f"{name[5:]}.py").exists()}
    told = (EXAMPLES / "README.md").read_text()
    assert all(f"({name}.py)" in told for name in names)


@pytest.mark.parametrize(("name", "package"), [("web", "markdown"), ("web", "httpx"), ("scratch_arrays", "numpy"),
                                               ("count_words", "Cython")])
def test_what_is_not_installed_is_named(name: str, package: str, tmp_path: Path) -> None:
    """A package that cannot be imported, whether it is here or not: one line, no traceback."""
    code = (f"import runpy, sys; sys.path.insert(0, {str(EXAMPLES)!r}); sys.argv[1:] = []; "
            f"sys.modules[{package!r}] = None; runpy.run_path({str(EXAMPLES / f'{name}.py')!r}, run_name='__main__')")
    done = command("-c", code, library=ROOT, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"this example needs \w+.*: pip install .+\n", done.stderr)


@pytest.fixture
def _examples_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.mark.usefixtures("_examples_on_path")
def test_a_full_flush_makes_whole_streams_that_know_nothing_of_each_other() -> None:
    """What compress_service says about zlib, for messages of all kinds and any order."""
    from compress_service import EndlessDeflate

    compressor = EndlessDeflate()
    messages = [b"", b"a", b"abc" * 1000, os.urandom(70_000), b"abc" * 1000, bytes(range(256)) * 300]
    for message in messages * 2:
        stream = zlib.decompressobj(-15)
        assert stream.decompress(compressor.compress(message)) == message
        assert stream.eof
        assert stream.unused_data == b""


@pytest.mark.usefixtures("_examples_on_path")
def test_a_comparison_tells_when_pooling_does_not_pay(monkeypatch: pytest.MonkeyPatch,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    import _compare

    now = 0.0
    calls: list[str] = []

    def way(name: str, seconds: list[float]) -> None:
        nonlocal now
        calls.append(name)
        now += seconds[(calls.count(name) - 1) % 4]

    monkeypatch.setattr(_compare, "perf_counter", lambda: now)
    for pooled, said in (
        ([9.0, 0.1, 0.1, 0.1], "100.00   2.00 (2.00 to 2.00)"),     # the first time is not counted
        ([9.0, 0.1, 0.2, 0.25], "100.00   1.00 (0.80 to 2.00): no clear gain"),
        ([9.0, 0.4, 0.4, 0.4], "400.00   0.50 (0.50 to 0.50): pooling does not pay here"),
    ):
        del calls[:]
        _compare.compare("name", partial(way, "plain", [9.0, 0.2, 0.2, 0.2]), partial(way, "pooled", pooled), rounds=3,
                         operations=1000)
        assert capsys.readouterr().out.split(maxsplit=2) == ["name", "200.00", f"{said}\n"]
        assert calls == ["plain", "pooled"] + ["plain", "pooled", "pooled", "plain", "plain", "pooled"]
