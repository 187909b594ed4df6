"""Builds the module beside this file: python setup.py build_ext --inplace"""
from setuptools import Extension, setup

import hgmcore

setup(name="tracer", ext_modules=[Extension("tracer", ["tracer.c"], include_dirs=[hgmcore.get_include()])])
