"""The standard library's own tests of both stacks, from this interpreter's copy, with ours swapped in."""
from __future__ import annotations

import json
import subprocess
import sys

import pytest
from helpers import ROOT

# Tests that are not met, and why.
NOT_MET = {
    "test_exit_exception_traceback": "it spells out contextlib's own lines in the traceback; we have fewer, or none",
}

RUN = """
import contextlib, importlib, io, json, sys, unittest
import deferpool
contextlib.ExitStack, contextlib.AsyncExitStack = deferpool.ExitStack, deferpool.AsyncExitStack
try:
    module = importlib.import_module(f"test.{sys.argv[1]}")
except ModuleNotFoundError as error:
    print(json.dumps({"missing": str(error)}))
    sys.exit()
suite = unittest.TestSuite()
for name, cases in list(vars(module).items()):
    if isinstance(cases, type) and issubclass(cases, unittest.TestCase) and "ExitStack" in name:
        stack = cases("run").exit_stack if hasattr(cases, "exit_stack") else deferpool.ExitStack
        assert issubclass(stack, (deferpool.ExitStack, deferpool.AsyncExitStack)), stack
        suite.addTests(unittest.defaultTestLoader.loadTestsFromTestCase(cases))
result = unittest.TextTestRunner(stream=io.StringIO()).run(suite)
failed = {case.id().rpartition(".")[2]: text for case, text in (*result.errors, *result.failures)}
print(json.dumps({"run": result.testsRun, "failed": failed, "skipped": len(result.skipped)}))
"""


@pytest.mark.parametrize(("module", "least"), [("test_contextlib", 20), ("test_contextlib_async", 20)])
def test_the_standard_librarys_own(module: str, least: int) -> None:
    done = subprocess.run([sys.executable, "-c", RUN, module], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    if "missing" in result:
        pytest.skip(f"this Python was built without its test modules: {result['missing']}")
    assert result["run"] - result["skipped"] >= least
    assert set(result["failed"]) == set(NOT_MET), "\n".join(result["failed"].values())
