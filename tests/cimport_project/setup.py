"""A project that uses deferpool from Cython, and knows it only as what is installed."""
# mypy: ignore-errors
from Cython.Build import cythonize
from setuptools import Extension, setup

import deferpool

setup(
    name="consumer",
    ext_modules=cythonize(
        [Extension("consumer", ["consumer.pyx"], include_dirs=[deferpool.get_include()])],
        compiler_directives={"language_level": "3", "freethreading_compatible": True},
    ),
)
