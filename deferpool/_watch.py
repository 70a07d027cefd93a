"""What a pool in debug mode knows of its objects: which are out, since where, and what was done wrong with them.

Known by address; a weak reference, where the object can have one, tells when one is lost.
"""
from __future__ import annotations

import sys
import warnings
import weakref
from collections import Counter
from dataclasses import dataclass


@dataclass
class _Seen:
    out: bool
    place: str  # where that was done, as "file:line"
    references: int  # that it had when it was made, to itself for instance
    weak: weakref.ref[object] | None


class Watch:
    """The objects of one pool. Its methods are called from compiled code, so the frame above is the user's."""

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self._known: dict[int, _Seen] = {}

    def taken(self, obj: object, new: bool) -> None:
        """It goes out. Warns when somebody has kept it after its release."""
        address = id(obj)
        references = sys.getrefcount(obj)
        seen = self._known.get(address)
        if new or seen is None:
            if seen is not None:
                self._lost(seen)
            self._known[address] = _Seen(True, _place(), references, self._weak(obj))
            return
        if references > seen.references:
            warnings.warn(f"{obj!r} of {self._pool} is still used after its release at {seen.place}: "
                          f"{references - seen.references} more references to it than when it was made",
                          RuntimeWarning, stacklevel=2)
        seen.out, seen.place = True, _place()

    def given(self, obj: object) -> None:
        """It comes back. ValueError when it is not out."""
        seen = self._known.get(id(obj))
        if seen is None:
            raise ValueError(f"{obj!r} is no object of {self._pool}")
        if not seen.out:
            raise ValueError(f"{obj!r} of {self._pool} is released twice: it was at {seen.place}")
        seen.out, seen.place = False, _place()

    def dropped(self, obj: object) -> None:
        """It has left for good."""
        self._known.pop(id(obj), None)

    def places(self) -> dict[str, int]:
        """How many objects are out since where."""
        return dict(Counter(seen.place for seen in list(self._known.values()) if seen.out))

    def report(self) -> None:
        """The pool ends: what is out now will hardly be released any more."""
        for seen in list(self._known.values()):
            if seen.out:
                self._lost(seen)
        self._known.clear()

    def _weak(self, obj: object) -> weakref.ref[object] | None:
        address, known, lost = id(obj), self._known, self._lost

        def gone(_: weakref.ref[object]) -> None:
            seen = known.pop(address, None)
            if seen is not None and seen.out:
                lost(seen)

        try:
            return weakref.ref(obj, gone)
        except TypeError:
            return None

    def _lost(self, seen: _Seen) -> None:
        warnings.warn(f"an object of {self._pool} was never released: acquired at {seen.place}",
                      ResourceWarning, stacklevel=3)


def _place() -> str:
    frame = sys._getframe(2)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
