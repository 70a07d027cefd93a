"""Concurrency tests for your own CI: threads that hammer a function, and checks that find a pool with a race.

Nothing here needs a deferpool pool, or pytest; with pytest there are a fixture and a marker, both named `hammer`.
"""

from deferpool.testing._checked import Checked, OwnershipError
from deferpool.testing._crew import Crew, Failure, stacks
from deferpool.testing._figures import HasStats, assert_bounded, assert_conserved
from deferpool.testing._hammer import Hammer, HammerResult, Hung, Worker, hammer

__all__ = [
    "Checked", "Crew", "Failure", "Hammer", "HammerResult", "HasStats", "Hung", "OwnershipError", "Worker",
    "assert_bounded", "assert_conserved", "hammer", "stacks",
]
