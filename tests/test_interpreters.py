"""Sub-interpreters work or get an ImportError; nothing is corrupted, and the first interpreter goes on."""
import pytest
from helpers import output_of

INSIDE = """if True:
    import sys
    try:
        import deferpool
        pool = deferpool.RecordPool([16], cap=4, limit=10)
        for _ in range(3):
            records = [pool.new(size) for size in (16, 500) * 30]
            for record in records:
                pool.free(record)
        deferpool.procresize(deferpool.procs() + 1)
        deferpool.clearpools()
        print("works", pool.stats()["live"])
    except ImportError as error:
        print("ImportError", "deferpool" in str(error) or "interpreter" in str(error))
    sys.stdout.flush()
"""

OUTSIDE = """if True:
    def run_inside(code, isolated):
        try:
            import _interpreters
        except ImportError:
            import _xxsubinterpreters
            number = _xxsubinterpreters.create(isolated=isolated)
            _xxsubinterpreters.run_string(number, code)
            _xxsubinterpreters.destroy(number)
        else:
            number = _interpreters.create("isolated" if isolated else "legacy")
            failed = _interpreters.exec(number, code)
            assert failed is None, failed
            _interpreters.destroy(number)

    def use():
        import deferpool, gc
        pool = deferpool.RecordPool([16], cap=4)
        for record in [pool.new(16) for _ in range(100)]:
            pool.free(record)
        gc.collect()
        assert pool.stats()["live"] == pool.stats()["central"] == 0

    def fork():
        import os, sys
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            try:
                if "deferpool" in sys.modules:
                    use()
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
"""


def said(code: str) -> list[str]:
    lines = output_of(f"{OUTSIDE}\n{code}\nprint('ended')").splitlines()
    assert lines.pop() == "ended"
    return lines


@pytest.mark.parametrize("isolated", [False, True])
@pytest.mark.parametrize("before", ["use()\n", ""])
def test_import_in_others(before: str, isolated: bool) -> None:
    """Three in a row; the first interpreter has deferpool before them and goes on, or has it not at all."""
    lines = said(f"{before}for _ in range(3):\n    run_inside({INSIDE!r}, {isolated})\n    fork()\n{before}")
    assert len(lines) == 3
    assert set(lines) <= {"works 0", "ImportError True"}


@pytest.mark.parametrize("isolated", [False, True])
def test_import_in_the_first_one_afterwards(isolated: bool) -> None:
    """Another one may have had deferpool first, and be gone by now."""
    lines = said(f"""if True:
        run_inside({INSIDE!r}, {isolated})
        fork()
        try:
            use()
            print("works 0")
        except ImportError:
            print("ImportError True")
        fork()
    """)
    assert len(lines) == 2
    assert set(lines) <= {"works 0", "ImportError True"}
