"""Both modes for every test that asks for one, and what a session must be sure of before it starts."""
import os
import sys
from typing import Any

import pytest
from helpers import Mode

import deferpool
from stress import machine


@pytest.fixture(params=["portable"] if os.environ.get("DEFERPOOL_PORTABLE") == "1" else ["sections", "portable"])
def mode(request: pytest.FixtureRequest) -> Mode:
    if request.param == "sections" and deferpool.Sched().mode != "sections":
        if os.environ.get("DEFERPOOL_VARIANT") == "tsan":
            pytest.skip("the thread sanitizer does not see sections")
        if machine.has_sections():
            pytest.fail("this machine has restartable sections, but Sched() chose portable mode")
        pytest.skip("this machine has no restartable sections")
    return Mode(request.param)


@pytest.fixture(autouse=True, scope="session")
def _still_without_gil() -> None:
    """Importing deferpool must not switch the GIL back on."""
    if os.environ.get("DEFERPOOL_FREE_THREADED") == "1":
        system: Any = sys
        assert system._is_gil_enabled() is False
