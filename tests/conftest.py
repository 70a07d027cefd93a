"""Both modes for every test that asks for one, and what a session must be sure of before it starts."""
import ctypes
import os
import platform
import sys
from typing import Any

import pytest
from helpers import Mode

import deferpool


def _machine_has_sections() -> bool:
    """Asks the kernel and the libc, not deferpool: a library that fell back by mistake must not skip its own tests."""
    if sys.platform != "linux" or platform.machine() != "x86_64" or sys.maxsize < 2**32:
        return False
    libc = ctypes.CDLL(None)
    libc.getauxval.restype = ctypes.c_ulong
    libc.getauxval.argtypes = [ctypes.c_ulong]
    try:
        rseq_size = ctypes.c_uint.in_dll(libc, "__rseq_size").value
    except ValueError:
        return False
    membarrier = libc.syscall(ctypes.c_long(324), ctypes.c_long(0), ctypes.c_long(0), ctypes.c_long(0))
    return bool(libc.getauxval(27) >= 28 and rseq_size and membarrier > 0 and membarrier & 1 << 7)


@pytest.fixture(params=["portable"] if os.environ.get("DEFERPOOL_PORTABLE") == "1" else ["sections", "portable"])
def mode(request: pytest.FixtureRequest) -> Mode:
    if request.param == "sections" and deferpool.Sched().mode != "sections":
        if os.environ.get("DEFERPOOL_VARIANT") == "tsan":
            pytest.skip("the thread sanitizer does not see sections")
        if _machine_has_sections():
            pytest.fail("this machine has restartable sections, but Sched() chose portable mode")
        pytest.skip("this machine has no restartable sections")
    return Mode(request.param)


@pytest.fixture(autouse=True, scope="session")
def _still_without_gil() -> None:
    """Importing deferpool must not switch the GIL back on."""
    if os.environ.get("DEFERPOOL_FREE_THREADED") == "1":
        system: Any = sys
        assert system._is_gil_enabled() is False
