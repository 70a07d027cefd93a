"""The four sections, interrupted before each of their instructions: all of it, and that it can fail."""
from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from helpers import ROOT

from stress import _traps, machine
from stress.traps import CAPS, SECTIONS, Call, Case, Trap, attempt, counts, examine

REASON = _traps.why_not()
MUST = machine.has_sections() and os.environ.get("DEFERPOOL_PORTABLE") != "1" and not machine.under_sanitizer()
trapped = pytest.mark.skipif(REASON is not None and not MUST, reason=str(REASON))

SOURCE = """
#include "sections.h"
int pop(dp_front *f, size_t at, void **items) { return dp_section_pop(f, at, items); }
int push(dp_front *f, size_t at, void **items) { return dp_section_push(f, at, items[0]); }
int popn(dp_front *f, size_t at, uint64_t n, void **items) { return dp_section_popn(f, at, n, items); }
int pushn(dp_front *f, size_t at, uint64_t n, void **items) { return dp_section_pushn(f, at, n, items); }
"""


def traps() -> list[Trap]:
    return [Trap(*each) for each in _traps.traps()]


def commit_of(section: str) -> int:
    return max(i for i, trap in enumerate(traps()) if (trap.section, trap.place) == (section, "inside"))


def number_of(section: str, place: str, instruction: str) -> int:
    (number,) = [i for i, trap in enumerate(traps())
                 if (trap.section, trap.place) == (section, place) and re.match(instruction, trap.text)]
    return number


# ---- what must hold ----------------------------------------------------------------------------------------

@trapped
@pytest.mark.parametrize("section", SECTIONS)
def test_every_interruption_is_as_two_whole_primitives(section: str) -> None:
    findings = examine(section)
    assert not findings.failures
    assert findings.held
    for number, tally in findings.tallies.items():
        assert tally.restarted == (tally.tried.total() if traps()[number].place == "inside" else 0)
        assert set(tally.tried) == set(_traps.KINDS)  # every trap was reached, with each intruder
    # The first instruction is reached by every call in every state: so many cases, and no more, are all of them.
    several = {2: 2, 4: 3, 8: 3}  # of n, by cap
    states = {cap: len(counts(cap)) * (several[cap] if section in ("popn", "pushn") else 1) for cap in CAPS}
    first = findings.tallies[min(findings.tallies)]
    assert first.tried["pop"] == first.tried["stop"] == first.tried["move"] == sum(states.values())
    assert first.tried["popn"] == first.tried["pushn"] == sum(states[cap] * several[cap] for cap in CAPS)


@trapped
def test_every_turn_of_the_loops_is_interrupted() -> None:
    for section in ("popn", "pushn"):
        tallies = examine(section, [8]).tallies
        looped = tallies[number_of(section, "inside", "decq ")]
        straight = tallies[number_of(section, "inside", r"leaq \(%\w+, %\w+, 8\)")]
        # n is 1, 4 and 8: a turn for each item. popn does so when full; pushn with 0, 1, 4 and 7 cached, if all fit
        turns, entered = {"popn": (1 + 4 + 8, 3), "pushn": (4 * 1 + 3 * 4 + 8, 4 + 3 + 1)}[section]
        assert (looped.tried["pop"], straight.tried["pop"]) == (turns, entered)


# ---- every instruction has its trap ------------------------------------------------------------------------

def compiler() -> str:
    asked = (os.environ.get("CC"), sysconfig.get_config_var("CC"), "cc", "gcc", "clang")
    found = [path for words in asked if words and (path := shutil.which(words.split()[0]))]
    if not found:
        pytest.skip("no C compiler")
    return found[0]


def instructions(assembly: str, function: str) -> list[tuple[str, str]]:
    """(place, mnemonic) of what the function's inline assembly has in the text section, as the compiler put it out."""
    body = re.search(rf"^{function}:\n(.*?)^\t\.size\t{function},", assembly, re.M | re.S)
    assert body is not None
    (inline,) = re.findall(r"^#\s?APP\n(.*?)^#\s?NO_APP\n", body[1], re.M | re.S)
    inline = re.sub(r"^\s*\.pushsection.*?\.popsection\s*?\n", "", inline, flags=re.M | re.S)
    found, place = [], "before"
    for line in (line.strip() for line in inline.splitlines()):
        label = re.match(r"(\w+):", line)
        if label is not None:
            place = {"1": "inside", "2": "after"}.get(label[1], place)
            line = line[label.end():].strip()
        if line and line[0] not in ".#":
            found.append((place, line.split()[0]))
    return found


@trapped
@pytest.mark.parametrize("section", SECTIONS)
def test_every_instruction_has_a_trap(tmp_path: Path, section: str) -> None:
    (tmp_path / "plain.c").write_text(SOURCE)
    include = f"-I{ROOT / 'deferpool'}"
    subprocess.run([compiler(), "-O2", "-fPIC", include, "-S", "plain.c"], cwd=tmp_path, check=True)
    plain = instructions((tmp_path / "plain.s").read_text(), section)
    ours = [trap for trap in traps() if trap.section == section]
    assert [(trap.place, trap.text.split()[0]) for trap in ours[:-1]] == plain
    assert ours[-1] == (section, "after", "")
    assert plain[-1] == ("inside", "movq")
    assert len(plain) == {"pop": 16, "push": 16, "popn": 21, "pushn": 21}[section]


# ---- whether it can fail -----------------------------------------------------------------------------------

@trapped
def test_a_trap_that_sends_nothing_back_is_found() -> None:
    rig = _traps.Rig(4)
    start = number_of("push", "before", "leaq ")
    wrong, restarted = attempt(rig, Case(2, Call("push", 1, (1,)), start, 1, Call("pop", 1)), "inside")
    assert wrong == ["the section was not sent back"]
    assert not restarted


@trapped
def test_a_section_that_is_sent_back_too_often_is_found() -> None:
    commit = commit_of("push")
    wrong, _ = attempt(_traps.Rig(4), Case(2, Call("push", 1, (1,)), commit, 1, Call("stop", 0)), "before")
    assert wrong == ["sections were sent back 1 times, 0 was due, in 100 tries"]


@trapped
def test_a_trap_that_does_not_fire_is_found() -> None:
    commit = commit_of("push")
    wrong, _ = attempt(_traps.Rig(4), Case(4, Call("push", 1, (1,)), commit, 1, Call("pop", 1)), "inside")  # it is full
    assert wrong[:2] == ["the trap fired 0 times", "the section was not sent back"]
    assert "the intruder did not run" in wrong


@trapped
def test_the_wrong_order_is_found() -> None:
    commit = commit_of("push")
    wrong, _ = attempt(_traps.Rig(4), Case(2, Call("push", 1, (1,)), commit, 1, Call("pop", 1)), "after")
    assert "the intruder handed out [10010], not [1]" in wrong
    assert "P 0 holds [10000 1], not [10000 10010]" in wrong


# ---- the command and the rig -------------------------------------------------------------------------------

def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "stress", "traps", *arguments], cwd=ROOT, capture_output=True,
                          text=True, timeout=300, env={**os.environ, **environment})


@trapped
def test_command() -> None:
    done = command("--section", "pop", "--cap", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout
    assert "-m stress traps --section pop --cap 2" in done.stdout
    for trap in traps():
        assert trap.section != "pop" or trap.text in done.stdout


def test_command_says_why_it_cannot_run() -> None:
    done = command(DEFERPOOL_PORTABLE="1")
    assert done.returncode == 2
    assert "error: " in done.stderr
    assert "sections" in done.stderr


@pytest.mark.parametrize(
    ("cap", "reason"),
    [("3", "3 is odd"), ("0", "0 is not from 2"), ("-2", "-2 is not from 2"), ("66", "at most 64, not 66")],
)
def test_command_refuses_a_cap(cap: str, reason: str) -> None:
    done = command("--cap", cap)
    assert done.returncode == 2
    assert reason in done.stderr


@trapped
def test_rig_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="cap must be even and from 2 to 64, not 3"):
        _traps.Rig(3)
    rig = _traps.Rig(2)
    with pytest.raises(ValueError, match="there are 2 Ps that hold 2 items"):
        rig.fill(0, [1, 2, 3], 0)
    with pytest.raises(ValueError, match="at most 64 items"):
        rig.run(("popn", 65, ()))
    with pytest.raises(ValueError, match="a trap is from 0 to"):
        rig.run(("pop", 1, ()), ("pop", 1, ()), len(traps()))
    with pytest.raises(ValueError, match="there is an intruder"):
        rig.run(("pop", 1, ()), None, 0)
