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
        import deferpool, gc, os
        pool = deferpool.RecordPool([16], cap=4)
        for record in [pool.new(16) for _ in range(100)]:
            pool.free(record)
        gc.collect()
        assert pool.stats()["live"] == pool.stats()["central"] == 0
        child = os.fork()
        if child == 0:
            pool.free(pool.new(16))
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize("isolated", [False, True])
@pytest.mark.parametrize("imported", ["before", "after", "never"])
def test_import(imported: str, isolated: bool) -> None:
    """Three in a row, and the first interpreter has deferpool before or after them, or not at all."""
    use = {"before": "use()\n", "after": "", "never": ""}[imported]
    again = {"before": "use()\n", "after": "use()\n", "never": ""}[imported]
    code = f"{OUTSIDE}\n{use}for _ in range(3):\n    run_inside({INSIDE!r}, {isolated})\n{again}print('ended')"
    *said, last = output_of(code).splitlines()
    assert last == "ended"
    assert len(said) == 3
    assert set(said) <= {"works 0", "ImportError True"}
