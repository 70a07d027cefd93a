"""Results and reports made by hand, for the tests of what is reported: every outcome, and text that needs care."""
from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

from stress.plan import DEFERPOOL, PER_P, Options, Plan, Result, Verdict
from stress.reports import document
from stress.reports.document import Document
from stress.shard import Shard

NASTY = "<script>alert(1)</script> & [red]\"quoted\"[/red] \x00\x1b[31m é"
HELD = Verdict("conservation", "at rest created = live + cached + destroyed", "held")
BROKEN = Verdict("total-bound", "local and central together are within the bound", "broken",
                 ("1,700 items cached, the bound is 1,536", NASTY))
NOT_CHECKED = Verdict("reuse", "nothing is made while something is cached", "not checked",
                      ("live records may pass the limit",))


def result(
    scenario: str, mode: str = "portable", *verdicts: Verdict, design: str = DEFERPOOL, interrupted: bool = False,
    options: Options | None = None, peak: int = 900,
) -> Result:
    """2 s at 3,000,000 operations a second; the curve rises to `peak` in its middle, and the bound is 1,536."""
    ours = design == DEFERPOOL
    plan = Plan(scenario=scenario, threads=4, most_live=10, options=options or Options(seed=7), sizes=(16,),
                mode=mode if ours else "", design=design)
    heights = [100 + at % 7 for at in range(2000)]
    heights[1000] = peak
    return Result(
        plan, seconds=2.0, mode_at_start=mode if ours else "", procs=16 if ours else 0, bound=1536 if ours else None,
        books={"takes": 3_000_000, "gives": 3_000_000, "created": 900, "destroyed": 0, "samples": 2000,
               "peak_cached": peak, "violations": 0, "slack": 64},
        stats={"gets": 3_000_000, "cached": 900, "per_p": [[1], [2]]} if ours else {}, restarts=0,
        curve=[(at / 1000, height, at * 1500) for at, height in enumerate(heights)],
        resident=[40 << 20, 41 << 20], notes=["5 things happened"], interrupted=interrupted, verdicts=list(verdicts),
    )


def report(
    results: Sequence[Result], shard: Shard | None = None, *, seed: int = 7, lost: Sequence[int] = (),
    machine: str | None = None,
) -> Document:
    """Of a campaign of these runs, or of a shard of it; without the runs of the numbers `lost`."""
    titles = [each.plan.title for each in results]
    own = shard.numbers(len(results)) if shard else range(1, len(results) + 1)
    there = [(number, results[number - 1]) for number in own if number not in lost]
    rerun = f"python -m stress --seed {seed}" + (f" --shard {shard}" if shard else "")
    made = document.campaign(Options(seed=seed), rerun, shard, titles, there,
                             datetime(2026, 11, 25, 12, 0, shard.index if shard else 0, tzinfo=timezone.utc), 4.25)
    if machine is not None:
        made["machine"] = {"processor": machine}
    return made


def every_outcome() -> list[Result]:
    return [
        result("churn", "sections", HELD, NOT_CHECKED),
        result("churn", "portable", HELD, BROKEN, NOT_CHECKED, peak=1700),
        result("migrate", "", HELD, design=PER_P, peak=400_000),
        result("migrate", "portable", HELD, Verdict("total-bound", BROKEN.reason, "held"), interrupted=True),
    ]


def all_held() -> list[Result]:
    return [result(scenario, mode, HELD) for scenario in ("migrate", "churn", "burst", "fork")
            for mode in ("sections", "portable")]
