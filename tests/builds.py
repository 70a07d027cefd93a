"""What tests of the built package share: commands that know nothing of this session, folders made once in it."""
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def run(*command: str | Path, cwd: Path, path: Path | None = None) -> None:
    """With no Python path but `path`, and none of the settings of this session."""
    unwanted = ("DEFERPOOL_", "PYTHONPATH", "GLIBC_TUNABLES", "LD_PRELOAD", "CFLAGS")
    env = {key: value for key, value in os.environ.items() if not key.startswith(unwanted)}
    if path is not None:
        env["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that is made once in a session, whichever worker of it comes first."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder, done = base / name, base / f"{name}.done"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder
