"""hgmcore: what each way of counting references and mappings of huge pages costs, and what it gets wrong.

    import hgmcore as hgm
    m = hgm.Machine("head_per_leaf")
    f = m.file("F", page_size="1G", pages=1, populate=True)
    v = m.process("A").mmap(f, minor=True, hgm=True)
    v.uffd_continue(0, "4K")
    m.observe()["folios"][0]["refcount"]

    trace = hgm.load("guest.hgm")    # or "recording:NAME", "workload:NAME,key=value", a list of lines
    hgm.compare(trace, schemes="all")
    for step in hgm.replay_steps(trace, "mm_id"):    # what each operation changed
        print(step.statement, step.entries, step.words, step.answers, step.truth)
"""

from pathlib import Path

from hgmcore import schemes, workloads
from hgmcore.analysis.compare import compare
from hgmcore.api import Machine, OperationError
from hgmcore.core.core import SchemeError
from hgmcore.inputs import load
from hgmcore.own import Scheme
from hgmcore.replay import replay
from hgmcore.schemes import register
from hgmcore.steps import replay_steps
from hgmcore.trace import Trace, TraceError

__all__ = ["Machine", "OperationError", "Scheme", "SchemeError", "Trace", "TraceError", "compare", "get_include",
           "load", "register", "replay", "replay_steps", "schemes", "workloads"]

__version__ = "0.1.0"


def get_include() -> str:
    """The directory to compile with for ``#include "hgmcore/hgm.h"``.

    Returns
    -------
    str
        Its path, for ``-I`` or ``include_dirs``.
    """
    return str(Path(__file__).parent / "include")
