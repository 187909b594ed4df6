# cython: language_level=3, cdivision=True
"""Truth: what is mapped, recounted from the page tables alone.

It walks every table of every process from its root and reads entries; it knows of no scheme and of no count,
and shares with the operations only the layout of an entry (hgm.h).
"""
from libc.stdlib cimport free, realloc

from hgmcore.hgm cimport HGM_PTE_FRAME_SHIFT, HGM_PTE_LEAF, HGM_PTE_PRESENT, uint32_t, uint64_t
from hgmcore.machine cimport Core, Machine

import numpy as np

LEAVES = np.dtype([("address", "u8"), ("pfn", "u8"), ("count", "u8"), ("process", "u4"), ("level", "u4")])
"""dtype of a run of leaves: `count` leaves of one level in one process, adjacent in address and frame.

address: virtual address of the first, in bytes; pfn: frame of its first base page.
"""

cdef struct Leaves:
    uint64_t address
    uint64_t pfn
    uint64_t count
    uint32_t process
    uint32_t level

cdef struct Runs:
    Leaves *runs
    uint64_t n
    uint64_t room
    bint failed


cdef void note(Runs *found, uint64_t address, uint64_t pfn, uint64_t step, uint32_t process, int level,
               int base_shift) noexcept nogil:
    """One leaf of `step` base pages: extend the last run or begin one."""
    cdef Leaves *last
    cdef Leaves *runs
    if found.n:
        last = &found.runs[found.n - 1]
        if (last.level == <uint32_t>level and last.process == process and last.pfn + last.count * step == pfn
                and last.address + (last.count * step << base_shift) == address):
            last.count += 1
            return
    if found.n == found.room:
        runs = <Leaves *>realloc(found.runs, (2 * found.room + 64) * sizeof(Leaves))
        if runs is NULL:
            found.failed = True
            return
        found.runs = runs
        found.room = 2 * found.room + 64
    last = &found.runs[found.n]
    last.address = address
    last.pfn = pfn
    last.count = 1
    last.process = process
    last.level = level
    found.n += 1


cdef void walk(Machine *m, uint32_t table, int level, uint64_t address, uint32_t process, Runs *found) noexcept nogil:
    """Every leaf below `table`, whose entries are of `level` and whose first stands for `address`."""
    cdef uint64_t *entries = <uint64_t *>(m.tables.base + (<uint64_t>table << m.geometry.table_shift))
    cdef int shift = m.geometry.level_shift[level]
    cdef uint64_t step = <uint64_t>1 << (shift - m.geometry.base_shift)
    cdef uint64_t i, entry
    for i in range(<uint64_t>1 << m.geometry.index_bits):
        entry = entries[i]
        if not entry & HGM_PTE_PRESENT:
            continue
        if entry & HGM_PTE_LEAF:
            note(found, address + (i << shift), entry >> HGM_PTE_FRAME_SHIFT, step, process, level,
                 m.geometry.base_shift)
        else:
            walk(m, <uint32_t>(entry >> HGM_PTE_FRAME_SHIFT), level - 1, address + (i << shift), process, found)


def leaves(Core core):
    """All present leaves of all processes, as runs: an array of LEAVES, by process and address."""
    cdef Machine *m = &core.m
    cdef Runs found
    cdef uint32_t process
    found.runs = NULL
    found.n = found.room = 0
    found.failed = False
    try:
        with nogil:
            for process in range(m.nr_processes):
                if m.processes[process].root:
                    walk(m, m.processes[process].root, m.geometry.levels, 0, process, &found)
        if found.failed:
            raise MemoryError("no memory to recount the page tables")
        out = np.empty(found.n, LEAVES)
        if found.n:
            out.view(np.uint8)[:] = np.asarray(<unsigned char[:found.n * sizeof(Leaves)]><unsigned char *>found.runs)
        return out
    finally:
        free(found.runs)


def mapcounts(runs, geometry):
    """How many leaves map each base page: runs (first pfn, last pfn, count > 0), an int64 array (n, 3).

    runs: an array of LEAVES. Sorted, disjoint; neighbours differ in count or do not touch.
    """
    size = np.array([0] + [1 << (geometry.level_shift(level) - geometry.base_shift)
                           for level in range(1, geometry.levels + 1)], np.int64)
    first = runs["pfn"].astype(np.int64)
    last = first + runs["count"].astype(np.int64) * size[runs["level"]]
    at, where = np.unique(np.concatenate([first, last]), return_inverse=True)
    change = np.zeros(len(at), np.int64)
    np.add.at(change, where[:len(first)], 1)
    np.add.at(change, where[len(first):], -1)
    count = np.cumsum(change)
    keep = np.flatnonzero(change)
    at, count = at[keep], count[keep]
    out = np.stack([at[:-1], at[1:], count[:-1]], 1) if len(at) else np.empty((0, 3), np.int64)
    return out[out[:, 2] > 0]
