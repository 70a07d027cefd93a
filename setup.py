"""The extensions; everything else is in pyproject.toml.

DEFERPOOL_DEV=1 also builds what a checkout needs and a wheel does not: the stress suite's nogil threads.
DEFERPOOL_VARIANT builds the same sources for a purpose; `make help` tells how they are run:
    tsan, asan   under gcc's thread or address sanitizer
    numbers      with P numbers that tests can set, so that two CPUs test many Ps
    debug        with Cython's annotation and assertions, unoptimized
"""
import os

from Cython.Build import cythonize
from setuptools import Extension, setup

LIBRARY = ["_central", "_pool", "_sched", "records"]
ENGINE = {"_pool", "_sched"}  # the two that hold thread-local storage and ask the kernel
STRESS = ["_ledger", "_load", "_baselines", "_interrupts", "_bench"]
VARIANTS = {
    "": ["-O3"],
    "tsan": ["-O1", "-g", "-fsanitize=thread"],
    "asan": ["-O1", "-g", "-fsanitize=address", "-fno-omit-frame-pointer"],
    "numbers": ["-O3", "-DDP_TEST_NUMBERS"],
    "debug": ["-O0", "-g", "-UNDEBUG"],
}

variant = os.environ.get("DEFERPOOL_VARIANT", "")
if variant not in VARIANTS:
    raise SystemExit(f"DEFERPOOL_VARIANT must be one of {', '.join(filter(None, VARIANTS))}, not {variant!r}")
dev = os.environ.get("DEFERPOOL_DEV") == "1"
flags = VARIANTS[variant] if os.name == "posix" else []
links = [flag for flag in flags if flag.startswith("-fsanitize")]

extensions = [
    Extension(f"deferpool.{name}", [f"deferpool/{name}.pyx"], extra_compile_args=flags, extra_link_args=links,
              define_macros=[("DP_ENGINE", "1")] if name in ENGINE else [])
    for name in LIBRARY
]
if dev:
    extensions += [
        Extension(f"stress.{name}", [f"stress/{name}.pyx"], extra_compile_args=flags, extra_link_args=links)
        for name in STRESS
    ]

setup(
    ext_modules=cythonize(extensions, build_dir="build/cython", annotate=variant == "debug",
                          compiler_directives={"language_level": "3", "freethreading_compatible": True}),
    packages=["deferpool", "stress", "stress.scenarios"] if dev else ["deferpool"],
)
