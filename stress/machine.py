"""What this machine and interpreter are, asked of the system and never of deferpool.

A library that fell back to portable mode by mistake would also say that nothing better is to be had.
"""
import ctypes
import os
import platform
import sys
from functools import cache
from pathlib import Path
from typing import Any

SYS_MEMBARRIER = 324
MEMBARRIER_QUERY = 0
PRIVATE_EXPEDITED_RSEQ = 1 << 7


@cache
def has_sections() -> bool:
    """Whether kernel, processor and libc offer restartable sections with their barrier. What this process has been
    told to do without (a libc tunable, DEFERPOOL_PORTABLE) does not count: the machine could do better."""
    if sys.platform != "linux" or platform.machine() != "x86_64" or sys.maxsize < 2**32:
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "__rseq_offset"):
        return False
    commands = libc.syscall(ctypes.c_long(SYS_MEMBARRIER), ctypes.c_long(MEMBARRIER_QUERY), ctypes.c_long(0),
                            ctypes.c_long(0))
    return bool(commands > 0 and commands & PRIVATE_EXPEDITED_RSEQ)


def usable_cpus() -> list[int]:
    """The CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def pin(cpu: int) -> None:
    """Keeps the calling thread on one CPU, where the system lets it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cpu})


def has_gil() -> bool:
    system: Any = sys
    return not hasattr(sys, "_is_gil_enabled") or bool(system._is_gil_enabled())


def resident_bytes() -> int:
    """Resident set of this process, after giving back to the system what the C library kept."""
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def plain_environment() -> dict[str, str]:
    """For other processes: this one's environment, without the library's own settings."""
    return {key: value for key, value in os.environ.items() if not key.startswith("DEFERPOOL_")}


def under_address_sanitizer() -> bool:
    """Whether this process runs under gcc's address sanitizer."""
    return "libasan" in _libraries()


def under_sanitizer() -> bool:
    """Whether this process runs under gcc's thread or address sanitizer, whose own memory grows."""
    libraries = _libraries()
    return "libasan" in libraries or "libtsan" in libraries


def _libraries() -> str:
    """The text that names every library of this process; empty where the system does not tell."""
    try:
        return Path("/proc/self/maps").read_text()
    except OSError:
        return ""


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def describe() -> dict[str, str]:
    """For reports: interpreter, system, processor."""
    gil = "" if has_gil() else ", GIL off"
    libc = " ".join(platform.libc_ver()).strip() or "libc unknown"
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}{gil}",
        "system": f"{platform.system()} {platform.release()}, {libc}",
        "processor": f"{_cpu_model()}, {len(usable_cpus())} CPUs usable",
    }
