"""Sweeps: many comparisons, over inputs, sizes, options, profiles, processors and seeds, on many processes.

`spec` reads what is to be swept and checks all of it; `task` has one comparison and its identity; `results` keeps what
is done, so that an interrupted sweep resumes; `processes` and `cluster` run tasks here and on a Dask cluster.
"""
