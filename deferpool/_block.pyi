import sys

from deferpool._face import ItemPool

if sys.version_info >= (3, 12):
    from collections.abc import Buffer
else:
    from typing_extensions import Buffer

class Block(Buffer):
    @property
    def pool(self) -> ItemPool: ...
    @property
    def size(self) -> int: ...
    @property
    def address(self) -> int | None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
