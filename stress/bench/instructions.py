"""python -m stress instructions: how many instructions the fast paths are.

A section cannot be counted while it runs: a debugger that steps through it restarts it at each step, and a simulator
has no restartable sequences. But it is straight code, so its way is read from the disassembly: the only one without a
call. Portable mode's is counted by callgrind.
"""
from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from stress import _bench
from stress.arguments import Parser

ENTERS = re.compile(r"mov\s.*,%fs:0x8\(")  # a thread tells the kernel which section it is in
HEAD = re.compile(r"[0-9a-f]+ <(\S+)>:")
INSTRUCTION = re.compile(r"\s*([0-9a-f]+):\t(\S.*?)\s*")
JUMP = re.compile(r"(j\w+)\s+([0-9a-f]+) .*")
PAIRS = 200_000  # beside which all else in the loop's own function is nothing
LOOP = """
import sys, deferpool
from stress import _bench
pool = deferpool.RecordPool(sched=deferpool.Sched(portable=True), debug=False)
_bench.WORK["pair"](pool, _bench.Gate(1), 0, int(sys.argv[1]))
"""


class Uncounted(Exception):
    """Why there is no figure here."""


def main(arguments: Sequence[str]) -> int:
    parser = Parser(prog="python -m stress instructions", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--show", action="store_true", help="the instructions of the sections, too")
    given = parser.parse_args(arguments)
    try:
        for name, path in (("take", take()), ("give", give())):
            print(f"{name}: {len(path)} instructions, in a section")
            if given.show:
                print(*(f"    {instruction}" for instruction in path), sep="\n")
        print(f"take and give: {portable():.1f} instructions, in portable mode")
    except Uncounted as why:
        print(f"not counted: {why}")
        return 1
    return 0


def take() -> list[str]:
    """What RecordPool.new(64) executes when the local cache has a record, call and return aside."""
    return _fast_path("take_record")


def give() -> list[str]:
    """What RecordPool.free executes when the local cache has room."""
    return _fast_path("give_record")


def portable() -> float:
    """Instructions of a take and a give, calls included."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise Uncounted("valgrind is not installed")
    with TemporaryDirectory() as folder:
        ran = subprocess.run(
            [valgrind, "--tool=callgrind", "--toggle-collect=*_bench_*pair",
             f"--callgrind-out-file={folder}/out", sys.executable, "-c", LOOP, str(PAIRS)],
            capture_output=True, text=True, check=False)
    counted = re.search(r"Collected : (\d+)", ran.stderr)
    if ran.returncode or counted is None:
        raise Uncounted(f"callgrind ended with {ran.returncode}: {ran.stderr[-300:]}")
    return int(counted[1]) / PAIRS


# ---- from the disassembly ------------------------------------------------------------------------------------------

def _fast_path(function: str) -> list[str]:
    code = _disassembled(Path(_bench.__file__), function)
    paths = [path for path in _without_calls(code, next(iter(code)), frozenset())
             if sum(ENTERS.match(instruction) is not None for instruction in path) == 1]
    if len(paths) != 1:
        raise Uncounted(f"{len(paths)} ways through {function} have one section and no call")
    return paths[0]


def _disassembled(library: Path, function: str) -> dict[int, str]:
    """Address and text of each instruction of the function, in their order."""
    objdump = shutil.which("objdump")
    if objdump is None:
        raise Uncounted("objdump is not installed")
    listing = subprocess.run([objdump, "-d", "--no-show-raw-insn", library], capture_output=True, text=True, check=True)
    code: dict[int, str] = {}
    inside = False
    for line in listing.stdout.splitlines():
        if (head := HEAD.fullmatch(line)) is not None:
            inside = head[1].endswith(function)
        elif inside and (instruction := INSTRUCTION.fullmatch(line)) is not None:
            code[int(instruction[1], 16)] = instruction[2]
    if not code:
        raise Uncounted(f"{library.name} has no function {function}")
    return code


def _without_calls(code: Mapping[int, str], at: int, been: frozenset[int]) -> Iterator[list[str]]:
    """Every way from there to a return that calls nothing and passes nothing twice. Who leaves the function calls."""
    addresses = list(code)
    path: list[str] = []
    while at in code and at not in been:
        been |= {at}
        instruction = code[at]
        path.append(instruction)
        if instruction.startswith("ret"):
            yield path
            return
        if instruction.startswith("call"):
            return
        behind = addresses.index(at) + 1
        following = addresses[behind] if behind < len(addresses) else -1
        jump = JUMP.fullmatch(instruction)
        if jump is None:
            at = following
        elif jump[1] == "jmp":
            at = int(jump[2], 16)
        else:
            for target in (following, int(jump[2], 16)):
                for rest in _without_calls(code, target, been):
                    yield [*path, *rest]
            return
