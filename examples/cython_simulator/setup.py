"""Builds the simulator beside this file: python setup.py build_ext --inplace"""
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

import hgmcore

setup(name="pager", ext_modules=cythonize(
    [Extension("pager", ["pager.pyx"], include_dirs=[hgmcore.get_include()])],
    include_path=[str(Path(hgmcore.__file__).parent.parent)]))
