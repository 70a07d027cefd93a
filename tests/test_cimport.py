"""The wheel serves Cython authors: built from a clean copy, installed elsewhere, cimported by a project of its own."""
import ast
import re
import shutil
import signal
import tarfile
import zipfile
from pathlib import Path

import pytest
from builds import once, run
from helpers import ROOT, run_python

PROJECT = Path(__file__).parent / "cimport_project"


def compile_consumer(folder: Path, against: Path, first_line: str = "") -> None:
    source = (PROJECT / "consumer.pyx").read_text()
    (folder / "consumer.pyx").write_text(first_line + source)
    shutil.copy(PROJECT / "setup.py", folder)
    run("setup.py", "-q", "build_ext", "--inplace", cwd=folder, path=against)


@pytest.fixture(scope="module")
def consumer(tmp_path_factory: pytest.TempPathFactory, installed: Path) -> Path:
    return once(tmp_path_factory, "consumer", lambda folder: compile_consumer(folder, installed))


# ---- what is in them --------------------------------------------------------------------------------------


def sources(checkout: Path) -> set[str]:
    return {str(path.relative_to(checkout)) for path in (checkout / "deferpool").rglob("*") if path.is_file()}


def test_wheel_has_what_is_needed_and_no_more(checkout: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        assert "Requires-Dist" not in archive.read(metadata).decode()
    assert sources(checkout) <= names
    wanted = {"__init__.pxd", "records.pxd", "records.pyi", "_sched.pyi", "py.typed", "sections.h", "frames.h"}
    assert {f"deferpool/{name}" for name in wanted} <= names
    binaries = {name.partition(".")[0] for name in names if name.endswith(".so")}
    compiled = ("_block", "_bodies", "_careful", "_central", "_defer", "_exitstack", "_face", "_generators", "_goexit",
                "_pages", "_pool", "_recover", "_sched", "_waiting", "buffers", "objects", "records")
    assert binaries == {f"deferpool/{name}" for name in compiled}
    assert {name.split("/")[0] for name in names} == {"deferpool", metadata.split("/")[0]}
    pure = {name for name in names if name.endswith(".py")}
    assert "deferpool/testing/plugin.py" in pure
    assert pure == {name for name in sources(checkout) if name.endswith(".py")}
    assert not [name for name in names if name.endswith(".c")]


def test_sdist_has_the_same_sources(checkout: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns("build"))
    run("-c", f"import setuptools.build_meta as backend; backend.build_sdist({str(tmp_path)!r})", cwd=copy)
    (made,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(made) as archive:
        files = {member.name.partition("/")[2]: member for member in archive if member.isfile()}
        for name in sources(checkout) | {"setup.py", "pyproject.toml", "README.md", "LICENSE"}:
            packed = archive.extractfile(files[name])
            assert packed is not None
            assert packed.read() == (checkout / name).read_bytes(), name
    assert not [name for name in files if name.startswith("stress/") or name.endswith((".so", ".c"))]


def test_consumer_is_of_the_wheel_alone(installed: Path, consumer: Path) -> None:
    generated = (consumer / "consumer.c").read_text()
    assert str(ROOT) not in generated
    done = run_python("import consumer, deferpool; print(deferpool.__file__)", cwd=consumer, path=installed)
    assert done.stdout.strip() == str(installed / "deferpool" / "__init__.py"), done.stderr


# ---- threads without the GIL ------------------------------------------------------------------------------

THREADS = """if True:
    import sys, threading, consumer, deferpool
    results = []
    def in_threads(work, n=8):
        threads = [threading.Thread(target=lambda me=me: results.append(work(me))) for me in range(1, n + 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
"""

RUN = THREADS + """
    pool = deferpool.RecordPool(cap=8, limit=200)
    in_threads(lambda me: consumer.run(pool, 2_000, me))
    stats = pool.stats()
    assert [faults for _, faults in results] == [dict(missing=0, unaligned=0, unclean=0, overwritten=0)] * 8
    done = sum(done for done, _ in results)
    assert stats["gets"] == stats["puts"] == done == 8 * 2_000 * 40, stats
    assert stats["live"] == 0 and stats["created"] == stats["cached"] + stats["destroyed"], stats
    assert stats["cached"] <= stats["bound"] and stats["bypassed"] > 0 and stats["spills"] > 0, stats
    print(deferpool.stats()["mode"], stats["created"] < done / 2)
"""


@pytest.mark.parametrize("portable", [None, "1"])
def test_threads_without_the_gil(installed: Path, consumer: Path, portable: str | None) -> None:
    done = run_python(RUN, cwd=consumer, path=installed, DEFERPOOL_PORTABLE=portable)
    assert done.returncode == 0, done.stderr
    mode = run_python("import deferpool; print(deferpool.stats()['mode'])", path=installed, DEFERPOOL_PORTABLE=portable)
    assert done.stdout.split() == [mode.stdout.strip(), "True"]


def test_in_cpp(installed: Path, tmp_path: Path) -> None:
    compile_consumer(tmp_path, installed, "# distutils: language=c++\n")
    assert (tmp_path / "consumer.cpp").exists()
    done = run_python(RUN, cwd=tmp_path, path=installed)
    assert done.returncode == 0, done.stderr


FORK = THREADS + """
    pool = deferpool.RecordPool({arguments})
    ended = []
    def work(me):
        while not ended:
            consumer.run(pool, 20, me)
    def fork(_):
        try:
            print(consumer.fork_amid(pool, 60))
        finally:
            ended.append(True)
    in_threads(lambda me: fork(me) if me == 8 else work(me))
    stats = pool.stats()
    assert stats["live"] == 0 and stats["created"] == stats["cached"] + stats["destroyed"], stats
"""


@pytest.mark.parametrize("portable", [None, "1"])
@pytest.mark.parametrize("arguments", ["cap=2, limit=50", "cap=2, limit=0, debug=True"])
def test_forks_from_c_while_threads_work(
    installed: Path, consumer: Path, portable: str | None, arguments: str
) -> None:
    """Sections, locks and batches are open at every fork, which only the hooks of the C library see."""
    done = run_python(FORK.format(arguments=arguments), cwd=consumer, path=installed, DEFERPOOL_PORTABLE=portable)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "60"


def test_no_memory_is_null(installed: Path, consumer: Path) -> None:
    code = (
        "import consumer, deferpool; pool = deferpool.RecordPool(); "
        "print([consumer.new_is_null(pool, size) for size in (0, 80, 81, 2**62, 2**63 - 16, 2**64 - 1)], "
        "pool.stats()['live'])"
    )
    done = run_python(code, cwd=consumer, path=installed)
    assert done.stdout.strip() == "[False, False, False, True, True, True] 0", done.stderr


# ---- what ends the process --------------------------------------------------------------------------------

NO_CORE = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); "
NO_CORE += "from deferpool import RecordPool; from consumer import free_twice, free_elsewhere, free_of_no_pool; "


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("free_twice(RecordPool(), 64, 0)", "double free"),
        ("free_twice(RecordPool(cap=4), 1, 100)", "double free"),  # it is in the central pool by then
        ("free_twice(RecordPool(cap=2, limit=0, debug=True), 64, 100)", "double free"),  # and here in the quarantine
        ("free_twice(RecordPool(debug=True), 5_000, 0)", "double free"),
        ("free_elsewhere(RecordPool(), RecordPool(), 64)", "free of a record of another pool, or of no pool"),
        ("free_elsewhere(RecordPool(), RecordPool(), 5_000)", "free of a record of another pool, or of no pool"),
        ("free_of_no_pool(RecordPool())", "free of a record of another pool, or of no pool"),
    ],
)
def test_wrong_frees_abort(installed: Path, consumer: Path, code: str, what: str) -> None:
    done = run_python(f"{NO_CORE}{code}; print('survived')", cwd=consumer, path=installed)
    assert (done.returncode, done.stdout) == (-signal.SIGABRT, "")
    lines = [line for line in done.stderr.splitlines() if line.startswith("deferpool: ")]
    assert len(lines) == 1
    assert re.fullmatch(rf"deferpool: {what}: record 0x[0-9a-f]+, pool 0x[0-9a-f]+", lines[0])


def test_another_abi_is_an_import_error(installed: Path, tmp_path: Path) -> None:
    """Compiled against a header of another layout: told at import, with both numbers, and no memory is touched."""
    other, folder = tmp_path / "other", tmp_path / "consumer"
    shutil.copytree(installed, other)
    folder.mkdir()
    header = other / "deferpool" / "records.pxd"
    (number,) = map(int, re.findall(r"^cdef class abi_(\d+):", header.read_text(), re.MULTILINE))
    header.write_text(header.read_text().replace(f"class abi_{number}:", f"class abi_{number + 1}:"))
    compile_consumer(folder, other)
    done = run_python("import deferpool; print('fine'); import consumer", cwd=folder, path=installed)
    assert (done.returncode, done.stdout.strip()) == (1, "fine")
    said = done.stderr.splitlines()[-1]
    assert said.startswith("ImportError: ")
    assert f"ABI {number + 1} " in said
    assert f"ABI {number} " in said


# What other people's modules have inlined, on 64-bit machines. Whoever has to change a figure here gives the layout a
# new number: a new name to the class abi_1 in records.pxd and records.pyx, and a line of its own in this table.
LAYOUTS = {
    1: {
        "Front": [0, 8, 16, 20, 24, 32],
        "Pool": [0, 8224, 8228, 8576],
        "Header": [0, 8, 16],
        "Layout": [0, 8, 720],
        "marks": [0, 64, 128, 192],
        "places": [65, 1024, 2147483647],
    },
}


def test_layout_is_that_of_the_number(installed: Path, consumer: Path) -> None:
    code = "import consumer, deferpool.records; print((deferpool.records.ABI, consumer.layout()))"
    done = run_python(code, cwd=consumer, path=installed)
    assert done.returncode == 0, done.stderr
    number, layout = ast.literal_eval(done.stdout)
    assert layout == LAYOUTS[number]
