import sys
from collections.abc import Iterable
from typing import SupportsIndex, final

from deferpool._pool import ItemPool
from deferpool._sched import Sched

if sys.version_info >= (3, 12):
    from collections.abc import Buffer
else:
    from typing_extensions import Buffer

ABI: int

@final
class Record(Buffer):
    @property
    def pool(self) -> RecordPool: ...
    @property
    def size(self) -> int: ...
    @property
    def address(self) -> int | None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

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
    def new(self, size: SupportsIndex) -> Record: ...
    def free(self, record: Record) -> None: ...
