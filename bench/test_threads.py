"""4K continues by two threads: on one native thread, and on two at the same time.

Page tables stand ready. The trace's threads take turns of 512 records, so that one native thread keeps its streaks.
What two gain is lost again where they meet on one line: a lock, a count of the folio, a page-table page. What two
hand-written loops that share nothing gain on this machine (its memory is one) stands beside it.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier

import numpy as np
import pytest
from rooflines import PIECES, Gigabyte
from works import GIGABYTE, PIECE_BY_PIECE

import hgmcore as hgm
from hgmcore.threads import Threads
from hgmcore.trace import Trace
from hgmcore.trace.statements import CODES, OPERATION

TURN = 512
EACH = 4    # huge pages that each thread fills, where the threads fill different ones
GOAL = 1.9
ONE = "file F 1G 1\npopulate F 0 1\nmmap A v F 0 1G shared minor hgm\n"
# what is mapped; pieces of each thread; mapping and first offset of the second thread's; locks held to the goal
WORKS = {
    "a file for each process": (
        "".join(f"file {f} 1G {EACH}\npopulate {f} 0 {EACH}\nmmap {p} v {f} 0 {EACH}G shared minor hgm\n"
                for f, p in ("FA", "GB")), EACH * PIECES, 1, 0, ("none", "pt", "posted")),
    # posted: all readers of one VMA count in its lock
    "different huge pages": (f"file F 1G {2 * EACH}\npopulate F 0 {2 * EACH}\n"
                             f"mmap A v F 0 {2 * EACH}G shared minor hgm\n",
                             EACH * PIECES, 0, EACH * GIGABYTE, ("none", "pt")),
    "one huge page": (ONE, PIECES // 2, 0, GIGABYTE // 2, ()),
    "one file, two processes": (ONE + "mmap B v F 0 1G shared minor hgm\n", PIECES, 1, 0, ()),
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


@cache
def roofline(library, scheme: str) -> float:
    """What two threads gain, each in the hand-written loop and in memory of its own."""
    worlds, records = [Gigabyte(library, scheme) for _ in range(2)], [PIECE_BY_PIECE.copy() for _ in range(2)]
    together, gains = Barrier(2), []

    def fill(i):
        together.wait()
        return worlds[i].run(0, records[i])[1]

    with ThreadPoolExecutor(2) as pool:
        for _ in range(25):
            for world in worlds:
                world.prepare(False)
            alone = sum(worlds[i].run(0, records[i])[1] for i in range(2))
            for world in worlds:
                world.prepare(False)
            gains.append(alone / max(pool.map(fill, range(2))))
    return float(np.median(gains))


@pytest.mark.parametrize("scheme", ["head_per_leaf", "logical_counter", "nr_pages_mapped"])
@pytest.mark.parametrize("locks", ["none", "pt", "posted"])
@pytest.mark.parametrize("work", WORKS)
def test_threads(benchmark, library, work, locks, scheme):
    mapped, number, mapping, first, held = WORKS[work]
    trace, start = trace_of(mapped, number, mapping, first)
    machine = hgm.Machine(scheme, zap_frees_tables="no", locks=locks, transient="counted")
    machine.declare(trace.header)
    machine.run(trace.operations)
    dontneed = np.zeros(mapping + 1, OPERATION)
    dontneed["op"], dontneed["target"] = CODES["dontneed"], np.arange(mapping + 1)
    dontneed["length"] = number * 4096 + first
    took = {1: [], 2: []}

    def run(native):
        machine.run(dontneed)
        with Threads(machine, trace, native) as threads:
            took[native].append(threads.run(start, len(trace)) / (2 * number))
            assert threads.operations == (2 * number if native > 1 else 0)

    benchmark.pedantic(lambda: run(2), setup=lambda: run(1), rounds=15)
    assert len(machine.results()) == 0
    assert sum(folio["truth"]["leaves"] for folio in machine.observe()["folios"]) == 2 * number
    one, two = (np.array(took[native]) for native in (1, 2))
    benchmark.extra_info.update(
        work=work, locks=locks, scheme=scheme, one=float(np.median(one)), two=float(np.median(two)),
        speedup=float(np.median(one / two)), best=float(one.min() / two.min()), goal=GOAL if locks in held else None,
        roofline=roofline(library, scheme) if locks in held and locks == "none" else None)
