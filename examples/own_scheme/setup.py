"""Builds the scheme beside this file: python setup.py build_ext --inplace"""
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

import hgmcore

setup(name="twice", ext_modules=cythonize(
    [Extension("twice", ["twice.pyx"], include_dirs=[hgmcore.get_include()], extra_compile_args=["-O1"])],
    include_path=[str(Path(hgmcore.__file__).parent.parent)]))
