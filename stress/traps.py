"""python -m stress traps: each section interrupted before each of its instructions, by each primitive on the same P.

The trap's signal does what a preemption does: the section is sent back to its start, and somebody else has meanwhile
used the P, stopped it, or moved the thread to another. Whatever the instruction, the outcome must be that of two whole
primitives, the intruder's first (behind the commit: the section's first). What that is, a model made of lists says:
statuses, what was handed out, both caches slot by slot, their counts and pops; and no item may be in two places. Every
combination of instruction, turn of a loop, intruder, count and cap is tried. A trap that never fires, or that lies in
a section and does not send it back, fails too.
"""
from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stress import _traps, machine
from stress.arguments import Parser, even

CAPS = (2, 4, 8)
SECTIONS = ("pop", "push", "popn", "pushn")
POPS = 2**40 + 3  # ever, at the start: a carry out of the count would show
TRIES = 100  # of one case, when the system itself interrupts a section besides
SHOWN = 5  # failures told in full, of each section

# Where no item is in two places: what was there at the start, what the subject brings, what the intruder brings.
HELD, OTHER_P, BROUGHT, INTRUDED = 0x10000, 0x20000, 0x30000, 0x40000


class Trap(NamedTuple):
    section: str
    place: str  # before (the start), inside, after (the commit)
    text: str  # the instruction


class Call(NamedTuple):
    kind: str  # a primitive; of an intruder also: stop, move
    n: int  # items that it moves
    items: tuple[int, ...] = ()  # what it puts

    def __str__(self) -> str:
        return f"{self.kind} of {self.n}" if self.kind in ("popn", "pushn") else self.kind


class Case(NamedTuple):
    cached: int  # on P 0; the other P has the rest of a cap
    subject: Call
    trap: int
    hit: int  # the how manieth time that the subject comes there
    intruder: Call


# ---- what must come out --------------------------------------------------------------------------------------------

@dataclass
class World:
    """Two Ps with one cache each, as lists; what a call does to them, in whole."""

    cap: int
    count: int
    number: int = 0  # the P that the thread is on
    stopped: bool = False
    caches: list[list[int]] = field(init=False)
    pops: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.caches = [items(HELD, self.count), items(OTHER_P, self.cap - self.count)]
        self.pops = [POPS, POPS]

    def do(self, call: Call) -> tuple[str, list[int]]:
        """How it ends, and the items that it hands out."""
        cache = self.caches[self.number]
        if call.kind == "stop":
            self.stopped = True
        elif call.kind == "move":
            self.number = 1
        elif self.stopped:
            return "no P", []
        elif call.kind in ("push", "pushn"):
            if len(cache) + call.n > self.cap:
                return "unfit", []
            cache += call.items
        elif call.kind == "pop":
            if not cache:
                return "unfit", []
            self.pops[self.number] += 1
            return "done", [cache.pop()]
        else:
            if len(cache) != self.cap:
                return "unfit", []
            out = cache[-call.n:]
            del cache[-call.n:]
            return "done", out
        return "done", []


def items(kind: int, n: int) -> list[int]:
    return [kind + 16 * i for i in range(n)]


# ---- every combination ---------------------------------------------------------------------------------------------

def calls(cap: int, kind: int) -> list[Call]:
    several = sorted({1, cap // 2, cap})
    return [
        Call("pop", 1), Call("push", 1, tuple(items(kind, 1))),
        *(Call("popn", n) for n in several), *(Call("pushn", n, tuple(items(kind, n))) for n in several),
    ]


def counts(cap: int) -> list[int]:
    return sorted({0, 1, cap // 2, cap - 1, cap})


def runs(cap: int, section: str) -> Iterator[tuple[int, Call]]:
    for count in counts(cap):
        for subject in calls(cap, BROUGHT):
            if subject.kind == section:
                yield count, subject


def cases(cap: int, count: int, subject: Call, passed: Sequence[int]) -> Iterator[Case]:
    """All interruptions of one run that passes each trap so often."""
    intruders = [*calls(cap, INTRUDED), Call("stop", 0), Call("move", 0)]
    for trap, hits in enumerate(passed):
        for hit in range(1, hits + 1):
            for intruder in intruders:
                yield Case(count, subject, trap, hit, intruder)


# ---- one of them ---------------------------------------------------------------------------------------------------

def alone(rig: _traps.Rig, count: int, subject: Call) -> tuple[list[str], list[int]]:
    """Without an intruder: what was wrong, and how often the subject passed each trap."""
    for _ in range(TRIES):
        fill(rig, count)
        end, _none, _fired, restarts, passed = rig.run(subject)
        if not restarts:
            break  # else the system interrupted it
    return verify(rig, count, [("the subject", subject, end)]), passed


def attempt(rig: _traps.Rig, case: Case, place: str) -> tuple[list[str], bool]:
    """With one: what was wrong, and whether the section was sent back."""
    due = int(place == "inside")
    for _ in range(TRIES):
        fill(rig, case.cached)
        subject, intruder, fired, restarts, _passed = rig.run(case.subject, case.intruder, case.trap, case.hit)
        if restarts <= due:
            break  # else the system interrupted a section too, and the turn of a loop may have been another
    wrong = []
    if fired != 1:
        wrong.append(f"the trap fired {fired} times")
    if restarts < due:
        wrong.append("the section was not sent back")
    elif restarts > due:
        wrong.append(f"sections were sent back {restarts} times, {due} was due, in {TRIES} tries")
    order = [("the intruder", case.intruder, intruder), ("the subject", case.subject, subject)]
    return wrong + verify(rig, case.cached, order[::-1] if place == "after" else order), restarts > 0


def fill(rig: _traps.Rig, count: int) -> None:
    rig.fill(0, items(HELD, count), POPS)
    rig.fill(1, items(OTHER_P, rig.cap - count), POPS)


def verify(rig: _traps.Rig, count: int, order: Sequence[tuple[str, Call, _traps.Ended | None]]) -> list[str]:
    """What differs from whole calls in this order: how each ended, and what the Ps hold now."""
    world = World(rig.cap, count)
    brought = Counter(world.caches[0] + world.caches[1])
    found: Counter[int] = Counter()
    wrong = []
    for who, call, end in order:
        status, out = world.do(call)
        wrong += differences(who, call, status, out, end)
        if call.kind in ("push", "pushn"):
            brought += Counter(call.items)
        found += Counter(kept(call, end))
    for p in range(2):
        held, pops, intact = rig.look(p)
        found += Counter(held)
        if list(held) != world.caches[p]:
            wrong.append(f"P {p} holds {text(held)}, not {text(world.caches[p])}")
        if pops != world.pops[p]:
            wrong.append(f"P {p} counts {pops - POPS} pops, not {world.pops[p] - POPS}")
        if not intact:
            wrong.append(f"memory beside the cache of P {p} was written to")
    if found != brought:
        wrong.append(f"one-owner: lost {text((brought - found).elements())}, twice or from nowhere "
                     f"{text((found - brought).elements())}")
    return wrong


def differences(who: str, call: Call, status: str, out: list[int], end: _traps.Ended | None) -> list[str]:
    if end is None:
        return [f"{who} did not run"]
    if end[1] is None:
        return [f"{who} wrote beside its items"]
    if end[0] != status:
        return [f"{who} ended {end[0]!r}, not {status!r}"]
    if call.kind in ("push", "pushn"):
        out = list(call.items)  # which it must not touch
    elif status != "done" and call.kind == "popn":
        return []  # the items are its own until it is done
    if [item for item in end[1] if item is not None] != out:
        return [f"{who} handed out {text(end[1])}, not {text(out)}"]
    return []


def kept(call: Call, end: _traps.Ended | None) -> list[int]:
    """The items that the caller has when the call has ended so."""
    if end is None or end[1] is None or call.kind in ("stop", "move"):
        return []
    takes = call.kind in ("pop", "popn")
    return [item for item in end[1] if item is not None] if takes == (end[0] == "done") else []


def text(values: Iterable[int | None]) -> str:
    return "[" + " ".join("-" if value is None else f"{value:x}" for value in values) + "]"


# ---- the command ---------------------------------------------------------------------------------------------------

@dataclass
class Tally:
    """Of one trap."""

    tried: Counter[str] = field(default_factory=Counter)  # by the intruder's kind
    wrong: Counter[str] = field(default_factory=Counter)
    restarted: int = 0

    @property
    def held(self) -> bool:
        return not self.wrong and all(self.tried[kind] for kind in _traps.KINDS)


@dataclass
class Findings:
    """Of one section: a tally of each of its traps, by number, and the first failures."""

    tallies: dict[int, Tally]
    wrong_alone: int = 0  # runs that went wrong without an interruption
    failures: list[str] = field(default_factory=list)

    def tell(self, failure: str) -> None:
        if len(self.failures) < SHOWN:
            self.failures.append(failure)

    @property
    def tried(self) -> int:
        return sum(tally.tried.total() for tally in self.tallies.values())

    @property
    def held(self) -> bool:
        return bool(self.tallies) and not self.wrong_alone and all(tally.held for tally in self.tallies.values())


def examine(section: str, caps: Sequence[int] = CAPS) -> Findings:
    """Every combination of one section. RuntimeError where there are no traps."""
    traps = [Trap(*each) for each in _traps.traps()]
    findings = Findings({number: Tally() for number, trap in enumerate(traps) if trap.section == section})
    for cap in caps:
        rig = _traps.Rig(cap)
        for count, subject in runs(cap, section):
            wrong, passed = alone(rig, count, subject)
            if wrong:  # then it is not worth interrupting
                findings.wrong_alone += 1
                findings.tell(f"cap {cap}, {count} cached, {subject}, not interrupted: {'; '.join(wrong)}")
                continue
            for case in cases(cap, count, subject, passed):
                place, instruction = traps[case.trap][1:]
                wrong, restarted = attempt(rig, case, place)
                tally = findings.tallies.setdefault(case.trap, Tally())
                tally.tried[case.intruder.kind] += 1
                tally.wrong[case.intruder.kind] += bool(wrong)
                tally.restarted += restarted
                if wrong:
                    findings.tell(f"cap {cap}, {count} cached, {subject}, {place} {instruction!r} (time {case.hit}), "
                                  f"{case.intruder} comes between: {'; '.join(wrong)}")
    for tally in findings.tallies.values():
        tally.wrong = +tally.wrong
    return findings


def table(section: str, findings: Findings) -> Table:
    title = f"{section}: {len(findings.tallies)} traps, {findings.tried:,} interruptions; tried with each intruder"
    out = Table(title=title, title_justify="left")
    for name in ("place", "instruction"):
        out.add_column(name, no_wrap=True)
    for name in (*_traps.KINDS, "sent back"):
        out.add_column(name, justify="right", no_wrap=True)
    out.add_column("verdict", no_wrap=True)
    traps = [Trap(*each) for each in _traps.traps()]
    for number, tally in findings.tallies.items():
        cells = [f"{tally.tried[kind]:,}" if not tally.wrong[kind] else
                 f"[red]✗ {tally.wrong[kind]:,} of {tally.tried[kind]:,}[/]" for kind in _traps.KINDS]
        out.add_row(traps[number].place, traps[number].text or "(committed)", *cells,
                    f"{tally.restarted:,}", "[green]held[/]" if tally.held else "[red]FAILED[/]")
    return out


def main(arguments: Sequence[str]) -> int:
    parser = Parser(
        prog="python -m stress traps", description=__doc__.partition("\n")[0].partition(": ")[2],
        epilog="Exit status: 0 every interruption held; 1 one did not; 2 it cannot be run here.")
    parser.add_argument("--section", choices=SECTIONS, action="append", help="only this one (may be repeated)")
    parser.add_argument("--cap", type=even, action="append", metavar="N",
                        help=f"even and from 2 to 64 (may be repeated; default: {', '.join(map(str, CAPS))})")
    given = parser.parse_args(arguments)
    sections = tuple(dict.fromkeys(given.section or SECTIONS))
    caps = tuple(dict.fromkeys(given.cap or CAPS))
    if max(caps) > 64:
        parser.error(f"--cap must be at most 64, not {max(caps)}")
    reason = _traps.why_not()
    if reason is not None:
        print(f"python -m stress traps: error: {reason}", file=sys.stderr)
        return 2
    console = Console(width=None if sys.stdout.isatty() else 160)
    results = {section: examine(section, caps) for section in sections}
    for section, findings in results.items():
        console.print(table(section, findings))
        for failure in findings.failures:
            console.print(f"[red]BROKEN[/] {escape(failure)}", highlight=False, soft_wrap=True)
    failed = [section for section, findings in results.items() if not findings.held]
    tried = sum(findings.tried for findings in results.values())
    if failed:
        console.print(f"[red]FAILURE[/]: {', '.join(failed)} did not hold")
    else:
        console.print(f"[green]SUCCESS[/]: {tried:,} interruptions, every one as two whole primitives")
    for name, about in machine.describe().items():
        console.print(f"{name}: {about}", highlight=False)
    console.print(f"run it again: {shlex.join([sys.executable, '-m', 'stress', 'traps', *arguments])}",
                  highlight=False, soft_wrap=True)
    return 1 if failed else 0
