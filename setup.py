"""The extensions; everything else is in pyproject.toml.

DEFERPOOL_DEV=1 also builds what a checkout needs and a wheel does not: the stress suite's nogil threads.
DEFERPOOL_VARIANT builds the same sources for a purpose; `make help` tells how they are run:
    tsan, asan   under gcc's thread or address sanitizer
    numbers      with P numbers that tests can set, so that two CPUs test many Ps
    debug        with Cython's annotation and assertions, unoptimized
    explore      with schedule points, and models in place of the sections: for the schedule explorer
"""
import os
import sys
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

LIBRARY = ["_block", "_bodies", "_careful", "_central", "_defer", "_exitstack", "_face", "_generators", "_goexit",
           "_pages", "_pool", "_recover", "_sched", "_waiting", "buffers", "objects", "records"]
MACROS = {
    "_pool": [("DP_ENGINE", "1")],  # of the variant `numbers` the one module that has sections
    "_traps": [("DP_TRAPS", "1")],  # the same sections, with a place for a trap before each instruction
}
STRESS = ["_ledger", "_designs", "_books", "_load", "_baselines", "_faces", "_interrupts", "_bench", "_model", "_traps"]
EXPLORER = ["_fibers", "_grounds", "_verdicts", "_worlds"]
OFTEN = [f"deferpool/{name}.h" for name in ("interpreter", "platform", "sections", "thread")]
FRAMES = [*OFTEN, "deferpool/frames.h"]
HEADERS = {
    "_bodies": [*FRAMES, "deferpool/coroutines.h"],
    "_defer": FRAMES,
    "_generators": [*FRAMES, "deferpool/coroutines.h"],
    "_recover": FRAMES,
    "objects": [*OFTEN, "deferpool/lease.h", "deferpool/sharing.h"],
    "_face": [*OFTEN, "deferpool/sharing.h"],
    "_sched": [*OFTEN, "deferpool/kernel.h"],
    "_pages": [*OFTEN, "deferpool/pages.h"],
    "buffers": [*OFTEN, "deferpool/pages.h", "deferpool/sharing.h"],
    "_exitstack": [*OFTEN, "deferpool/coroutines.h", *glob("deferpool/exitstack/*.h")],
}
VARIANTS = {
    "": ["-O3", "-g0"],  # Python's own flags ask for debugging information: a fifth of the time, two thirds of the size
    "tsan": ["-O1", "-g", "-fsanitize=thread"],
    "asan": ["-O1", "-g", "-fsanitize=address", "-fno-omit-frame-pointer"],
    "numbers": ["-O3", "-g0", "-DDP_TEST_NUMBERS"],
    "debug": ["-O0", "-g", "-UNDEBUG"],
    "explore": ["-O2", "-g", "-DDP_EXPLORE"],
}

variant = os.environ.get("DEFERPOOL_VARIANT", "")
if variant not in VARIANTS:
    raise SystemExit(f"DEFERPOOL_VARIANT must be one of {', '.join(filter(None, VARIANTS))}, not {variant!r}")
dev = os.environ.get("DEFERPOOL_DEV") == "1"
flags = VARIANTS[variant] if os.name == "posix" else []
if dev and flags:  # what newer compilers refuse altogether
    flags = flags + [f"-Werror={what}" for what in
                     ("int-conversion", "incompatible-pointer-types", "implicit-function-declaration")]
links = [flag for flag in flags if flag.startswith("-fsanitize")]


def extension(package, name):
    return Extension(f"{package}.{name}", [f"{package}/{name}.pyx"], extra_compile_args=flags, extra_link_args=links,
                     define_macros=MACROS.get(name, []), include_dirs=["stress"] if dev else [],
                     depends=[*HEADERS.get(name, OFTEN), *(glob("stress/*.h") if dev else [])])


extensions = [extension("deferpool", name) for name in LIBRARY]
if dev:
    extensions += [extension("stress", name) for name in (EXPLORER if variant == "explore" else STRESS)]

if sys.argv[1:2] not in (["sdist"], ["egg_info"], ["dist_info"]):  # these want the sources, and their names
    extensions = cythonize(
        extensions, build_dir="build/cython", annotate=variant == "debug",
        nthreads=os.cpu_count() or 1 if sys.platform == "linux" else 0,  # forked, not spawned
        compiler_directives={"language_level": "3", "freethreading_compatible": True})

setup(
    ext_modules=extensions,
    options={} if dev else {"build": {"build_base": "build/wheel"}},  # where no checkout has built what it alone needs
    packages=["deferpool", "deferpool.testing",
              *(["stress", "stress.bench", "stress.reports", "stress.scenarios"] if dev else [])],
)
