"""Both modes for every test that asks for one, the wheel, and what must be sure before any test starts."""
import os
import shutil
import sysconfig
from pathlib import Path

import pytest
from builds import once, run
from helpers import ROOT, Mode

import deferpool
from stress import machine


@pytest.fixture(params=["portable"] if os.environ.get("DEFERPOOL_PORTABLE") == "1" else ["sections", "portable"])
def mode(request: pytest.FixtureRequest) -> Mode:
    if request.param == "sections" and deferpool.Sched().mode != "sections":
        if machine.has_sections():
            pytest.fail("this machine has restartable sections, but Sched() chose portable mode")
        pytest.skip("this machine has no restartable sections")
    return Mode(request.param)


@pytest.fixture(autouse=True, scope="session")
def _still_without_gil() -> None:
    """Importing deferpool, and the stress suite's modules, must not switch the GIL back on."""
    if sysconfig.get_config_var("Py_GIL_DISABLED") and os.environ.get("PYTHON_GIL") != "1":
        import stress._baselines
        import stress._interrupts
        import stress._load  # noqa: F401

        assert not machine.has_gil()


# ---- builds, all of them outside the checkout -----------------------------------------------------------

def distutils_build_lib(root: Path) -> Path:
    """Where a build in place leaves what it has built."""
    from setuptools import Distribution  # type: ignore[import-untyped]

    command = Distribution().get_command_obj("build")
    command.build_base = str(root / "build")
    command.ensure_finalized()
    return Path(command.build_platlib)


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git knows of this checkout, more or less."""
    ignored = [line.strip("/\n") for line in (ROOT / ".gitignore").read_text().splitlines()]

    def make(folder: Path) -> None:
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".git", *ignored), dirs_exist_ok=True)
        left = distutils_build_lib(folder) / "stress" / "_left.so"  # as `make build` leaves there: of no wheel
        left.parent.mkdir(parents=True)
        left.touch()
        if (translated := ROOT / "build" / "cython").is_dir():  # by Cython, which looks for newer files
            shutil.copytree(translated, folder / "build" / "cython")

    return once(tmp_path_factory, "checkout", make)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Path:
    def make(folder: Path) -> None:
        run("-m", "pip", "wheel", "--no-index", "--no-build-isolation", "--no-deps", "-w", folder, checkout, cwd=folder)

    (made,) = once(tmp_path_factory, "wheel", make).glob("*.whl")
    return made


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    def make(folder: Path) -> None:
        run("-m", "pip", "install", "--no-index", "--no-deps", "--target", folder, wheel, cwd=folder)

    return once(tmp_path_factory, "installed", make)
