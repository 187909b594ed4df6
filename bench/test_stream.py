"""Long inputs: a guest of 1 TiB, filled in order, and the shipped recordings, replayed whole."""

import os

import numpy as np
import pytest
from rooflines import ENTRIES, PIECES, TABLE
from works import GIGABYTE, PIECE_BY_PIECE

import hgmcore as hgm
from hgmcore import recordings
from hgmcore.replay import time as timed

GIGABYTES = 1024
PER_PIECE = 1.5    # goal: multiple of the time for each piece that a single 1G page takes
MEMORY = 1.1       # goal: of what tables and struct pages require
RATE = 100_000_000    # goal: operations a second


def resident() -> int:
    """Resident bytes of this process."""
    with open("/proc/self/statm", encoding="ascii") as values:
        return int(values.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def filled(scheme: str, gigabytes: int):
    """Fill a guest of 1G pages by continues of 4K in order. Returns (its machine, ns for each page)."""
    machine = hgm.Machine(scheme, transient="counted")
    file = machine.file("F", "1G", gigabytes, populate=True)
    machine.process("A").mmap(file, "v", minor=True, hgm=True)
    machine.core.prefault(gigabytes * (1 + ENTRIES) + 2)
    operations, times = PIECE_BY_PIECE.copy(), []
    for _ in range(gigabytes):    # records are made for one page at a time, between the timed runs
        times.append(machine.run(operations) / PIECES)
        operations["offset"] += GIGABYTE
    return machine, np.array(times)


@pytest.mark.parametrize("scheme", ["head_per_leaf", "logical_counter"])
def test_a_guest_of_1_tib(benchmark, scheme):
    one = np.median([filled(scheme, 1)[1][0] for _ in range(9)])
    before = resident()
    done = []
    benchmark.pedantic(lambda: done.append(filled(scheme, GIGABYTES)), rounds=1)
    (machine, times), = done
    grown = resident() - before
    assert len(machine.results()) == 0 and machine.cost()["leaf_installs"] == GIGABYTES * PIECES
    # tables and their descriptors; struct pages of a head and page 1
    required = GIGABYTES * ((1 + ENTRIES) * (TABLE + 64) + 4096)
    benchmark.extra_info.update(scheme=scheme, tib=float(times.mean()), one=float(one), goal=PER_PIECE,
                                per_piece=float(times.mean() / one), memory=grown / required, memory_goal=MEMORY)


@pytest.mark.parametrize("scheme", ["logical_table", "logical_counter", "special_bit"])
@pytest.mark.parametrize("name", ["qemu-postcopy_redis_4k", "qemu-balloon_redis_4k"])
def test_a_recording(benchmark, name, scheme):
    trace, times = recordings.load(name), []
    benchmark.pedantic(lambda: times.append(timed(trace, scheme)), rounds=25)
    benchmark.extra_info.update(work=f"recording:{name} {scheme}", rate=int(1e9 / np.median(times)), unit="operations",
                                goal=RATE)
