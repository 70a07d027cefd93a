"""What a pool in debug mode knows of its objects: which are out, since where, and what was done wrong with them.

Objects are known by address; a weak reference, where one can have one, tells when it is lost. The collector tells so
too early: before finalizers, which may give it back still. What it finds is lost if it is not back when the collection
is over. While an object rests in the pool it is of another class, if it is of one that Python lets it leave: one whose
every method raises.
"""
from __future__ import annotations

import sys
import warnings
import weakref
from abc import ABCMeta
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from deferpool._sched import after_collection


@dataclass
class _Seen:
    out: bool
    place: str  # where that was done, as "file:line"
    weak: weakref.ref[object] | None
    awake: type | None = None  # its class, while it is of another
    found: bool = False  # the collector is about to end it, unless somebody keeps it


class Watch:
    """The objects of one pool. Its methods are called from compiled code, so the frame above is the user's."""

    def __init__(self, pool: str, out: set[int]) -> None:
        self._pool = pool
        self._out = out  # the pool's own: by address
        self._known: dict[int, _Seen] = {}
        self._resting: dict[type, type | None] = {}  # and what their objects are while they rest; None: they cannot be
        self._told, self._warn = _used_after_release, warnings.warn  # found even when this module has lost its names

    def taken(self, obj: object, new: bool) -> None:
        """It goes out."""
        seen = self._known.get(id(obj))
        if new or seen is None:
            if seen is not None and seen.out:
                self.lost(seen)
            self._known[id(obj)] = _Seen(True, _place(), self._weak(obj))
        else:
            seen.out, seen.place = True, _place()
            self._kept(obj, seen)

    def given(self, obj: object) -> None:
        """It comes back, and was out."""
        seen = self._known.get(id(obj))
        if seen is not None:
            seen.out, seen.place = False, _place()
            self._kept(obj, seen)

    def why_not(self, obj: object) -> str:
        """It was not out."""
        seen = self._known.get(id(obj))
        if seen is None:
            return f"{named(obj)} is no object of {self._pool}"
        return f"{named(obj)} of {self._pool} is released twice: it was at {seen.place}"

    def rests(self, obj: Any) -> None:
        """It is about to be cached."""
        seen = self._known.get(id(obj))
        if seen is None:
            return
        cls = type(obj)
        if cls not in self._resting:
            self._resting[cls] = _resting_class(cls)
        resting = self._resting[cls]
        if resting is not None:
            self._told[id(obj)] = f"this {cls.__qualname__} of {self._pool} was released at {seen.place}"
            seen.awake = cls  # before it is so: a signal's handler may raise in between
            try:
                object.__setattr__(obj, "__class__", resting)  # whatever its own __setattr__ says of that
            except TypeError:  # of a class whose objects stay what they are; do not ask again: it can stop all threads
                self._resting[cls] = seen.awake = None
                del self._told[id(obj)]

    def wakes(self, obj: Any) -> None:
        """It leaves the caches."""
        seen = self._known.get(id(obj))
        if seen is not None and seen.awake is not None:
            object.__setattr__(obj, "__class__", seen.awake)
            seen.awake = None
            self._told.pop(id(obj), None)

    def dropped(self, obj: object) -> None:
        """It leaves for good."""
        self.wakes(obj)
        self._known.pop(id(obj), None)

    def places(self) -> dict[str, int]:
        """How many objects are out since where."""
        return dict(Counter(seen.place for seen in list(self._known.values()) if seen.out))

    def still_out(self) -> list[_Seen]:
        """And nothing is known any more."""
        found = [seen for seen in list(self._known.values()) if seen.out]
        self._known.clear()
        return found

    def _weak(self, obj: object) -> weakref.ref[object] | None:
        address, known, out, lost, later = id(obj), self._known, self._out, self.lost, after_collection

        def gone(weak: weakref.ref[object]) -> None:
            seen = known.get(address)
            if seen is None or seen.weak is not weak:
                return
            if not seen.found and later(lambda: gone(weak)):
                seen.found = True
                return
            del known[address]
            if seen.out:
                out.discard(address)
                lost(seen)

        try:
            return weakref.ref(obj, gone)
        except TypeError:
            return None

    def _kept(self, obj: object, seen: _Seen) -> None:
        """The collector had found it, but a finalizer has used it: its weak reference is no more."""
        if seen.found:
            seen.found = False
            seen.weak = self._weak(obj)

    def weak(self, address: int) -> weakref.ref[object] | None:
        """To what is known to lie there."""
        seen = self._known.get(address)
        return seen.weak if seen is not None else None

    def lost(self, seen: _Seen) -> None:
        self._warn(f"an object of {self._pool} was never released: acquired at {seen.place}",
                   ResourceWarning, stacklevel=3)


def _place() -> str:
    try:
        frame = sys._getframe(2)
    except ValueError:  # called by no Python code: by a new thread, at exit
        return "nowhere in Python"
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def named(obj: object) -> str:
    """Its repr, for a message; that of any object, when its own fails."""
    try:
        return repr(obj)
    except Exception:
        return object.__repr__(obj)


# ---- classes of objects that rest --------------------------------------------------------------------------------

_used_after_release: dict[int, str] = {}  # by address: what to say of it
_HARMLESS = {"__class__", "__class_getitem__", "__del__", "__dict__", "__init__", "__init_subclass__", "__module__",
             "__new__", "__repr__", "__slots__", "__subclasshook__", "__weakref__"}
_EVERY_USE = ("__getattribute__", "__setattr__", "__delattr__")


def _resting_class(cls: type) -> type | None:
    """A subclass whose objects can do nothing; None where there cannot be one, or somebody would hear of it."""
    if type(cls) not in (type, ABCMeta) or any("__init_subclass__" in vars(base) for base in cls.__mro__[:-1]):
        return None
    named = {name for base in cls.__mro__[:-1] for name in vars(base) if name[:2] == name[-2:] == "__"} - _HARMLESS
    methods = {name for name in named if callable(getattr(cls, name, None))}
    body: dict[str, object] = {name: _refuse(name) for name in (*methods, *_EVERY_USE)}
    body |= {"__slots__": (), "__repr__": object.__repr__, "__module__": cls.__module__}
    if hasattr(cls, "__del__"):
        body["__del__"] = _ended_awake(cls)
    try:
        return type(cls)(f"Released{cls.__name__}", (cls,), body)
    except Exception:  # of a final class
        return None


def _refuse(name: str) -> Callable[..., NoReturn]:
    def used(self: object, *_: object, **__: object) -> NoReturn:
        raise RuntimeError(f"used after its release: {_used_after_release.get(id(self), 'an object of a pool')}")

    used.__name__ = name
    return used


def _ended_awake(cls: type) -> Callable[[Any], None]:
    def __del__(self: Any) -> None:
        """The collector may find it before the pool in which it rests."""
        object.__setattr__(self, "__class__", cls)
        self.__del__()

    return __del__
