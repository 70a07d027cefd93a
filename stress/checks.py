"""The verdict on one run: each check is one invariant, believes the harness's own books, and says what it saw."""
from __future__ import annotations

from collections.abc import Iterator

from stress import machine
from stress.plan import DEFERPOOL, SAMPLES, Result

MIB = 1 << 20


def judge(result: Result) -> None:
    """Adds to result.broken a sentence for each thing that is not as it must be, and a note of what was not checked."""
    plan = result.plan
    if plan.design == DEFERPOOL and (plan.options.fail or result.bound is None or plan.most_live >= (plan.limit or 0)):
        result.notes.append("reuse is not checked: live records may pass the limit, or allocations fail on purpose")
    if 0 < len(result.resident) < 4:
        result.notes.append("memory is not judged: too few rounds")
    for check in OF_THE_POOL if result.plan.design == DEFERPOOL else OF_A_BASELINE:
        result.broken.extend(f"{check.__name__.replace('_', '-')}: {text}" for text in check(result))


def mode(result: Result) -> Iterator[str]:
    """A run meant for restartable sections is in them from the start; so is one meant for portable mode."""
    if result.mode_at_start != result.plan.mode:
        why = "and this machine has them" if machine.has_sections() else "which this machine does not have"
        yield f"the run was meant for {result.plan.mode}, {why}, but the engine is in {result.mode_at_start} mode"


def sampled(result: Result) -> Iterator[str]:
    """At least 1,000 samples, fewer only in a short run of a given number of operations: what nobody looks at holds."""
    if result.interrupted:
        return
    short = result.plan.options.ops is not None
    wanted = int(SAMPLES * min(1.0, result.seconds / 4)) if short else SAMPLES
    if result.books["samples"] < wanted:
        yield f"only {result.books['samples']} samples, not {wanted}, in {result.seconds:.1f} s"


def seen_while_running(result: Result) -> Iterator[str]:
    """one-owner, local-bound and total-bound, as the threads and the sampler met them."""
    yield from result.evidence
    more = result.books["violations"] - len(result.evidence)
    if more > 0:
        yield f"and {more:,} more like these"


def total_bound(result: Result) -> Iterator[str]:
    """At rest as well: by the harness's books, where nothing is in transfer any more, and by stats()."""
    books, stats = result.books, result.stats
    cached = books["created"] - books["destroyed"] - (books["takes"] - books["gives"])
    if result.bound is not None:
        for whose, figure in (("the books", cached), ("stats()", stats["cached"]), ("its peak", stats["peak_cached"])):
            if figure > result.bound:
                yield f"by {whose} {figure:,} items are cached at rest, the bound is {result.bound:,}"


def conservation(result: Result) -> Iterator[str]:
    """At rest created = live + cached + destroyed, and stats() says of each what the books say."""
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


def reuse(result: Result) -> Iterator[str]:
    """With live records below the limit, created never passes live + bound + one batch a thread."""
    plan, books = result.plan, result.books
    if plan.options.fail or result.bound is None or plan.limit is None or plan.most_live >= plan.limit:
        return
    most = plan.most_live + result.bound + books["slack"]
    if books["created"] - books["past"] > most:
        yield f"{books['created'] - books['past']:,} records were made where {most:,} are enough"


def thread_exit(result: Result) -> Iterator[str]:
    """The threads have ended: after procresize(1) and clearpools() nothing is cached but what one P may hold."""
    share = len(result.plan.sizes) * result.plan.options.cap
    if result.one_p > share:
        yield f"one P is left, whose caches hold {share:,} items at most, and {result.one_p:,} are cached"


def restarts(result: Result) -> Iterator[str]:
    """Sections that were meant to be interrupted were: otherwise the run shows nothing."""
    if result.plan.scenario == "interrupt" and result.plan.mode == "sections" and not result.interrupted:
        wanted = min(1000, int(100 * result.seconds))
        if result.restarts < wanted:
            yield f"only {result.restarts} sections were restarted in {result.seconds:.1f} s"


def flat_memory(result: Result) -> Iterator[str]:
    """Resident set: the last quarter of the run at most 1 MiB above the second."""
    quarter = len(result.resident) // 4
    if quarter and not machine.under_sanitizer():
        second, last = max(result.resident[quarter:2 * quarter]), max(result.resident[-quarter:])
        if last > second + MIB:
            yield f"resident memory grew from {second / MIB:.1f} to {last / MIB:.1f} MiB"


def growth(result: Result) -> Iterator[str]:
    """An unbounded list grows in proportion to the records moved one way. If it does not, the rig shows nothing."""
    if result.plan.options.fail or result.interrupted:
        return
    slack = result.plan.most_live + result.books["gives"] // 20
    low = [(cached, gives) for _, cached, gives in result.curve if cached + slack < 0.9 * gives]
    if low:
        yield f"only {low[-1][0]:,} cached after {low[-1][1]:,} records had been moved one way"


OF_THE_POOL = (mode, sampled, seen_while_running, total_bound, conservation, reuse, thread_exit, restarts,
               flat_memory)
OF_A_BASELINE = (sampled, seen_while_running, growth)
