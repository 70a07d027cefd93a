"""Builds words against the deferpool that is installed: python setup.py build_ext --inplace"""
from Cython.Build import cythonize
from setuptools import Extension, setup

import deferpool

setup(
    name="words",
    ext_modules=cythonize(
        [Extension("words", ["words.pyx"], include_dirs=[deferpool.get_include()])],
        compiler_directives={"language_level": "3", "freethreading_compatible": True},
    ),
)
