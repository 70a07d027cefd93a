from collections.abc import Iterable
from typing import SupportsIndex, final

from deferpool._block import Block
from deferpool._face import ItemPool
from deferpool._sched import Sched

ABI: int

@final
class Record(Block):
    @property
    def pool(self) -> RecordPool: ...

@final
class RecordPool(ItemPool):
    def __init__(
        self,
        sizes: Iterable[SupportsIndex] = (16, 32, 48, 64, 80),
        *,
        cap: SupportsIndex = 32,
        limit: SupportsIndex | None = ...,
        sched: Sched | None = None,
        debug: bool | None = None,
        allocator: object = None,
        name: str | None = None,
        clear_on_gc: bool = True,
    ) -> None: ...
    @property
    def sizes(self) -> tuple[int, ...]: ...
    @property
    def debug(self) -> bool: ...
    def new(self, size: SupportsIndex, /) -> Record: ...
    def free(self, record: Record, /) -> None: ...
