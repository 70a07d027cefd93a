"""Checked: a pool with a record of who has what. Finds an object with two owners, wrong releases, what never came back.

one-owner, seen from outside. The record is one dict operation after the pool's acquire and one before its release, on
a dict that few other objects share: threads meet there only when they have the same object, which is what is looked
for. No lock is held while the pool works, so its races stay as open as they are.

    acquire:  item = pool.acquire()    | stripe.setdefault(key, taking): another's taking there means two owners
    release:  stripe.pop(key)          | pool.release(item): from here on another thread may rightly get it

A doubled hand-out escapes if the first owner has given the object back before the second one's is recorded; such a
pool has the object twice from then on, so it is found later.
"""
from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Any, Generic, NoReturn, TypeVar, overload

from deferpool.testing._switching import HERE

T = TypeVar("T")
STRIPES = 64
REMEMBERED = 4_096  # releases, for messages
TOLD = 8
NAMES = (("acquire", "release"), ("get", "put"), ("new", "free"), ("getconn", "putconn"))


class OwnershipError(AssertionError):
    """An object had two owners, or none, or was never given back. Says which, and where it was taken and given back."""


class Place:
    """Which thread, and which line of whose code (the first caller outside this package). Text only when it is told."""

    __slots__ = ("thread", "code", "line")

    def __init__(self) -> None:
        frame = sys._getframe(2)
        while frame.f_back is not None and frame.f_code.co_filename.startswith(HERE):
            frame = frame.f_back
        self.thread = threading.current_thread().name
        self.code = frame.f_code
        self.line = frame.f_lineno

    def __str__(self) -> str:
        return f"in {self.thread} at {self.code.co_filename}:{self.line} ({self.code.co_name})"


class Taking:
    """One hand-out. It keeps the object alive, and so its id from meaning another, until it is given back."""

    __slots__ = ("item", "key", "what", "taken", "returned")

    def __init__(self, item: object, key: Hashable, taken: Place) -> None:
        self.item: object = item
        self.key = key
        self.what = type(item).__name__
        self.taken = taken
        self.returned: Place | None = None


class Checked(Generic[T]):
    """Wraps a pool; `acquire` and `release` take the same arguments as the pool's own and pass them on:

        checked = Checked(pool)                          # with acquire/release, get/put, new/free or getconn/putconn
        checked = Checked(pool.borrow, pool.hand_back)   # with any other names
        with checked:
            item = checked.acquire()
            checked.release(item)

    Parameters:
        key: tells one item from another; the object's identity if None, so items need not be hashable. Where a
            pool wraps the same thing in new objects, say what the thing is: `Checked(pool, key=lambda record:
            record.address)`. It must stay the same while the item is out.

    The pool's own names work too (`checked.get()`), and its other attributes (`checked.stats()`). An acquire that
    returns None has handed out nothing. An item may be given back by another thread than took it. `close()`, or the
    end of the `with` block unless by an exception, raises for what is still out, and for a fault that was raised
    before and caught.

    Thread-safe, on free-threaded Python too. Raises OwnershipError; a wrong release is not passed on to the pool. Where
    the pool's own release raises, the item counts as out as before, unless it has been handed out again by then.
    """

    @overload
    def __init__(self: Checked[Any], pool: object, /, *, key: Callable[[Any], Hashable] | None = None) -> None: ...
    @overload
    def __init__(
        self, acquire: Callable[..., T], release: Callable[..., object], /, *,
        key: Callable[[Any], Hashable] | None = None,
    ) -> None: ...

    def __init__(
        self, pool: Any, release: Callable[..., object] | None = None, /, *,
        key: Callable[[Any], Hashable] | None = None,
    ) -> None:
        self._pool: Any = None
        self._names = ("acquire", "release")
        if release is None:
            self._pool = pool
            self._names = _names(pool)
            acquire, release = (getattr(pool, name) for name in self._names)
        else:
            acquire = pool
        for name, function in (("acquire", acquire), ("release", release)):
            if not callable(function):
                raise TypeError(f"{name} must be a function, not {function!r}")
        self._acquire: Callable[..., T] = acquire
        self._release: Callable[..., object] = release
        self._key: Callable[[Any], Hashable] = id if key is None else key
        self._out: tuple[dict[Hashable, Taking], ...] = tuple({} for _ in range(STRIPES))
        self._returned: list[Taking | None] = [None] * REMEMBERED
        self._faults: list[str] = []

    def acquire(self, *args: Any, **kwargs: Any) -> T:
        """An item from the pool. Raises OwnershipError if somebody has it already."""
        item = self._acquire(*args, **kwargs)
        if item is None:
            return item
        key = self._key(item)
        taking = Taking(item, key, Place())
        before = self._stripe(key).setdefault(key, taking)
        if before is not taking:
            self._fault(
                f"one {taking.what} was handed out twice (key {_name(key)}): taken {before.taken}, "
                f"and, before it was given back, {taking.taken}"
            )
        return item

    def release(self, item: T, *args: Any, **kwargs: Any) -> Any:
        """Gives the item back; returns what the pool's release does. Raises OwnershipError if it is not out."""
        key = self._key(item)
        stripe = self._stripe(key)
        taking = stripe.pop(key, None)
        if taking is None:
            self._fault(f"{self._not_out(item, key)}; given back {Place()}")
        taking.returned = Place()
        try:
            given = self._release(item, *args, **kwargs)
        except BaseException:
            taking.returned = None
            stripe.setdefault(key, taking)
            raise
        taking.item = None
        self._returned[hash(key) // 16 % REMEMBERED] = taking
        return given

    @property
    def out(self) -> int:
        """How many items are out now."""
        return sum(map(len, self._out))

    def close(self) -> None:
        """Raises OwnershipError for what is still out, and for a fault that was caught. Call it at rest."""
        told = list(self._faults[:TOLD])
        left = [taking for stripe in self._out for taking in list(stripe.values())]
        if left:
            lines = [f"{len(left):,} never given back:"]
            lines += [f"    {taking.what} (key {_name(taking.key)}), taken {taking.taken}" for taking in left[:TOLD]]
            lines += [f"    and {len(left) - TOLD:,} more"] * (len(left) > TOLD)
            told.append("\n".join(lines))
        if told:
            raise OwnershipError("\n".join(told))

    def __enter__(self) -> Checked[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no {name!r}")
        if name in self._names:
            return self.acquire if name == self._names[0] else self.release
        if self._pool is None:
            raise AttributeError(f"{type(self).__name__} of two functions has no {name!r}")
        return getattr(self._pool, name)

    def _stripe(self, key: Hashable) -> dict[Hashable, Taking]:
        return self._out[hash(key) // 16 % STRIPES]  # the low bits of an address tell nothing

    def _not_out(self, item: object, key: Hashable) -> str:
        last = self._returned[hash(key) // 16 % REMEMBERED]
        what = f"a {type(item).__name__} (key {_name(key)})"
        if last is None or last.key != key:
            return f"{what} was given back that is not out"
        return f"{what} was given back that is not out; last taken {last.taken}, and given back {last.returned}"

    def _fault(self, text: str) -> NoReturn:
        __tracebackhide__ = True
        self._faults.append(text)
        raise OwnershipError(text)


def _names(pool: object) -> tuple[str, str]:
    for pair in NAMES:
        if all(callable(getattr(pool, name, None)) for name in pair):
            return pair
    raise TypeError(
        f"{pool!r} has none of {', '.join('/'.join(pair) for pair in NAMES)}; "
        "give its two functions: Checked(acquire, release)"
    )


def _name(key: Hashable) -> str:
    return hex(key) if isinstance(key, int) else repr(key)
