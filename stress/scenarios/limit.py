"""limit: bursts against a central pool without room, with little, and with more than enough: 0, 64 and 100,000 records.

It is what people choose who count every byte, and what they choose who forgot to. Whatever the limit, what it turns
away goes to the allocator; nothing is lost and nothing stays beyond it.
"""
from __future__ import annotations

from dataclasses import replace

from stress.plan import Options, Plan
from stress.scenarios import burst

LIMITS = (0, 64, 100_000)
SECONDS = 1.0


def plans(options: Options) -> list[Plan]:
    limits = LIMITS if options.limit is None and not options.no_limit else (options.limit,)
    return [
        replace(plan, scenario="limit", usual_limit=limit, label="none" if limit is None else f"{limit:,}",
                seconds=plan.seconds and (options.seconds or SECONDS))
        for limit in limits for plan in burst.plans(options)
    ]
