"""The verdicts on one run: each check has a name, the reason why it must hold, and its own evidence.

The names are those of the invariants in the design, and the rig's own after them. A check yields a sentence for each
thing that is not as it must be, or raises NotChecked; what the threads and the sampler saw while they ran comes first.
All believe the harness's own books, and compare the pool's figures with them.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from stress import machine
from stress.plan import DEFERPOOL, SAMPLES, Result, Verdict

MIB = 1 << 20
LOOKS = 3  # at memory, in a quarter of a run: one alone may be of any moment
FEW = 8  # pieces of evidence told of one check
SAMPLES_A_SECOND = 250  # a thousand and more where the machine is the run's alone
RESTARTS_A_CPU_SECOND = 50  # some hundreds are usual


class NotChecked(Exception):
    """Why this run says nothing about it."""


@dataclass(frozen=True)
class Check:
    name: str
    reason: str
    look: Callable[[Result], Iterable[str]]


OF_THE_POOL: list[Check] = []
OF_A_BASELINE: list[Check] = []
Look = Callable[[Result], Iterable[str]]


def check(name: str, reason: str, *of: list[Check]) -> Callable[[Look], Look]:
    def register(look: Look) -> Look:
        for checks in of or (OF_THE_POOL,):
            checks.append(Check(name, reason, look))
        return look
    return register


def judge(result: Result) -> None:
    """Fills result.verdicts: one for each check, in order."""
    checks = OF_THE_POOL if result.plan.design == DEFERPOOL else OF_A_BASELINE
    result.verdicts = [_verdict(each, result) for each in checks]


def _verdict(each: Check, result: Result) -> Verdict:
    seen = [text.removeprefix(f"{each.name}: ") for text in result.evidence if text.startswith(f"{each.name}: ")]
    more = result.violated.get(each.name, 0) - len(seen)
    if more > 0:
        seen.append(f"and {more:,} more like these")
    try:
        seen += each.look(result)
    except NotChecked as why:
        if not seen:
            return Verdict(each.name, each.reason, "not checked", (str(why),))
    if len(seen) > FEW:
        seen[FEW - 1:] = [f"and {len(seen) - FEW + 1:,} more"]
    return Verdict(each.name, each.reason, "broken" if seen else "held", tuple(seen))


# ---- the invariants ---------------------------------------------------------------------------------------

@check("local-bound",
       "A local cache never holds fewer than 0 or more than cap items: it is there to spare visits to the "
       "central pool, and must not grow with what passes through its P.")
def local_bound(result: Result) -> Iterator[str]:
    cap = result.plan.options.cap
    for p, counts in enumerate(result.stats["per_p"]):
        for cls, n in enumerate(counts):
            if not 0 <= n <= cap:
                yield f"at rest the local cache of P {p}, class {cls}, holds {n} items, its cap is {cap}"


@check("total-bound",
       "Cached items, local and central together, never exceed procs * classes * cap + limit, whatever the "
       "number of threads: that is what the pool promises to keep of a program's memory.")
def total_bound(result: Result) -> Iterator[str]:
    """At rest as well, where nothing is in transfer any more: by the books and by stats()."""
    books, stats = result.books, result.stats
    limit = result.plan.limit
    if result.bound is None or limit is None:
        raise NotChecked("the central pool has no limit")
    local, central = sum(map(sum, stats["per_p"])), stats["central"]
    parts = f"{local:,} local and {central:,} central at rest"
    cached = books["created"] - books["destroyed"] - (books["takes"] - books["gives"])
    for whose, figure in (("the books", cached), ("stats()", stats["cached"]), ("its peak", stats["peak_cached"])):
        if figure > result.bound:
            yield f"by {whose} {figure:,} items are cached, the bound is {result.bound:,}; by stats() {parts}"
    if central > limit:
        yield f"{parts}, and the limit of the central pool is {limit:,}"


@check("reuse",
       "A new item is made only when the local cache and the central pool are empty: created never exceeds "
       "live + bound + one batch a thread.")
def reuse(result: Result) -> Iterator[str]:
    plan, books = result.plan, result.books
    if plan.options.fail or plan.refuses:
        raise NotChecked("allocations fail on purpose")
    if plan.clears:
        raise NotChecked("the pool is cleared while the run is on: what was dropped so is made anew")
    if result.bound is None or plan.limit is None:
        raise NotChecked("the central pool has no limit")
    if plan.most_live >= plan.limit:
        raise NotChecked(f"{plan.most_live:,} records may be live, and the limit of {plan.limit:,} sends some away")
    most = plan.most_live + result.bound + books["slack"]
    if books["created"] - books["past"] > most:
        yield f"{books['created'] - books['past']:,} records were made where {most:,} are enough"


@check("one-owner",
       "An item is with one caller, or cached in one place, or gone: never two of these. Each take and "
       "give compares and swaps the owner word, and finds the record as its owner wrote it.",
       OF_THE_POOL, OF_A_BASELINE)
def one_owner(result: Result) -> Iterator[str]:
    _only_with_checks(result)
    return iter(())


@check("conservation",
       "At rest created = live + cached + destroyed, stats() says of each what the harness counted, and "
       "all that was allocated goes back in the end: nothing is lost, nothing is counted twice.")
def conservation(result: Result) -> Iterator[str]:
    books, stats = result.books, result.stats
    live = books["takes"] - books["gives"]
    if live:
        yield f"{live} records are out, and all threads gave back theirs"
    for name, own in (("created", books["created"]), ("destroyed", books["destroyed"]), ("gets", books["takes"]),
                      ("puts", books["gives"]), ("live", live), ("bypassed", books["past"]),
                      ("cached", books["created"] - books["destroyed"] - live)):
        if stats[name] != own:
            yield f"stats() says {stats[name]:,} {name}, the harness counted {own:,}"
    for what, n in result.left.items():
        if n:
            yield f"{n:,} allocations never came back to the allocator: {what}"


@check("no-pin",
       "A record that is handed out is all zero: one that still held a pointer to another would keep that "
       "one, or a whole list, alive. Each take looks at the whole record before it is written.")
def no_pin(result: Result) -> Iterator[str]:
    _only_with_checks(result)
    return iter(())


@check("clear",
       "clearpools() empties the central pools and leaves the local caches, which are bounded anyway; a "
       "pool's own clear() reaches both. Looked at with the threads gone and items in both places.")
def clear(result: Result) -> Iterator[str]:
    cleared = result.cleared
    if cleared is None:
        raise NotChecked("the run did not come to its end")
    before, after = cleared.central
    call = "a full collection" if result.plan.collects else "clearpools()"
    if after:
        yield f"after {call} the central pool holds {after:,} items, before it {before:,}"
    elif before == 0 and result.plan.limit != 0:
        yield f"the central pool was empty already: {call} could show nothing"
    for p, (was, now) in enumerate(zip(*cleared.per_p, strict=True)):
        for cls, (n, m) in enumerate(zip(was, now, strict=True)):
            if n != m:
                yield f"{call} changed the local cache of P {p}, class {cls}, from {n} to {m} items"
    if not any(map(sum, cleared.per_p[0])):
        yield f"the local caches were empty already: {call} could show nothing"
    if cleared.left:
        yield f"after the pool's clear() {cleared.left:,} items are cached"


@check("resize",
       "After procresize(n) the Ps from n up hold nothing: nobody would ever come for it. Looked at after "
       "each call, and at the end of every run after procresize(1).")
def resize(result: Result) -> Iterator[str]:
    for p, cls, n in result.beyond:
        yield f"procresize(1) has returned, and P {p} holds {n} items of class {cls}"


@check("failure",
       "An allocation that fails gives MemoryError to its caller (NULL without the GIL), to nobody else, "
       "and nothing is lost: each refused call is one failed take, procresize or making of a pool; one for "
       "a batch is none.")
def failure(result: Result) -> Iterator[str]:
    books = result.books
    for what, failed, refused in (("takes", books["failed"], books["refused_record"]),
                                  ("calls of procresize", books["resizes_refused"], books["refused_caches"]),
                                  ("makings of a pool", books["pools_refused"], books["refused_pool"])):
        if failed != refused:
            yield f"{failed:,} {what} failed, and the allocator refused {refused:,} calls for them"


@check("fork",
       "A child process can use every pool at once, whatever other threads were doing at the fork: each "
       "child takes all that is cached and more, and finds no record that is live with the parent's "
       "threads.")
def fork(result: Result) -> Iterator[str]:
    if not result.books["forks"]:
        raise NotChecked("no child was forked")
    return iter(())


@check("thread-exit",
       "Caches belong to Ps and not to threads: once the threads have ended, and procresize(1) and "
       "clearpools() were called, nothing is cached but what one P may hold.")
def thread_exit(result: Result) -> Iterator[str]:
    share = len(result.plan.sizes) * result.plan.options.cap
    if result.one_p > share:
        yield f"one P is left, whose caches hold {share:,} items at most, and {result.one_p:,} are cached"


@check("endings",
       "What is to run at the end of a function runs then: each call once, last in, first out, with what it was "
       "given, whatever is in flight; an exception that is stopped shows what it has replaced.")
def endings(result: Result) -> Iterator[str]:
    if result.plan.scenario not in ("defer", "exitstack"):
        raise NotChecked("no function has deferred anything here")
    return iter(())


# ---- the rig's own: what makes the others mean something ----------------------------------------------------

@check("mode",
       "A run that was meant for restartable sections is in them from the start, and one for portable mode "
       "in that: falling back must fail, or half of the engine would never be tested.")
def mode(result: Result) -> Iterator[str]:
    if result.mode_at_start != result.plan.mode:
        why = "and this machine has them" if machine.has_sections() else "which this machine does not have"
        yield f"the run was meant for {result.plan.mode}, {why}, but the engine is in {result.mode_at_start} mode"


@check("alive",
       "Every thread ends by itself: one that died of an exception has not done its work.",
       OF_THE_POOL, OF_A_BASELINE)
def alive(result: Result) -> Iterator[str]:
    return iter(())


@check("sampled",
       f"The caches were looked at {SAMPLES:,} times at least, fewer only in a short run of a given number "
       "of operations: what nobody looks at holds.",
       OF_THE_POOL, OF_A_BASELINE)
def sampled(result: Result) -> Iterator[str]:
    if result.interrupted:
        raise NotChecked("the run was cut short")
    short = result.plan.options.ops is not None
    had = result.cpu_seconds / min(result.plan.threads, len(machine.usable_cpus()))  # seconds, without what others took
    if short and had < 1:
        raise NotChecked(f"{had:.1f} s are too short for the sampler to have its turns")
    wanted = min(SAMPLES, int(SAMPLES_A_SECOND * had)) if short else SAMPLES
    if result.books["samples"] < wanted:
        yield f"only {result.books['samples']} samples, not {wanted}, in {had:.1f} s"


@check("restarts",
       "Sections that were meant to be interrupted were: otherwise the run shows nothing.")
def restarts(result: Result) -> Iterator[str]:
    if result.plan.scenario != "interrupt" or result.plan.mode != "sections":
        raise NotChecked("nobody interrupts sections on purpose here")
    if result.interrupted:
        raise NotChecked("the run was cut short")
    wanted = max(10, min(1_000, int(RESTARTS_A_CPU_SECOND * result.cpu_seconds)))
    if result.restarts < wanted:
        yield f"only {result.restarts} sections were restarted, not {wanted}, in {result.cpu_seconds:.1f} s of CPU"


@check("refusals",
       "A run that starves the allocator was refused at every site, a record, a batch, the caches of a P "
       "and a new pool: otherwise it shows nothing.")
def refusals(result: Result) -> Iterator[str]:
    if result.plan.scenario != "starve":
        raise NotChecked("nobody refuses at every site on purpose here")
    if result.interrupted or result.plan.options.ops is not None:
        raise NotChecked("the run may have ended before the allocator was asked")
    for site in ("record", "batch", "caches", "pool"):
        if not result.books[f"refused_{site}"]:
            yield f"no call was refused at the site {site}"


@check("flat-memory",
       "Resident memory, last quarter of the run, is at most 1 MiB above the second quarter: what the pool "
       "keeps does not grow with the work done.")
def flat_memory(result: Result) -> Iterator[str]:
    quarter = len(result.resident) // 4
    if not result.resident:
        raise NotChecked("this scenario does not look at memory")
    if quarter < LOOKS:
        raise NotChecked(f"{len(result.resident)} looks at memory are too few for quarters of {LOOKS}")
    if machine.under_sanitizer():
        raise NotChecked("a sanitizer's own memory grows")
    second, last = max(result.resident[quarter:2 * quarter]), max(result.resident[-quarter:])
    if last > second + MIB:
        yield f"resident memory grew from {second / MIB:.1f} to {last / MIB:.1f} MiB"


@check("growth",
       "An unbounded list grows in proportion to the records moved one way: a rig that does not show it "
       "would not show a pool that grows either.",
       OF_A_BASELINE)
def growth(result: Result) -> Iterator[str]:
    if result.plan.options.fail:
        raise NotChecked("allocations fail on purpose")
    if result.interrupted:
        raise NotChecked("the run was cut short")
    slack = result.plan.most_live + result.books["gives"] // 20
    low = [(cached, gives) for _, cached, gives in result.curve if cached + slack < 0.9 * gives]
    if low:
        yield f"only {low[-1][0]:,} cached after {low[-1][1]:,} records had been moved one way"


def _only_with_checks(result: Result) -> None:
    if not result.plan.options.checks:
        raise NotChecked("--no-checks: records are written and read, and not compared")
