from typing import Any

import deferpool
from stress._baselines import Unbounded
from stress._designs import Face
from stress._ledger import Ledger

SCALE: int

def living_cells() -> int: ...

class Cell:
    size: int
    def __init__(self, ledger: Ledger) -> None: ...
    @property
    def address(self) -> int: ...

class Objects(Face):
    def __init__(self, ledger: Ledger, *, cap: int, limit: int | None, sched: deferpool.Sched) -> None: ...
    def new(self, size: int) -> Cell: ...
    def free(self, cell: Cell) -> None: ...

class Buffers(Face):
    def __init__(
        self, sizes: tuple[int, ...], ledger: Ledger, *, cap: int, limit: int | None, sched: deferpool.Sched
    ) -> None: ...

class LocalLists(Unbounded):
    def new(self, size: int) -> Cell: ...
    def free(self, cell: Cell) -> None: ...
    here: Any
