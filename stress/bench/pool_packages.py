"""Pools from PyPI to be timed against: those of connections, here of plain objects. make bench installs them."""
from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any


@dataclass(frozen=True)
class Package:
    """`make`: a pool of so many objects of a class, all in it; raises what the package raises that cannot be had here.

    `take` and `give`: the calls, of a `pool` and of the object `x` that it gave.
    """

    name: str
    make: Callable[[Callable[[], object], int], object]
    take: str
    give: str


def _sqlalchemy(new: Callable[[], object], count: int) -> object:
    pool = importlib.import_module("sqlalchemy.pool").QueuePool(new, pool_size=count, max_overflow=0,
                                                                reset_on_return=None)
    for taken in [pool.connect() for _ in range(count)]:
        taken.close()
    return pool


def _dbutils(new: Callable[[], object], count: int) -> object:
    """It makes them all when it is made itself."""
    api = SimpleNamespace(threadsafety=1, connect=new)
    return importlib.import_module("dbutils.simple_pooled_db").PooledDB(api, count)


def _generic(new: Callable[[], object], count: int) -> object:
    module: Any = importlib.import_module("generic_connection_pool.threading")

    class Manager(module.BaseConnectionManager):  # type: ignore[misc]
        def create(self, endpoint: object, timeout: float | None = None) -> object:
            return new()

        def dispose(self, endpoint: object, conn: object, timeout: float | None = None) -> None:
            pass

    pool = module.ConnectionPool(Manager(), min_idle=count, max_size=count, total_max_size=count)
    for taken in [pool.acquire(0) for _ in range(count)]:
        pool.release(taken, 0)
    return pool


PACKAGES = (
    Package("SQLAlchemy's QueuePool", _sqlalchemy, "pool.connect()", "x.close()"),
    Package("DBUtils' PooledDB", _dbutils, "pool.connection()", "x.close()"),
    Package("generic-connection-pool", _generic, "pool.acquire(0)", "pool.release(x, 0)"),
)
