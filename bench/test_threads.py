"""4K continues by two threads: on one native thread, and on two at the same time.

Page tables stand ready. The trace's threads take turns of 512 records, so that one native thread keeps its streaks. What
two gain is lost again where they meet on one line: a lock, a count of the folio, a page-table page.
"""

import numpy as np
import pytest

import hgmcore as hgm
from hgmcore.statements import CODES, OPERATION
from hgmcore.threads import Threads
from hgmcore.trace import Trace

PIECES = 262144    # of a huge page
TURN = 512
GIGABYTE = 1 << 30
ONE = "file F 1G 1\npopulate F 0 1\nmmap A v F 0 1G shared minor hgm\n"
TWO = "file F 1G 2\npopulate F 0 2\nmmap A v F 0 2G shared minor hgm\n"
WORKS = {    # what is mapped; pieces of each thread; mapping and first offset of the second thread's; goal
    "different huge pages": (TWO, PIECES, 0, GIGABYTE, 1.9),
    "one huge page": (ONE, PIECES // 2, 0, GIGABYTE // 2, None),
    "one file, two processes": (ONE + "mmap B v F 0 1G shared minor hgm\n", PIECES, 1, 0, None),
}


def trace_of(mapped, number, mapping, first):
    """The start, and then each thread's pieces in order. Returns (trace, operations before the pieces)."""
    start = Trace.parse("hgmcore-trace 1\n" + mapped)
    thread = (np.arange(2 * number) // TURN % 2).astype(np.uint32)
    pieces = np.zeros(2 * number, OPERATION)
    pieces["op"], pieces["length"] = CODES["continue"], 4096
    pieces["offset"][thread == 0] = np.arange(number) * 4096
    pieces["offset"][thread == 1] = np.arange(number) * 4096 + first
    pieces["target"][thread == 1] = mapping
    operations = np.concatenate([start.operations, pieces])
    return Trace(start.header, operations, np.append(np.zeros(len(start), np.uint32), thread)), len(start)


@pytest.mark.parametrize("scheme", ["head_per_leaf", "logical_counter", "nr_pages_mapped"])
@pytest.mark.parametrize("locks", ["none", "pt", "posted"])
@pytest.mark.parametrize("work", WORKS)
def test_threads(benchmark, work, locks, scheme):
    mapped, number, mapping, first, goal = WORKS[work]
    trace, start = trace_of(mapped, number, mapping, first)
    machine = hgm.Machine(scheme, zap_frees_tables="no", locks=locks)
    machine.declare(trace.header)
    machine.run(trace.operations)
    dontneed = np.zeros(mapping + 1, OPERATION)
    dontneed["op"], dontneed["target"] = CODES["dontneed"], np.arange(mapping + 1)
    dontneed["length"] = (1 + (mapped is TWO)) * GIGABYTE
    took = {1: [], 2: []}

    def run(native):
        machine.run(dontneed)
        with Threads(machine, trace, native) as threads:
            took[native].append(threads.run(start, len(trace)) / (2 * number))
            assert threads.operations == (2 * number if native > 1 else 0)

    benchmark.pedantic(lambda: run(2), setup=lambda: run(1), rounds=15)
    assert len(machine.results()) == 0
    assert sum(folio["truth"]["leaves"] for folio in machine.observe()["folios"]) == 2 * number
    one, two = (float(np.median(took[native])) for native in (1, 2))
    benchmark.extra_info.update(work=work, locks=locks, scheme=scheme, one=one, two=two, speedup=one / two, goal=goal)
