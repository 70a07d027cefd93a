from collections.abc import Sequence

from stress._fibers import Controller

class World(Controller):
    def __init__(
        self,
        threads: Sequence[tuple[Sequence[tuple[str, int]], Sequence[tuple[str, int]]]],
        procs: int,
        cpus: int,
        numbers: int,
        sizes: Sequence[int],
        cap: int,
        limit: int | None,
        sections: bool,
        tallies: bool,
        caps: Sequence[int],
        weights: Sequence[int],
    ) -> None: ...
    def explain(self) -> str | None: ...
    def name_of(self, address: int) -> str: ...
    def count_in_word(self, word: int) -> int: ...
