"""What a scenario asks for, and what a run of it gave: plain data between the scenarios, the runner and the report."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:  # a report is merged without any compiled module
    import deferpool
    from stress._designs import Face
    from stress._load import Load
    from stress.runner import Running

    Pools: TypeAlias = deferpool.RecordPool | Face

DEFERPOOL = "deferpool"
PER_P = "a list per P"
PER_THREAD = "a list per thread"
LOCAL_LISTS = "in lists of threading.local"

RECORDS, OBJECTS, BUFFERS = "records", "objects", "buffers"
ITEMS = (RECORDS, OBJECTS, BUFFERS)

SAMPLES = 1_000  # of the bounds, at least, in every run whose length is not given by its operations
SIZES = (16, 32, 48, 64, 80)
Site = Literal["record", "batch", "caches"]  # where a pool asks its allocator; see Ledger


@dataclass(frozen=True)
class Options:
    """What the command line says. None: the scenario's own choice."""

    scenarios: tuple[str, ...] = ()
    modes: tuple[str, ...] = ("sections", "portable")
    calls: tuple[str, ...] = ("nogil",)
    items: tuple[str, ...] = (RECORDS,)
    threads: int | None = None
    seconds: float | None = None
    ops: int | None = None
    seed: int = 0
    procs: int | None = None
    cap: int = 32
    limit: int | None = None
    no_limit: bool = False
    fail: int = 0
    checks: bool = True


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run: so many threads against one design, in one mode, through one kind of calls."""

    scenario: str
    threads: int
    most_live: int  # records that can be out with callers at once
    options: Options
    mode: str = ""  # none for a baseline
    design: str = DEFERPOOL
    calls: str = "nogil"
    items: str = RECORDS
    sizes: tuple[int, ...] = SIZES
    usual_limit: int | None = None  # None: the library's own, or more than can be live
    procs: int | None = None
    most_procs: int = 0  # the bound that holds throughout is that of so many Ps
    seconds: float | None = None
    ops: int | None = None  # takes and gives together, for the progress bar
    body: Callable[[Load, Any, int], object] | None = None  # what thread i does
    during: Callable[[Running], None] | None = None  # what goes on meanwhile; the run ends with it
    cpu: Callable[[int], int] | None = None  # where thread i is pinned
    spread: bool = True  # test builds: each thread among Ps of its own
    collects: bool = False  # whether full collections clear the central pools
    clears: bool = False  # whether something clears the pool while the run is on
    refuses: bool = False  # whether the scenario itself makes allocations fail
    label: str = ""

    @property
    def limit(self) -> int | None:
        if self.options.no_limit:
            return None
        if self.options.limit is not None:
            return self.options.limit
        if self.usual_limit is not None:
            return self.usual_limit
        return max(1024 * len(self.sizes), self.most_live + 1)  # above what is live: reuse is checked too

    @property
    def name(self) -> str:
        """What tells this run from others, but for its mode."""
        design = "" if self.design == DEFERPOOL else self.design
        calls = "(python)" if self.calls == "python" and self.items == RECORDS else ""
        items = "" if self.items == RECORDS else f"of {self.items}"
        return " ".join(part for part in (self.scenario, self.label, items, design, calls) if part)

    @property
    def title(self) -> str:
        return f"{self.name}, {self.mode}" if self.mode else self.name


@dataclass(frozen=True)
class Verdict:
    """What one check says of one run."""

    check: str  # the invariant's name in the design, or what else is checked
    reason: str  # one sentence: why it must hold
    outcome: Literal["held", "broken", "not checked"]
    evidence: tuple[str, ...] = ()  # broken: the first things seen; not checked: why not


@dataclass(frozen=True)
class Cleared:
    """A pool at rest with items in both kinds of places, before and after its clearing."""

    central: tuple[int, int]  # before and after clearpools(), or a full collection
    per_p: tuple[list[list[int]], list[list[int]]]  # likewise: for each P the items of each class
    left: int  # cached after the pool's own clear()


@dataclass
class Result:
    """What a run gave. `verdicts` is filled by the checks."""

    plan: Plan
    seconds: float = 0.0
    cpu_seconds: float = 0.0  # of the whole process: what other programs take from it is not in there
    mode_at_start: str = ""
    procs: int = 0
    bound: int | None = None
    books: dict[str, int] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)
    restarts: int = 0
    curve: list[tuple[float, int, int]] = field(default_factory=list)
    decisions: list[int] = field(default_factory=list)  # by thread: a hash of what it decided to do
    evidence: list[str] = field(default_factory=list)  # "check: what was seen", while the run was on
    violated: dict[str, int] = field(default_factory=dict)  # by check: how often the threads and the sampler saw it
    cleared: Cleared | None = None
    beyond: list[tuple[int, int, int]] = field(default_factory=list)  # P, class, items after procresize(1)
    one_p: int = 0  # cached at the end, after procresize(1) and clearpools()
    left: dict[str, int] = field(default_factory=dict)  # what the allocator missed once all was given back
    resident: list[int] = field(default_factory=list)  # bytes, now and then; where the scenario looks
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False
    verdicts: list[Verdict] = field(default_factory=list)  # one for each check

    @property
    def operations(self) -> int:
        return self.books["takes"] + self.books["gives"]

    @property
    def broken(self) -> list[str]:
        """A line for each piece of evidence, after the name of its check."""
        return [f"{verdict.check}: {text}" for verdict in self.verdicts if verdict.outcome == "broken"
                for text in verdict.evidence]

    @property
    def verdict(self) -> Literal["held", "grows", "interrupted", "FAILED"]:
        if any(verdict.outcome == "broken" for verdict in self.verdicts):
            return "FAILED"
        if self.interrupted:
            return "interrupted"
        return "held" if self.plan.design == DEFERPOOL else "grows"
