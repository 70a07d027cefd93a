"""What several test files share: threads that report, an allocator that counts and fails, processes, one CPU."""
import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deferpool
from deferpool._face import ItemPool

ROOT = Path(__file__).resolve().parent.parent
CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
PTRDIFF_MAX = sys.maxsize


@dataclass(frozen=True)
class Mode:
    """One of the two ways a thread owns its P; makes Scheds that are in it."""

    name: str

    def sched(self, procs: int | None = None) -> deferpool.Sched:
        """At least `procs` Ps (fewer than CPUs would be portable). Collections leave its pools alone."""
        if self.name == "portable":
            return deferpool.Sched(procs, portable=True, clear_on_gc=False)
        sched = deferpool.Sched(None if procs is None else max(procs, deferpool.Sched().procs), clear_on_gc=False)
        assert sched.mode == "sections"
        return sched


# ---- threads ------------------------------------------------------------------------------------------

def run_threads(*work: Callable[[], object], watch: Callable[[], object] | None = None) -> None:
    """Runs each function in a thread of its own, all at once, and `watch` here meanwhile (once at least).

    The first exception of any of them is raised here.
    """
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(work) + 1)

    def body(function: Callable[[], object]) -> None:
        try:
            barrier.wait()
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=body, args=(function,)) for function in work]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        barrier.wait()
        while watch is not None:
            watch()
            if not any(thread.is_alive() for thread in threads):
                break
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    if errors:
        raise errors[0]


def in_thread(function: Callable[[], object]) -> None:
    run_threads(function)


def burst(pool: deferpool.RecordPool, *, rounds: int, depth: int, size: int = 16) -> Callable[[], None]:
    """Work for a thread: takes `depth` records and gives them back, oldest first, again and again."""

    def work() -> None:
        for _ in range(rounds):
            for record in [pool.new(size) for _ in range(depth)]:
                pool.free(record)

    return work


def fill(pool: deferpool.RecordPool, n: int, size: int = 16) -> None:
    """n records taken at once and given back: n are cached then, limits permitting."""
    burst(pool, rounds=1, depth=n, size=size)()


@contextmanager
def one_cpu(mode: Mode) -> Iterator[None]:
    """In sections mode a thread stays on its P as long as it stays on its CPU; in portable mode it does anyhow."""
    if mode.name == "portable":
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


# ---- figures ------------------------------------------------------------------------------------------

def local(stats: dict[str, Any]) -> int:
    return sum(map(sum, stats["per_p"]))


def assert_conserved(pool: ItemPool) -> None:
    """Conservation at rest, and that the parts add up to their sums."""
    stats = pool.stats()
    assert stats["created"] == stats["live"] + stats["cached"] + stats["destroyed"], stats
    assert stats["cached"] == local(stats) + stats["central"], stats
    assert stats["live"] == stats["gets"] - stats["puts"], stats


# ---- an allocator ---------------------------------------------------------------------------------------

_ALLOC = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_RELEASE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)


class _Struct(ctypes.Structure):
    """struct Allocator of records.pxd."""

    _fields_ = [
        ("alloc", _ALLOC),
        ("release", _RELEASE),
        ("alloc_meta", _ALLOC),
        ("release_meta", _RELEASE),
        ("arg", ctypes.c_void_p),
    ]


_libc = ctypes.CDLL(None)
_libc.calloc.restype = ctypes.c_void_p
_libc.calloc.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
_libc.free.argtypes = [ctypes.c_void_p]
_libc.free.restype = None
_kept: list[object] = []  # what C code may call outlives every pool


class Source:
    """One kind of memory: counts what is out, and fails when told to."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sizes: dict[int, int] = {}
        self.created = 0
        self.destroyed = 0
        self.peak = 0
        self.strangers = 0  # releases of what is not out
        self.on_release: Callable[[int], None] | None = None  # called with the size, outside the lock
        self.before_failure = -1  # how many more succeed; less than 0: all

    @property
    def out(self) -> int:
        return self.created - self.destroyed

    def alloc(self, _arg: int | None, size: int) -> int:
        with self.lock:
            if self.before_failure == 0:
                return 0
            self.before_failure -= self.before_failure > 0
            address = int(_libc.calloc(1, size))
            self.sizes[address] = size
            self.created += 1
            self.peak = max(self.peak, self.out)
            return address

    def release(self, _arg: int | None, address: int) -> None:
        if self.on_release is not None:
            self.on_release(self.sizes.get(address, 0))
        with self.lock:
            if self.sizes.pop(address, None) is None:
                self.strangers += 1
                return
            self.destroyed += 1
            _libc.free(address)


class CountingAllocator:
    """Brings a pool's memory: `items` for records, `meta` for batches and caches. Counts by itself.

    A callback takes a lock and maybe the GIL, so it also shifts threads about at the right places.
    """

    def __init__(self, *, meta: bool = True) -> None:
        self.items = Source()
        self.meta = Source()
        struct = _Struct(_ALLOC(self.items.alloc), _RELEASE(self.items.release))
        if meta:
            struct.alloc_meta = _ALLOC(self.meta.alloc)
            struct.release_meta = _RELEASE(self.meta.release)
        _kept.append(struct)
        self.capsule = capsule(ctypes.addressof(struct), b"deferpool.Allocator")

    def assert_nothing_left(self) -> None:
        assert (self.items.out, self.items.strangers) == (0, 0)
        assert (self.meta.out, self.meta.strangers) == (0, 0)


def capsule(address: int, name: bytes) -> object:
    new = ctypes.pythonapi.PyCapsule_New
    new.restype = ctypes.py_object
    new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    kept = ctypes.create_string_buffer(name)
    _kept.append(kept)
    made: object = new(address, ctypes.cast(kept, ctypes.c_char_p), None)
    return made


# ---- processes ------------------------------------------------------------------------------------------

def run_python(
    code: str, *, cwd: Path | None = None, path: Path | None = None, **environment: str | None
) -> subprocess.CompletedProcess[str]:
    """Runs code in a new interpreter, with deferpool from `path` (default: the one under test) and no DEFERPOOL_*."""
    home = path or Path(deferpool.__file__).parent.parent
    env = {key: value for key, value in os.environ.items() if not key.startswith("DEFERPOOL_")}
    env.pop("GLIBC_TUNABLES", None)
    env["PYTHONPATH"] = os.pathsep.join([str(home), *([str(cwd)] if cwd else [])])
    for key, value in environment.items():
        if value is not None:
            env[key] = value
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)


def run_now(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Of one that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


def output_of(code: str, **environment: str | None) -> str:
    """What the code printed; it must end well."""
    done = run_python(code, **environment)  # type: ignore[arg-type]
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def all_references() -> int:
    """Of all objects together, where the interpreter is one that counts them: a debug build."""
    return int(getattr(sys, "gettotalrefcount", lambda: 0)())
