"""@deferring keeps signatures for type checkers: they refuse what is wrong, and nothing else."""
from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

PROGRAM = ROOT / "tests" / "typed_program.txt"
CHECKERS = {"mypy": ("mypy", "--strict", "--no-incremental"), "pyright": ("pyright", "--pythonpath", sys.executable)}


@pytest.mark.parametrize("name", CHECKERS)
def test_signatures_are_kept(name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"no {name} here")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.read_text())
    wrong = {number for number, line in enumerate(PROGRAM.read_text().splitlines(), 1) if line.endswith("# wrong")}
    assert len(wrong) == 5
    done = subprocess.run([sys.executable, "-m", *CHECKERS[name], str(program)], cwd=tmp_path, capture_output=True,
                          text=True, check=False, env={**os.environ, "MYPYPATH": str(ROOT), "PYTHONPATH": str(ROOT)})
    refused = {int(number) for number in re.findall(r"program\.py:(\d+):.*error", done.stdout)}
    if done.returncode not in (0, 1) and name == "pyright":
        pytest.skip(f"pyright does not run here: {done.stderr[-200:]}")  # it fetches node when it is run first
    assert refused == wrong, done.stdout + done.stderr
