"""The command line of a stress run, and the line that runs it again."""
from __future__ import annotations

import argparse
import os
import platform
import secrets
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stress import machine
from stress.arguments import Parser, even, number, seconds
from stress.plan import ITEMS, Options
from stress.reports import outputs
from stress.reports.outputs import Outputs
from stress.scenarios import ALL, DEFAULT
from stress.shard import Shard

ENVIRONMENT = ("DEFERPOOL_PORTABLE", "DEFERPOOL_PROCS", "GLIBC_TUNABLES", "LD_PRELOAD", "TSAN_OPTIONS", "ASAN_OPTIONS",
               "PYTHONMALLOC", "PYTHON_GIL")  # what the rerun line repeats of it


@dataclass(frozen=True)
class Command:
    options: Options
    shard: Shard | None
    outputs: Outputs
    rerun: str


def parse(arguments: Sequence[str], commands: str = "") -> Command:
    """Ends the process with status 2, and the reason on stderr, when the arguments make no sense.

    `commands`: what --help says of the other commands.
    """
    parser, repeated = _parser(commands)
    given = parser.parse_args(arguments)
    if given.seed is None:
        if given.shard is not None:
            parser.error("--shard needs --seed: all parts of a campaign have the same")
        given.seed = secrets.randbits(32)
    procs = given.procs
    if procs is None and os.environ.get("DEFERPOOL_PROCS", "").strip():
        procs = int(os.environ["DEFERPOOL_PROCS"])  # a bad one was refused when deferpool was imported
    options = Options(
        scenarios=tuple(dict.fromkeys(given.scenario)) or DEFAULT,
        modes=_modes(parser, given.mode), calls=_calls(given.calls),
        items=ITEMS if given.items == "all" else (given.items,),
        threads=given.threads, seconds=given.seconds, ops=given.ops, seed=given.seed, procs=procs, cap=given.cap,
        limit=given.limit, no_limit=given.no_limit, fail=given.fail, checks=not given.no_checks,
    )
    if "sections" in options.modes and options.procs is not None and options.procs < len(machine.usable_cpus()):
        parser.error(f"--procs {options.procs} is fewer than the {len(machine.usable_cpus())} CPUs here: "
                     "that is portable mode (add --mode portable)")
    return Command(options, given.shard, outputs.chosen(parser, given), _rerun_line(_words(given, repeated)))


def _parser(commands: str) -> tuple[Parser, list[argparse.Action]]:
    """The parser, and those of its arguments that make a difference to the runs, in the order of the rerun line."""
    parser = Parser(
        prog="python -m stress",
        description="Real threads against the pool, checked from outside: does the bound hold, is nothing lost?",
        epilog=f"{commands}Exit status: 0 every run held; 1 one did not, or Ctrl-C; 2 bad arguments, or a file that "
               "cannot be written.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    length, limit = parser.add_mutually_exclusive_group(), parser.add_mutually_exclusive_group()
    repeated = [
        add("scenario", nargs="*", type=_scenario, help=f"of {', '.join(ALL)}; default: all but soak"),
        add("--mode", choices=["both", "sections", "portable"], default="both",
            help="how threads own their P (default: both)"),
        add("--calls", choices=["auto", "nogil", "python", "both"], default="auto",
            help="nogil loops, or Python-level calls; auto adds the latter where there is no GIL"),
        add("--items", choices=["all", *ITEMS], default="all",
            help="what the pool holds: raw records, Python objects, buffers (default: all, where the scenario can)"),
        add("--threads", type=number(1, 4096), metavar="N",
            help="threads of each run (default: by scenario; migrate: pairs)"),
        length.add_argument("--seconds", type=seconds, metavar="S", help="length of each run"),
        length.add_argument("--ops", type=number(1, 10**12), metavar="N", help="takes and gives of each run, together"),
        add("--procs", type=number(1, 1024), metavar="N", help="number of Ps (default: by mode)"),
        add("--cap", type=even, default=32, metavar="N",
            help="most items in a local cache: even, from 2 (default: 32)"),
        limit.add_argument("--limit", type=number(0, 2**62), metavar="N",
                           help="most items in the central pool (default: by scenario, at least 1,024 a class)"),
        limit.add_argument("--no-limit", action="store_true", help="a central pool without a limit, as in Go"),
        add("--fail", type=number(2, 10**9), default=0, metavar="N",
            help="the allocator fails once in N calls, at random"),
        add("--no-checks", action="store_true", help="do not write, check and own every record"),
        add("--seed", type=number(0, 2**64 - 1), metavar="N",
            help="of every random choice (default: a new one, printed)"),
        add("--shard", type=_shard, metavar="I/N",
            help="only part I of N of the runs; `merge` joins the JSON reports of all parts"),
    ]
    outputs.add(parser)
    return parser, repeated


# ---- kinds of arguments: each says what was wrong -----------------------------------------------------

def _scenario(text: str) -> str:
    if text not in ALL:
        raise argparse.ArgumentTypeError(f"no scenario is called {text!r}: there are {', '.join(ALL)}")
    return text


def _shard(text: str) -> Shard:
    try:
        return Shard.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _modes(parser: Parser, mode: str) -> tuple[str, ...]:
    if mode == "sections" and not machine.has_sections():
        parser.error("--mode sections: this machine has no restartable sections (Linux on x86-64 with rseq has)")
    if mode == "both":
        return ("sections", "portable") if machine.has_sections() else ("portable",)
    return (mode,)


def _calls(calls: str) -> tuple[str, ...]:
    if calls == "auto":
        return ("nogil",) if machine.has_gil() else ("nogil", "python")
    return ("nogil", "python") if calls == "both" else (calls,)


# ---- the line that runs it again ----------------------------------------------------------------------

def _words(given: argparse.Namespace, repeated: Sequence[argparse.Action]) -> Iterator[str]:
    """The arguments that are not at their defaults. Files are left out: running it again overwrites no report."""
    for action in repeated:
        value = getattr(given, action.dest)
        if not action.option_strings:
            yield from dict.fromkeys(value)
        elif value is True:
            yield action.option_strings[0]
        elif value != action.default:
            yield from (action.option_strings[0], str(value).removesuffix(".0"))


def _rerun_line(arguments: Iterator[str]) -> str:
    """With all that makes a difference: where the modules are, what the environment says, and the seed."""
    here, home = Path.cwd(), Path(__file__).resolve().parent.parent
    standing_there = here == home and (home / "setup.py").exists()  # who runs a variant has not gone to its folder
    python = Path(sys.executable)
    if standing_there and python.is_relative_to(here):
        python = python.relative_to(here)
    setting = [f"{name}={shlex.quote(os.environ[name])}" for name in ENVIRONMENT if name in os.environ]
    words = []
    if len(machine.usable_cpus()) < (os.cpu_count() or 1) and shutil.which("taskset"):
        words += ["taskset", "-c", ",".join(map(str, machine.usable_cpus()))]
    if "LD_PRELOAD" in os.environ:
        words += ["setarch", platform.machine(), "-R"]
    words += [str(python)]
    if "gil" in sys._xoptions:
        words += ["-X", f"gil={sys._xoptions['gil']}"]
    line = " ".join([*setting, shlex.join([*words, "-m", "stress", *arguments])])
    return line if standing_there else f"cd {shlex.quote(str(home))} && {line}"
