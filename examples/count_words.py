"""Threads that count words without the GIL; the nodes of their hash tables are records of a RecordPool, or calloc's.

    python examples/count_words.py

words/words.pyx is the worker, words/setup.py builds it against the installed deferpool. This script does so in a
temporary folder, which takes Cython, setuptools and a C compiler, and counts the same words in Python to be sure.
"""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from _compare import arguments, compare, heading

import deferpool

SOURCES = Path(__file__).parent / "words"


def build(folder: Path) -> Any:
    """The module words, compiled in this folder."""
    for name in ("words.pyx", "setup.py"):
        shutil.copy(SOURCES / name, folder)
    library = str(Path(deferpool.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": library}
    done = subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=folder, env=environment,
                          capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"words.pyx could not be built:\n{done.stdout}{done.stderr}")
    sys.path.insert(0, str(folder))
    return import_module("words")


def main() -> None:
    options = arguments("records without the GIL", count=400)
    for package in ("Cython", "setuptools"):
        if find_spec(package) is None:
            sys.exit(f"this example needs {package} and a C compiler: pip install cython setuptools")
    with tempfile.TemporaryDirectory() as folder:
        words = build(Path(folder))
        # A text takes some 500 records at once: with a smaller cap the rest of them would come from the central pool.
        pool = deferpool.RecordPool(sizes=(32,), cap=512, limit=4096)
        text = b" ".join(b"word%d" % (number * number % 1013) for number in range(2000))
        expected = dict(Counter(text.split()))
        for pooled in (False, True):
            if words.count(pool, text, pooled=pooled) != expected:
                raise SystemExit("the words are not counted rightly")

        def in_threads(threads: int, *, pooled: bool) -> Callable[[], None]:
            def work() -> None:
                words.count(pool, text, pooled=pooled, times=max(options.count // threads, 1))

            def run() -> None:
                workers = [threading.Thread(target=work) for _ in range(threads)]
                for worker in workers:
                    worker.start()
                for worker in workers:
                    worker.join()

            return run

        heading(f"a text of 2,000 words, {len(expected)} of them different")
        for threads in (1, 2, 16):
            compare(f"{threads} threads" if threads > 1 else "1 thread", in_threads(threads, pooled=False),
                    in_threads(threads, pooled=True), rounds=options.rounds,
                    operations=max(options.count // threads, 1) * threads)
        stats = pool.stats()
        print(f"{stats['cached']} records are cached, of at most {stats['bound']}; {stats['live']} are out")


if __name__ == "__main__":
    main()
