"""The command line of a stress run, and the line that runs it again."""
from __future__ import annotations

import argparse
import os
import platform
import secrets
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from stress import machine
from stress.plan import Options
from stress.scenarios import ALL, DEFAULT

ENVIRONMENT = ("DEFERPOOL_PORTABLE", "DEFERPOOL_PROCS", "GLIBC_TUNABLES", "LD_PRELOAD", "TSAN_OPTIONS", "ASAN_OPTIONS",
               "PYTHONMALLOC")  # what the rerun line repeats of it


@dataclass(frozen=True)
class Command:
    options: Options
    json: Path | None
    plot: Path | None
    rerun: str


def parse(arguments: Sequence[str]) -> Command:
    """Ends the process with status 2, and the reason on stderr, when the arguments make no sense."""
    parser = _parser()
    given = parser.parse_args(arguments)
    procs = given.procs
    if procs is None and os.environ.get("DEFERPOOL_PROCS", "").strip():
        procs = int(os.environ["DEFERPOOL_PROCS"])  # a bad one was refused when deferpool was imported
    options = Options(
        scenarios=tuple(dict.fromkeys(given.scenario)) or DEFAULT,
        modes=_modes(parser, given.mode), calls=_calls(given.calls),
        threads=given.threads, seconds=given.seconds, ops=given.ops, seed=given.seed, procs=procs, cap=given.cap,
        limit=given.limit, no_limit=given.no_limit, fail=given.fail, checks=not given.no_checks,
    )
    if "sections" in options.modes and options.procs is not None and options.procs < len(machine.usable_cpus()):
        parser.error(f"--procs {options.procs} is fewer than the {len(machine.usable_cpus())} CPUs here: "
                     "that is portable mode (add --mode portable)")
    for path, endings in ((given.json, (".json",)), (given.plot, (".png", ".svg"))):
        if path is not None:
            _check_writable(parser, path, endings)
    if given.plot is not None and find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib, which is not installed here")
    return Command(options, given.json, given.plot, _rerun_line(arguments, given.seed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stress",
        description="Real threads against the pool, checked from outside: does the bound hold, is nothing lost?",
        epilog="`python -m stress bench` compares speeds instead. Exit status: 0 every run held; 1 one did not, or "
               "Ctrl-C; 2 bad arguments.",
    )
    add = parser.add_argument
    add("scenario", nargs="*", type=_scenario, help=f"of {', '.join(ALL)}; default: all but soak")
    add("--mode", choices=["both", "sections", "portable"], default="both",
        help="how threads own their P (default: both)")
    add("--calls", choices=["auto", "nogil", "python", "both"], default="auto",
        help="nogil loops, or Python-level calls; auto adds the latter where there is no GIL")
    add("--threads", type=_number(1, 4096), metavar="N",
        help="threads of each run (default: by scenario; migrate: pairs)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=_seconds, metavar="S", help="length of each run")
    length.add_argument("--ops", type=_number(1, 10**12), metavar="N", help="takes and gives of each run, together")
    add("--seed", type=_number(0, 2**64 - 1), default=secrets.randbits(32), metavar="N",
        help="of every random choice (default: a new one, printed)")
    add("--procs", type=_number(1, 1024), metavar="N", help="number of Ps (default: by mode)")
    add("--cap", type=_even, default=32, metavar="N", help="most items in a local cache: even, from 2 (default: 32)")
    limit = parser.add_mutually_exclusive_group()
    limit.add_argument("--limit", type=_number(0, 2**62), metavar="N",
                       help="most items in the central pool (default: by scenario, at least 1,024 a class)")
    limit.add_argument("--no-limit", action="store_true", help="a central pool without a limit, as in Go")
    add("--fail", type=_number(2, 10**9), default=0, metavar="N", help="the allocator fails once in N calls, at random")
    add("--no-checks", action="store_true", help="do not write, check and own every record")
    add("--json", type=Path, metavar="FILE", help="write all figures")
    add("--plot", type=Path, metavar="FILE", help="draw cached items over time: .png or .svg")
    return parser


# ---- kinds of arguments: each says what was wrong -----------------------------------------------------

def _scenario(text: str) -> str:
    if text not in ALL:
        raise argparse.ArgumentTypeError(f"no scenario is called {text!r}: there are {', '.join(ALL)}")
    return text


def _number(low: int, high: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        try:
            value = int(text.replace("_", "").replace(",", ""))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{value} is not from {low} to {high}")
        return value
    return number


def _even(text: str) -> int:
    value = _number(2, 32766)(text)
    if value % 2:
        raise argparse.ArgumentTypeError(f"{value} is odd: half of it must move at once")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 < value <= 1e6:
        raise argparse.ArgumentTypeError(f"{text} seconds is not more than 0 and at most 1,000,000")
    return value


def _modes(parser: argparse.ArgumentParser, mode: str) -> tuple[str, ...]:
    if mode == "sections" and not machine.has_sections():
        parser.error("--mode sections: this machine has no restartable sections (Linux on x86-64 with rseq has)")
    if mode == "both":
        return ("sections", "portable") if machine.has_sections() else ("portable",)
    return (mode,)


def _calls(calls: str) -> tuple[str, ...]:
    if calls == "auto":
        return ("nogil",) if machine.has_gil() else ("nogil", "python")
    return ("nogil", "python") if calls == "both" else (calls,)


def _check_writable(parser: argparse.ArgumentParser, path: Path, endings: tuple[str, ...]) -> None:
    if path.suffix.lower() not in endings:
        parser.error(f"{path}: must end in {' or '.join(endings)}")
    existed = path.exists()
    try:
        with path.open("a"):
            pass
    except OSError as error:
        parser.error(f"{path} cannot be written: {error.strerror}")
    if not existed:
        path.unlink()


def _rerun_line(arguments: Sequence[str], seed: int) -> str:
    """With all that makes a difference: where the modules are, what the environment says, and the seed."""
    here, home = Path.cwd(), Path(__file__).resolve().parent.parent
    python = Path(sys.executable)
    if python.is_relative_to(here):
        python = python.relative_to(here)
    words = [f"{name}={os.environ[name]}" for name in ENVIRONMENT if name in os.environ]
    if len(machine.usable_cpus()) < (os.cpu_count() or 1) and shutil.which("taskset"):
        words += ["taskset", "-c", ",".join(map(str, machine.usable_cpus()))]
    if "LD_PRELOAD" in os.environ:
        words += ["setarch", platform.machine(), "-R"]
    words += [str(python), "-m", "stress", *arguments]
    if not any(word == "--seed" or word.startswith("--seed=") for word in arguments):
        words += ["--seed", str(seed)]
    line = shlex.join(words)
    return line if here == home else f"cd {shlex.quote(str(home))} && {line}"
