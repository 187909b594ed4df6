"""The same sequences timed in the kernel and in the simulator."""

from collections import defaultdict

import numpy as np

from hgmcore.kernel.live.kernel import PAGE
from hgmcore.kernel.simulated import Simulated

TIMES = 5  # Runs of each sequence; the least time of each step counts, since noise only adds.
_UNTIMED = ("exit", "fork", "uffd_open")
"""A process is not seen to its end; most of a fork is of the interpreter in it; the last has no counterpart."""


class Times:
    """ns of each kind of operation on both sides.

    Only what succeeds on both sides counts. What the measuring itself takes is taken off: a system call that does
    nothing.
    """

    def __init__(self, session):
        self._session, self._overhead = session, session.overhead(1001)

    def of(self, sequences):
        """{kind: {"count", "kernel": [lower quartile, median, upper], "simulator": likewise}} of a list of
        (statements, is it on hugetlb files)."""
        found = defaultdict(list)
        for statements, hugetlb in sequences:
            scheme = "hugetlb" if hugetlb else "mm_id"
            runs = [_steps(self._session.record(statements, observe=False), scheme) for _ in range(TIMES)]
            for same in zip(*runs):
                if all(kind and kind == same[0][0] for kind, _, _ in same):
                    kind, kernel, simulator = same[0][0], *np.min([times for _, *times in same], axis=0)
                    found[kind].append((kernel - self._overhead, simulator))
        return {kind: _quartiles(np.array(pairs)) for kind, pairs in sorted(found.items())}


def _steps(recording, scheme):
    """(kind, ns in the kernel, ns in the simulator) of each operation; kind None where it does not count."""
    steps = []
    for step in recording:
        if step["t"] == "scenario":
            simulated = Simulated(step["kernel"], scheme)
            empty = simulated.writer.since(0)
            nothing = min(simulated.machine.run(empty) for _ in range(9))
        elif step["t"] == "file":
            simulated.file(step)
        elif step["t"] == "op":
            left_out = simulated.step(step) or simulated.reason or step["errno"] or step["op"] in _UNTIMED \
                or not simulated.ran or step.get("advice") == "HUGEPAGE"  # anonymous: the simulated mmap
            steps.append((None if left_out else _kind(step), step.get("ns", 0),
                          simulated.elapsed - nothing * simulated.ran))
    return steps


def _kind(op):
    name = op.get("advice", op["op"]).lower().removeprefix("uffd_")
    return f"{name} of 4K" if op.get("len") == PAGE else name


def _quartiles(pairs):
    """Of an array (n, 2) of ns in the kernel and in the simulator."""
    quartiles = np.quantile(pairs, (0.25, 0.5, 0.75), axis=0)
    return {"count": len(pairs), "kernel": quartiles[:, 0].tolist(), "simulator": quartiles[:, 1].tolist()}
