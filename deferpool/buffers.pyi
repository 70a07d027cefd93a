from collections.abc import Iterable
from types import TracebackType
from typing import Any, SupportsIndex, final

from deferpool._block import Block
from deferpool._pool import ItemPool
from deferpool._sched import Sched

@final
class Buffer(Block):
    @property
    def pool(self) -> BufferPool: ...
    def release(self) -> None: ...
    def __len__(self) -> int: ...
    def __enter__(self) -> Buffer: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...

@final
class BufferPool(ItemPool):
    def __init__(
        self,
        classes: Iterable[SupportsIndex] = (4096, 16384, 65536, 262144, 1048576),
        *,
        cap: SupportsIndex | None = None,
        limit: SupportsIndex | None = ...,
        limit_bytes: SupportsIndex | None = ...,
        zero: bool = False,
        sched: Sched | None = None,
        debug: bool | None = None,
        allocator: object = None,
    ) -> None: ...
    @property
    def classes(self) -> tuple[int, ...]: ...
    @property
    def caps(self) -> tuple[int, ...]: ...
    @property
    def limit_bytes(self) -> int | None: ...
    @property
    def zero(self) -> bool: ...
    @property
    def debug(self) -> bool: ...
    def get(self, n: SupportsIndex, /) -> Buffer: ...
    def stats(self) -> dict[str, Any]: ...
