"""The same sources built for a purpose: what setup.py calls a variant, in build/<variant>/<interpreter>/lib.

python -m stress.variants tsan churn --seconds 1        builds the variant, and runs `python -m stress churn ...` in it
"""

from __future__ import annotations

import fcntl
import os
import platform
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TAG = str(sysconfig.get_config_var("SOABI"))
SANITIZERS = {
    "tsan": {"TSAN_OPTIONS": f"suppressions={ROOT / '.ci' / 'tsan.supp'} exitcode=66 halt_on_error=0"},
    "asan": {"ASAN_OPTIONS": "detect_leaks=0 allocator_may_return_null=1", "PYTHONMALLOC": "malloc"},
}


class BuildError(Exception):
    """A build that failed; its text is what the compiler said."""


def main(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0].startswith("-"):
        print("usage: python -m stress.variants VARIANT [ARGUMENTS OF python -m stress]", file=sys.stderr)
        return 2
    variant, rest = arguments[0], arguments[1:]
    try:
        lib = build(variant)
    except BuildError as error:
        print(f"python -m stress.variants: error: {variant} could not be built:\n{error}", file=sys.stderr)
        return 2
    command = [sys.executable, "-m", "stress", *rest]
    environment = dict(os.environ)
    if variant in SANITIZERS:
        library = sanitizer_library(variant)
        if library is None:
            print(f"python -m stress.variants: error: gcc has no library for {variant} here", file=sys.stderr)
            return 2
        environment |= {"LD_PRELOAD": str(library), **SANITIZERS[variant]}
        command = ["setarch", platform.machine(), "-R", *command]  # their shadow memory wants fixed places
    status = subprocess.run(command, cwd=lib, env=environment, check=False).returncode
    return status if status >= 0 else 128 - status  # a signal, as shells tell it


def folder(variant: str, root: Path = ROOT) -> Path:
    return root / "build" / variant / TAG / "lib"


def build(variant: str, root: Path = ROOT) -> Path:
    """Builds what is not built yet, and returns the folder to import from. Raises BuildError."""
    lib = folder(variant, root)
    lib.parent.mkdir(parents=True, exist_ok=True)
    with (lib.parent / "lock").open("w") as lock:  # tests that run at once want it at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        _setup(
            root, variant, "build", "--build-lib", str(lib), "--build-temp", str(lib.parent / "temp"), "--parallel", "4"
        )
    return lib


def build_in_place(root: Path = ROOT) -> None:
    """The usual build of a checkout. Raises BuildError."""
    _setup(root, "", "build_ext", "--inplace", "--parallel", "4")


def _setup(root: Path, variant: str, *arguments: str) -> None:
    environment = {**os.environ, "DEFERPOOL_DEV": "1", "DEFERPOOL_VARIANT": variant}
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", *arguments],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BuildError(done.stdout + done.stderr)


def sanitizer_library(variant: str) -> Path | None:
    """What must be loaded before all else; None where gcc has none."""
    try:
        done = subprocess.run(["gcc", f"-print-file-name=lib{variant}.so"], capture_output=True, text=True, check=False)
    except OSError:
        return None
    path = Path(done.stdout.strip())
    return path if path.is_absolute() and path.exists() else None


def python(lib: Path, module: str, arguments: Sequence[str]) -> list[str]:
    """A command that runs the function main of a module of such a build, wherever it is started."""
    code = f"import sys; sys.path[:1] = [{str(lib)!r}]; from {module} import main; sys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-c", code, *arguments]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
