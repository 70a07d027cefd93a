"""Pools as people write them: each broken one looks at something and then acts on what may no longer be so."""
from __future__ import annotations

import threading
from typing import Any

LIMIT = 2  # so empty or full every other time


class LookThenPop:
    """The last item can go between the look and the pop."""

    def __init__(self) -> None:
        self.free: list[object] = []

    def get(self) -> object:
        if self.free:
            return self.free.pop()
        return object()

    def put(self, item: object) -> None:
        if len(self.free) < LIMIT:
            self.free.append(item)


class LookThenRemove(LookThenPop):
    """Two callers can look at the same item before either has removed it."""

    def get(self) -> object:
        if not self.free:
            return object()
        item = self.free[-1]
        self.free = self.free[:-1]
        return item


class Counted(LookThenPop):
    """The count is read, and written back: two callers can write the same one."""

    def __init__(self) -> None:
        self.slots: list[object] = [object() for _ in range(LIMIT)]
        self.count = LIMIT

    def get(self) -> object:
        count = self.count
        if count == 0:
            return object()
        self.count = count - 1
        return self.slots[count - 1]

    def put(self, item: object) -> None:
        count = self.count
        if count < LIMIT:
            self.slots[count] = item
            self.count = count + 1


class LooseBound(LookThenPop):
    """No item has two owners, but all who see room at once put theirs there. Tells its figures."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0

    def put(self, item: object) -> None:
        super().put(item)
        self.peak = max(self.peak, len(self.free))

    def get(self) -> object:
        try:
            return self.free.pop()
        except IndexError:
            return object()

    def stats(self) -> dict[str, Any]:
        cached = len(self.free)
        return {"cached": cached, "central": cached, "peak_cached": self.peak, "per_p": [], "bound": LIMIT}


class LockedWrong(LookThenPop):
    """Each step is locked, but not both together."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def get(self) -> object:
        with self.lock:
            some = bool(self.free)
        if some:
            with self.lock:
                return self.free.pop()
        return object()


class Right(LooseBound):
    """One lock around look and act."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def get(self) -> object:
        with self.lock:
            return self.free.pop() if self.free else object()

    def put(self, item: object) -> None:
        with self.lock:
            super().put(item)
