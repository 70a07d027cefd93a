"""Test suites of real projects with deferpool's exit stacks in the place of contextlib's: must change no outcome.

    python -m stress.swapped [--keep DIR] [project ...]

Each project's suite, from its source distribution, runs twice in one virtual environment: as it is, and with the two
classes of contextlib replaced in every interpreter of that environment before anything else is imported, those that the
tests start themselves included. Then each test's outcome is compared. Some tests fail here and there (they want a
network, IPv6, or not to be root); that is nothing to worry about while they fail both ways.

Takes about ten minutes for all on two cores, installing included. Python 3.11 or later. All versions are pinned, so
another outcome is deferpool's doing. Exits 1 if any outcome differs, if tests are missing, or if the swap was not in
force.
"""
from __future__ import annotations

import argparse
import inspect
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
NOT_SOURCES = shutil.ignore_patterns(".git", ".venv", "build", "dist", "*.so", "*.egg-info", "__pycache__")
WORDS = {"failure": "failed", "error": "error", "skipped": "skipped"}  # JUnit's, and pytest's
TIMEOUT = 900  # seconds for one run of one suite; the slowest takes about 150
COLUMNS = {  # and their widths, negative: to the left
    "project": -10, "version": -8, "tests": 6, "passed": 7, "failed both": 12, "differing": 10,
    "stacks before": 14, "stacks of ours": 15, "seconds": 8, "swapped": 8,
}


class Trouble(Exception):
    """Why nothing can be said about a project; not a difference between the runs."""


@dataclass(frozen=True)
class Project:
    """A project that leans on exit stacks, and how its own developers run its tests."""

    name: str
    version: str
    least: int  # tests that ran when this was written, so that a suite that shrinks is seen
    requirements: str  # with extras; versions are in PINNED
    tests: str = "tests"
    options: str = ""
    path: str = ""  # PYTHONPATH, from the folder of the sources
    holders: tuple[str, ...] = ()  # modules that do `from contextlib import ...`: they must have got ours


@dataclass
class Run:
    """What one run of a suite has left."""

    outcomes: dict[str, str] = field(default_factory=dict)
    ours: int = 0  # stacks made
    theirs: int = 0
    unswapped: set[str] = field(default_factory=set)  # modules that hold a class of contextlib's own
    swapped: set[str] = field(default_factory=set)  # those that hold one of ours
    fast: bool = True  # counting has left ours as they are
    seconds: float = 0


PROJECTS = [
    Project(
        "starlette", "1.10.0", 1416,
        "starlette[full] httpx2[zstd] blockbuster importlib-metadata opentelemetry-sdk pytest-codspeed trio",
        holders=("anyio.abc._sockets", "anyio.pytest_plugin"),
    ),
    Project(
        "fastapi", "0.165.0", 5289,
        "fastapi[all] opentelemetry-instrumentation-fastapi logfire sentry-sdk python-slugify ruff anyio[trio] "
        "dirty-equals flask inline-snapshot mypy pwdlib[argon2] pyjwt pytest-codspeed sqlmodel strawberry-graphql ty "
        "typer a2wsgi pytest-cov pytest-timeout",
        tests="tests scripts/tests", options="-n 2 --dist loadgroup", path="docs_src",
        holders=("fastapi.routing", "fastapi.dependencies.utils", "fastapi.middleware.asyncexitstack"),
    ),
    Project(
        "mcp", "2.3.0", 6104,
        "mcp[cli] pydantic-settings ruff trio pytest-flakefinder pytest-examples pytest-pretty inline-snapshot "
        "dirty-equals coverage pillow logfire opentelemetry-sdk blockbuster pyyaml zensical mkdocstrings "
        "mkdocstrings-python griffelib",
        options="-n 2", path="examples",
        holders=("mcp.client.client", "anyio.abc._sockets"),
    ),
    Project(  # without IPv6: where there is none, those tests leak sockets, and each fails whatever test is under way
        "anyio", "4.16.0", 3327,
        "anyio[trio] blockbuster coverage hypothesis psutil pytest-mock pytest-timeout trustme truststore uvloop",
        options="-k not(ipv6)",
        holders=("anyio.abc._sockets", "anyio.pytest_plugin", "trio._subprocess"),
    ),
]

PINNED = """
a2wsgi==1.10.10 agent-detector==2.0.0 annotated-doc==0.0.7 annotated-types==0.8.0 anyio==4.16.0 argon2-cffi==25.1.0
argon2-cffi-bindings==26.2.0 asgiref==3.13.0 ast_serialize==0.13.1 asttokens==3.0.2 attrs==26.1.0
backports.zstd==1.8.0 black==26.10.1 blinker==1.9.0 blockbuster==1.5.29 certifi==2026.10.19.post1 cffi==2.1.1
charset-normalizer==3.5.3 click==8.5.1 coverage==7.13.0 cross-web==0.9.0 cryptography==50.0.2 deepmerge==4.0.0
detect-installer==0.2.1 dirty-equals==0.11 dnspython==2.9.2 email-validator==2.4.0 execnet==2.1.2 executing==2.3.0
fastapi==0.165.0 fastapi-cli==0.0.34 fastapi-cloud-cli==0.28.0 fastar==0.12.0 flask==3.1.3 forbiddenfruit==0.1.4
ghp-import==2.1.0 googleapis-common-protos==1.76.0 graphql-core==3.3.2 griffelib==2.1.0 h11==0.16.0 httpcore==1.0.9
httpcore2==2.16.2 httptools==0.9.0 httpx==0.28.1 httpx2==2.16.2 hypothesis==6.170.17 idna==3.20
importlib_metadata==10.2.0 iniconfig==2.3.1 inline-snapshot==0.36.1 itsdangerous==2.2.0 jinja2==3.1.6
jsonschema==4.26.0 jsonschema-specifications==2025.9.1 lazy-importer==0.1.0 librt==0.17.0 logfire==5.4.0
logfire-sdk==5.4.0 markdown==3.11.3 markdown-it-py==4.3.0 markupsafe==3.0.4 mcp==2.3.0 mcp-types==2.3.0 mdurl==0.1.2
mergedeep==1.3.4 mkdocs==1.6.1 mkdocs-autorefs==1.4.5 mkdocs-get-deps==0.2.2 mkdocstrings==1.0.4
mkdocstrings-python==2.0.5 mypy==2.4.1 mypy_extensions==1.2.0 opentelemetry-api==1.45.2
opentelemetry-exporter-http-transport==0.66b2 opentelemetry-exporter-otlp-common==0.66b2
opentelemetry-exporter-otlp-proto-common==1.45.2 opentelemetry-exporter-otlp-proto-http==1.45.2
opentelemetry-instrumentation==0.66b2 opentelemetry-instrumentation-asgi==0.66b2
opentelemetry-instrumentation-fastapi==0.66b2 opentelemetry-proto==1.45.2 opentelemetry-sdk==1.45.2
opentelemetry-semantic-conventions==0.66b2 opentelemetry-util-http==0.66b2 outcome==1.3.0.post0 packaging==26.4
pathspec==1.1.1 pillow==13.0.0 platformdirs==4.14.8 pluggy==1.7.0 protobuf==7.36.2 psutil==7.2.2 pwdlib==0.3.1
pycparser==3.12 pydantic==2.14.4 pydantic-extra-types==2.11.1 pydantic-settings==2.16.3 pydantic_core==2.50.5
pygments==2.21.0 pyjwt==2.15.1 pymdown-extensions==13.1.2 pytest==9.1.1 pytest-codspeed==5.0.4 pytest-cov==7.1.0
pytest-examples==0.0.18 pytest-flakefinder==1.1.0 pytest-mock==3.17.0 pytest-pretty==1.3.0 pytest-timeout==2.4.0
pytest-xdist==3.8.0 python-dateutil==4.0.0 python-dotenv==1.2.4 python-multipart==0.0.34 python-slugify==9.2.0
pytokens==0.4.1 pyyaml==6.0.4 pyyaml_env_tag==1.1 referencing==0.37.0 requests==2.34.2 rich==15.0.0
rich-toolkit==0.20.6 rignore==0.8.1 rpds-py==2026.9.1 ruff==0.16.10 sentry-sdk==2.75.0 shellingham==1.5.4
sniffio==1.3.1 sortedcontainers==2.4.0 sqlalchemy==2.1.9 sqlmodel==0.0.50 sse-starlette==3.7.0 starlette==1.10.0
strawberry-graphql==0.341.2 text-unidecode==1.3 tomli==2.5.0 trio==0.35.0 trustme==1.2.1 truststore==0.10.5
ty==0.0.107 typer==0.29.2 typing-inspection==0.4.5 typing_extensions==4.16.0 tzdata==2026.6 urllib3==2.8.0
uvicorn==0.54.0 uvloop==0.23.0 watchdog==7.1.0 watchfiles==1.3.0 websockets==17.4 werkzeug==3.1.9 wrapt==2.5.2
zensical==0.0.50 zipp==4.1.2
"""


def in_each_interpreter(swap: bool, reports: str) -> None:
    """Runs at the start of each interpreter of a project's environment, from a .pth file: nothing is imported yet.

    Stacks are counted by an __init__ put before the one of each class; no subclass takes part, so that `is`,
    isinstance and the C code see the very classes. Both runs import deferpool and count, to differ in the swap alone.
    """
    import atexit
    import contextlib
    import gc
    import json
    import os
    import sys
    from typing import Any

    import deferpool

    ours: tuple[Any, ...] = (deferpool.ExitStack, deferpool.AsyncExitStack)
    theirs: tuple[Any, ...] = (contextlib.ExitStack, contextlib.AsyncExitStack)
    made = {"ours": 0, "theirs": 0}

    def count(cls: Any, whose: str) -> None:
        init = cls.__init__

        def __init__(self: Any) -> None:
            made[whose] += 1
            init(self)  # **kwargs, though empty, would turn one of ours into contextlib's deque: see is_fast

        cls.__init__ = __init__

    def holders(classes: tuple[Any, ...]) -> list[str]:
        modules = [(name, list(vars(module).values())) for name, module in list(sys.modules.items())
                   if isinstance(module, type(sys)) and name.partition(".")[0] not in ("contextlib", "deferpool")]
        return [name for name, values in modules if any(value is cls for value in values for cls in classes)]

    def is_fast(cls: Any) -> bool:
        """Whether a stack that was counted still is an array: as a deque, contextlib's functions would do its work."""
        return not any(type(found).__name__ == "deque" for found in gc.get_referents(cls()))

    def report() -> None:
        path = os.path.join(reports, f"{os.getpid()}.json")
        with open(f"{path}.part", "w", encoding="utf-8") as file:
            json.dump({**made, "swapped": holders(ours), "unswapped": holders(theirs), "fast": fast}, file)
        os.replace(f"{path}.part", path)  # whole or not at all: some are killed at their end

    for cls in ours:
        count(cls, "ours")
    for cls in theirs:
        count(cls, "theirs")
    fast = all(is_fast(cls) for cls in ours)
    made["ours"] = 0
    if swap:
        contextlib.ExitStack, contextlib.AsyncExitStack = ours  # type: ignore[misc]
    atexit.register(report)


def run(*command: str | Path, folder: Path, log: Path, **environment: str) -> int:
    """Its exit code; what it says goes to the log. Our own environment's oddities stay out of it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "COV"))}
    with log.open("a", encoding="utf-8") as output:
        return subprocess.run(command, cwd=folder, env={**inherited, **environment}, stdin=subprocess.DEVNULL,
                              stdout=output, stderr=subprocess.STDOUT, timeout=TIMEOUT, check=False).returncode


def must(*command: str | Path, folder: Path, log: Path) -> None:
    if run(*command, folder=folder, log=log):
        raise Trouble(f"`{' '.join(map(str, command[:6]))} ...` failed; the end of its log:\n{end_of(log)}")


def end_of(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-25:])


def build_wheel(folder: Path) -> Path:
    """deferpool as it is in this checkout, built from a copy: no object files of another build variant get in."""
    copy = folder / "deferpool"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(CHECKOUT, copy, ignore=NOT_SOURCES)
    must(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder / "wheels", copy,
         folder=folder, log=folder / "wheel.log")
    return max((folder / "wheels").glob("deferpool-*.whl"), key=lambda wheel: wheel.stat().st_mtime)


def install(project: Project, wheel: Path, folder: Path) -> Path:
    """A new environment with the project, what its tests need, and deferpool. Returns its python.

    deferpool's pytest plugin is taken out: pytest warns of a plugin whose package is imported before pytest is.
    """
    pinned = folder / "pinned.txt"
    pinned.write_text("\n".join(PINNED.split()), encoding="utf-8")
    venv.create(folder / "venv", clear=True, with_pip=True)
    python = folder / "venv" / "bin" / "python"
    must(python, "-m", "pip", "install", "--constraint", pinned, wheel, f"{project.name}=={project.version}",
         *project.requirements.split(), "pytest", "pytest-xdist", folder=folder, log=folder / "install.log")
    next(site_packages(python).glob("deferpool-*.dist-info/entry_points.txt")).unlink()
    return python


def site_packages(python: Path) -> Path:
    return next((python.parent.parent / "lib").glob("python*/site-packages"))


def unpack(project: Project, python: Path, folder: Path) -> Path:
    """The project's source distribution, which has the tests. Returns the folder of its sources."""
    must(python, "-m", "pip", "download", "--no-deps", "--no-binary", project.name, "--dest", folder,
         f"{project.name}=={project.version}", folder=folder, log=folder / "install.log")
    name = f"{project.name}-{project.version}"
    with tarfile.open(folder / f"{name}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / name


def arm(python: Path, swap: bool, reports: Path) -> None:
    """Has in_each_interpreter run in each interpreter of the environment; not by a variable, which tests may clear."""
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir()
    source = f"{inspect.getsource(in_each_interpreter)}\n\nin_each_interpreter({swap}, {str(reports)!r})\n"
    (site_packages(python) / "_swapped.py").write_text(source, encoding="utf-8")
    (site_packages(python) / "_swapped.pth").write_text("import _swapped\n", encoding="utf-8")


def run_suite(project: Project, python: Path, sources: Path, swap: bool) -> Run:
    """The whole suite, once."""
    name = "swapped" if swap else "plain"
    folder = python.parent.parent.parent
    xml, log = folder / f"{name}.xml", folder / f"{name}.log"
    xml.unlink(missing_ok=True)
    log.unlink(missing_ok=True)
    arm(python, swap, folder / name)
    began = time.monotonic()
    status = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={xml}",
                 *project.options.split(), *project.tests.split(), folder=sources, log=log,
                 PYTHONPATH=str(sources / project.path) if project.path else "")
    if status not in (0, 1) or not xml.exists():
        raise Trouble(f"pytest ended with {status} in the {name} run; the end of its log:\n{end_of(log)}")
    result = read_reports(folder / name)
    result.outcomes = read_outcomes(xml)
    result.seconds = time.monotonic() - began
    return result


def read_outcomes(xml: Path) -> dict[str, str]:
    """For each test id: passed, failed, error or skipped (an expected failure too); or several, if it has several."""
    outcomes: dict[str, str] = {}
    for case in ElementTree.parse(xml).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        found = [WORDS[child.tag] for child in case if child.tag in WORDS] or ["passed"]
        outcomes[name] = "+".join([outcomes[name], *found] if name in outcomes else found)
    return outcomes


def read_reports(folder: Path) -> Run:
    """What all interpreters of a run have said when they ended, added up."""
    total = Run()
    for file in folder.glob("*.json"):
        said = json.loads(file.read_text(encoding="utf-8"))
        total.ours += said["ours"]
        total.theirs += said["theirs"]
        total.swapped |= set(said["swapped"])
        total.unswapped |= set(said["unswapped"])
        total.fast &= said["fast"]
    return total


def differing(plain: Run, swapped: Run) -> list[str]:
    return [f"{name}: {before}, swapped: {after}"
            for name in sorted(plain.outcomes.keys() | swapped.outcomes.keys())
            if (before := plain.outcomes.get(name, "not run")) != (after := swapped.outcomes.get(name, "not run"))]


def faults(project: Project, plain: Run, swapped: Run) -> list[str]:
    """All that is wrong: what differs, and whatever makes `nothing differs` worth nothing."""
    found = differing(plain, swapped)
    if len(swapped.outcomes) < project.least:
        found.append(f"only {len(swapped.outcomes)} tests ran, {project.least} were expected")
    if not plain.theirs or plain.ours:
        found.append(f"unswapped, {plain.theirs} stacks of contextlib's and {plain.ours} of ours were made")
    if not swapped.ours or swapped.theirs:
        found.append(f"swapped, {swapped.theirs} stacks of contextlib's and {swapped.ours} of ours were made")
    if not swapped.fast:
        found.append("the stacks that were counted are contextlib's deques: not the code that is to be tested")
    found += [f"{module} has none of our classes" for module in project.holders if module not in swapped.swapped]
    found += [f"{module} has kept contextlib's own class" for module in sorted(swapped.unswapped)]
    return found


def row(*cells: str | int) -> str:
    widths = list(COLUMNS.values())[:len(cells)]
    return " ".join(str(cell).rjust(width) if width > 0 else str(cell).ljust(-width)
                    for cell, width in zip(cells, widths, strict=True))


def try_project(project: Project, wheel: Path, folder: Path) -> bool:
    """Both runs, their row of the table, and under it what is wrong. True when nothing is."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        python = install(project, wheel, folder)
        sources = unpack(project, python, folder)
        plain, swapped = (run_suite(project, python, sources, swap) for swap in (False, True))
    except (Trouble, subprocess.TimeoutExpired) as trouble:
        print(f"{row(project.name, project.version)}  not compared: {trouble}", flush=True)
        return False
    both = [name for name, outcome in plain.outcomes.items() if outcome == swapped.outcomes.get(name)]
    counts = Counter(plain.outcomes[name] for name in both)
    failed = sum(count for outcome, count in counts.items() if "failed" in outcome.split("+") or "error" in outcome)
    print(row(project.name, project.version, len(swapped.outcomes), counts["passed"], failed,
              len(differing(plain, swapped)), plain.theirs, swapped.ours, round(plain.seconds), round(swapped.seconds)),
          flush=True)
    found = faults(project, plain, swapped)
    for fault in found:
        print(f"    {fault}", flush=True)
    return not found


def main() -> int:
    names = [project.name for project in PROJECTS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("projects", nargs="*", metavar="project", help=f"of {', '.join(names)}; all if none is given")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in this folder and leave all logs in it")
    given = parser.parse_args()
    if unknown := set(given.projects) - set(names):
        parser.error(f"no such project: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="swapped-") as temporary:
        folder = (given.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        wheel = build_wheel(folder)
        print(row(*COLUMNS), flush=True)
        fine = [try_project(project, wheel, folder / project.name) for project in PROJECTS
                if not given.projects or project.name in given.projects]
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
