"""A slow reference model of huge-page mappings, on hugetlb, shmem and anonymous memory, and of each scheme's counts, in
plain dicts and loops.

It shares no code with hgmcore.  `Model(scheme, **options).run("continue A v 0 4K")` executes one statement
of a trace and returns a `Result`; `observe()` and `cost()` report in hgmcore's form, with lists of
`(first, last, value)` as runs.
"""
from .machine import Model, Result
from .runs import merged
from .schemes import SCHEMES

__all__ = ["SCHEMES", "Model", "Result", "merged"]
