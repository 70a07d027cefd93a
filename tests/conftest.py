"""Both modes for every test that asks for one, and what must be sure before any test starts."""
import os
import sysconfig

import pytest
from helpers import Mode

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
