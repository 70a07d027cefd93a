"""The pytest plugin: fixture `hammer`, marker `hammer`, fixture `hammer_worker`, option --hammer-seed.

One seed serves the whole session; it stands in the header, and in each failure with the line that repeats it. Under
pytest-xdist the workers get the controller's. pytest-run-parallel is asked not to run the same tests in parallel: two
kinds of threads around one body would be neither.
"""
from __future__ import annotations

import functools
import os
import random
import shlex
import unittest
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from deferpool.testing import Hammer, Worker

MARKER = (
    "hammer(threads=8, seconds=1.0, calls=None, timeout=60.0, yields=None): calls the test's body again and again from "
    "so many threads at once, with the same fixtures; see deferpool.testing.hammer. Beside thread_unsafe: called once."
)
ARGUMENTS = {"threads", "seconds", "calls", "timeout", "yields"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("deferpool").addoption(
        "--hammer-seed", type=int, default=None, metavar="N",
        help="seed of the tests that hammer; drawn, and shown in the header, if not given",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    if config.option.hammer_seed is None:
        given = getattr(config, "workerinput", {}).get("hammer_seed")
        config.option.hammer_seed = random.SystemRandom().randrange(1 << 32) if given is None else given


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """pytest-xdist: what the controller tells a worker."""
    node.workerinput["hammer_seed"] = node.config.option.hammer_seed


def pytest_report_header(config: pytest.Config) -> str:
    return f"hammer: --hammer-seed={config.option.hammer_seed}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.pluginmanager.hasplugin("run-parallel"):
        for item in items:
            if _hammers(item):
                item.add_marker(pytest.mark.parallel_threads(1), append=False)
                item.add_marker(pytest.mark.iterations(1), append=False)  # for these, too, it makes a thread


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuses what would quietly run once, or mean something else than it says."""
    marker = item.get_closest_marker("hammer")
    if marker is None:
        if "hammer_worker" in getattr(item, "fixturenames", ()):
            pytest.fail("hammer_worker is for tests marked with hammer; use the argument of the function that you "
                        "hammer", pytrace=False)
        return
    unknown = sorted(set(marker.kwargs) - ARGUMENTS)
    if unknown or marker.args:
        wrong = [repr(each) for each in marker.args] + unknown
        known = ", ".join(sorted(ARGUMENTS))
        pytest.fail(f"the marker hammer takes {known} by name, not {', '.join(wrong)}", pytrace=False)
    if not isinstance(item, pytest.Function) or (item.cls is not None and issubclass(item.cls, unittest.TestCase)):
        pytest.fail("the marker hammer works on test functions and methods, not on unittest's or others", pytrace=False)
    if "hammer" in item.fixturenames:
        pytest.fail("a test marked with hammer runs in many threads: it cannot use the fixture hammer", pytrace=False)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object:
    """Runs a marked test from many threads; others are none of this plugin's business."""
    __tracebackhide__ = True
    marker = pyfuncitem.get_closest_marker("hammer")
    if marker is None or pyfuncitem.get_closest_marker("thread_unsafe") is not None:
        return None
    from deferpool.testing import hammer
    from deferpool.testing._hammer import refuse_deferred

    body = pyfuncitem.obj
    refuse_deferred(body)
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}

    def call(worker: Worker) -> None:
        __tracebackhide__ = True
        body(**arguments)

    def call_with_own(worker: Worker) -> None:
        """Arguments that differ by thread, ours and those of pytest-run-parallel."""
        __tracebackhide__ = True
        values = {"hammer_worker": worker, "thread_index": worker.thread, "iteration_index": worker.calls,
                  "num_parallel_threads": worker.threads}
        body(**{**arguments, **{name: value for name, value in values.items() if name in own}})

    own = arguments.keys() & OWN
    hammer(call_with_own if own else call, seed=pyfuncitem.config.option.hammer_seed, **marker.kwargs)
    return True


OWN = {"hammer_worker", "thread_index", "iteration_index", "num_parallel_threads"}


@pytest.fixture
def hammer(request: pytest.FixtureRequest) -> Hammer:
    """deferpool.testing.hammer with the session's seed."""
    from deferpool.testing import hammer as run

    return functools.partial(run, seed=request.config.option.hammer_seed)


@pytest.fixture
def hammer_worker() -> Worker | None:
    """In a test marked with hammer: the Worker of the thread that calls the body (None where it is called once)."""
    return None


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    outcome = yield
    if call.excinfo is None or call.when != "call" or not _hammers(item):
        return
    report = outcome.get_result()
    if report.failed:
        seed = item.config.option.hammer_seed
        report.sections.append(("hammer", f"again: pytest {shlex.quote(_as_argument(item))} --hammer-seed={seed}"))


def _as_argument(item: pytest.Item) -> str:
    """Its node ID, as it is told where pytest was started: the ID itself begins at the root directory."""
    file, _, rest = item.nodeid.partition("::")
    path = item.config.rootpath / file
    try:
        return f"{os.path.relpath(path, item.config.invocation_params.dir)}::{rest}"
    except ValueError:  # on another drive
        return f"{path}::{rest}"


def _hammers(item: pytest.Item) -> bool:
    return item.get_closest_marker("hammer") is not None or "hammer" in getattr(item, "fixturenames", ())
