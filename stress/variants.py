"""The same sources built for a purpose, in build/<variant>/<interpreter>/lib: what setup.py calls a variant."""
from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TAG = str(sysconfig.get_config_var("SOABI"))


class BuildError(Exception):
    """A build that failed; its text is what the compiler said."""


def folder(variant: str, root: Path = ROOT) -> Path:
    return root / "build" / variant / TAG / "lib"


def build(variant: str, root: Path = ROOT) -> Path:
    """Builds what is not built yet, and returns the folder to import from. Raises BuildError."""
    lib = folder(variant, root)
    command = [sys.executable, "setup.py", "--quiet", "build", "--build-lib", str(lib),
               "--build-temp", str(lib.parent / "temp"), "--parallel", "4"]
    environment = {**os.environ, "DEFERPOOL_DEV": "1", "DEFERPOOL_VARIANT": variant}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(done.stdout + done.stderr)
    return lib


def python(lib: Path, module: str, arguments: list[str]) -> list[str]:
    """A command that runs the function main of a module in such a build, wherever it is started."""
    code = f"import sys; sys.path[:1] = [{str(lib)!r}]; from {module} import main; sys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-c", code, *arguments]
