"""One part of a campaign, for machines that share the work: which of the numbered runs are its own."""
from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 1) of `of`."""

    index: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From "2/3". ValueError says what is wrong."""
        index, slash, of = text.partition("/")
        if not (slash and index.isdecimal() and of.isdecimal() and index.isascii() and of.isascii()):
            raise ValueError(f"{text!r} is not a part of the whole, as 1/3 is")
        if not 1 <= int(index) <= int(of) <= 10_000:
            raise ValueError(f"{text!r}: the part is from 1 to the number of parts, which is at most 10,000")
        return cls(int(index), int(of))

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    def numbers(self, runs: int) -> list[int]:
        """Which of the runs 1 to `runs` are this part's. The parts differ by one run at most.

        Dealt out to and fro, as 1 2 3 3 2 1: runs that stand together are of one scenario, and as long, and they
        alternate between the modes; so each part gets some of each.
        """
        there, back = self.index - 1, 2 * self.of - self.index
        return [at + 1 for at in range(runs) if at % (2 * self.of) in (there, back)]
