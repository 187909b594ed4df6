# cython: language_level=3, cdivision=True
"""Truth: what is mapped, recounted from the page tables alone.

It walks every table of every process from its root and reads entries; it knows of no scheme and of no count,
and shares with the operations only the layout of an entry (hgm.h) and loops over entries (entries.h).
"""
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from hgmcore.hgm cimport (
    HGM_PTE_FRAME_SHIFT, HGM_PTE_GROUP, HGM_PTE_LEAF, HGM_PTE_POISON, HGM_PTE_PRESENT, hgm_frame_run,
    hgm_next_entry, hgm_ptdesc, uint32_t, uint64_t
)
from hgmcore.core.core cimport Core
from hgmcore.core.machine cimport Machine
from hgmcore.core.table cimport PMD, PTE

import numpy as np

LEAVES = np.dtype([("address", "u8"), ("pfn", "u8"), ("count", "u8"), ("size", "u8"), ("process", "u4"),
                   ("level", "u2"), ("shared", "u1"), ("again", "u1")])
"""dtype of a run of leaves: `count` leaves of one size in one process, adjacent in address and frame.

address: virtual address of the first, in bytes; pfn: frame of its first base page; size: base pages of a leaf.
shared: they stand in a page table that several processes use; again: one of those was listed before.
"""

cdef struct Leaves:
    uint64_t address
    uint64_t pfn
    uint64_t count
    uint64_t size
    uint32_t process
    unsigned short level
    unsigned char shared
    unsigned char again

# A shared table, and where it was met first.
cdef struct Shared:
    uint32_t table
    uint32_t process
    uint64_t address

cdef struct Runs:
    Leaves *runs
    uint64_t n
    Shared *tables           # shared tables met so far
    uint64_t nr_tables
    uint64_t start           # the walk is for addresses [start, stop)
    uint64_t stop
    unsigned char shared     # of the table that the walk is in
    unsigned char again
    bint poison              # entries of pages that failed are looked for, not leaves
    bint failed


cdef void *more(void *array, uint64_t n, size_t size, bint *failed) noexcept nogil:
    """The array with room for one more than `n`, which grows at powers of two; `failed` where there is no memory."""
    cdef void *grown
    if n & (n - 1):
        return array
    grown = realloc(array, (2 * n + 1) * size)
    if grown is NULL:
        failed[0] = True
    return grown if grown is not NULL else array


cdef void note(Runs *found, uint64_t address, uint64_t pfn, uint64_t count, uint64_t size, uint32_t process, int level,
               int base_shift) noexcept nogil:
    """`count` leaves of `size` base pages: extend the last run or begin one."""
    cdef Leaves *last
    if found.n:
        last = &found.runs[found.n - 1]
        if (last.size == size and last.level == level and last.process == process
                and last.pfn + last.count * size == pfn and last.again == found.again and last.shared == found.shared
                and last.address + (last.count * size << base_shift) == address):
            last.count += count
            return
    found.runs = <Leaves *>more(found.runs, found.n, sizeof(Leaves), &found.failed)
    if found.failed:
        return
    last = &found.runs[found.n]
    last.address = address
    last.pfn = pfn
    last.count = count
    last.size = size
    last.process = process
    last.level = <unsigned short>level
    last.shared = found.shared
    last.again = found.again
    found.n += 1


cdef void meet_table(Machine *m, uint32_t table, uint64_t address, uint32_t process, Runs *found) noexcept nogil:
    """Remember a shared table, and whether it was met before, in another place."""
    cdef uint64_t i
    cdef Shared *shared
    found.shared = found.again = 0
    if (<hgm_ptdesc *>m.state.ptdescs.base)[table].sharers == 0:
        return
    found.shared = 1
    for i in range(found.nr_tables):
        shared = &found.tables[i]
        if shared.table == table:
            found.again = shared.process != process or shared.address != address
            return
    found.tables = <Shared *>more(found.tables, found.nr_tables, sizeof(Shared), &found.failed)
    if not found.failed:
        shared = &found.tables[found.nr_tables]
        shared.table = table
        shared.process = process
        shared.address = address
        found.nr_tables += 1


cdef void walk(Machine *m, uint32_t table, int level, uint64_t address, uint32_t process, Runs *found) noexcept nogil:
    """The leaves below `table`, whose entries are of `level` and whose first stands for `address`."""
    cdef uint64_t *entries = <uint64_t *>(m.state.tables.base + (<uint64_t>table << m.config.geometry.table_shift))
    cdef int shift = m.config.geometry.level_shift[level]
    cdef uint64_t step = <uint64_t>1 << (shift - m.config.geometry.base_shift)
    cdef uint64_t n = <uint64_t>1 << m.config.geometry.index_bits
    cdef uint64_t i = 0, entry, entries_done, count, size
    if found.start > address:
        i = (found.start - address) >> shift & ~<uint64_t>(m.config.geometry.group[level] - 1)
    if found.stop <= address or i >= n:
        return
    n = min(n, ((found.stop - address - 1) >> shift) + 1)
    if level == PMD:
        meet_table(m, table, address, process, found)
    i = hgm_next_entry(entries, i, n)
    while i < n and not found.failed:
        entry = entries[i]
        entries_done = 1
        if found.poison and not entry & HGM_PTE_PRESENT:
            if entry & HGM_PTE_POISON:
                note(found, address + (i << shift), i, 1, step, process, level, m.config.geometry.base_shift)
        elif entry & HGM_PTE_PRESENT and entry & HGM_PTE_LEAF:
            count = 1
            size = step
            if entry & HGM_PTE_GROUP:
                entries_done = m.config.geometry.group[level]
                size *= entries_done
            elif step == 1:
                entries_done = count = hgm_frame_run(&entries[i], n - i)
            if not found.poison:
                note(found, address + (i << shift), entry >> HGM_PTE_FRAME_SHIFT, count, size, process, level,
                     m.config.geometry.base_shift)
        elif entry & HGM_PTE_PRESENT:
            walk(m, <uint32_t>(entry >> HGM_PTE_FRAME_SHIFT), level - 1, address + (i << shift), process, found)
        i = hgm_next_entry(entries, i + entries_done, n)


def leaves(Core core, spans=None):
    """All present leaves of all processes, as runs: an array of LEAVES, by process and address.

    spans: only those there, rows (process, start, stop) of virtual addresses, a uint64 array (n, 3), ascending and
    apart; of a huge page's group of entries all or none. Of a shared table all users must be among them.
    """
    return entries(core, False, spans)


def poisoned(Core core):
    """The entries that stand where memory failed, as leaves() has leaves; their pfn says nothing."""
    return entries(core, True, None) if core.m.state.poisoned.used else np.empty(0, LEAVES)


cdef object entries(Core core, bint poison, spans):
    cdef Machine *m = &core.m
    cdef Runs found
    cdef uint64_t i
    cdef uint32_t process
    cdef const uint64_t[:, ::1] span
    if spans is None:
        spans = np.zeros((m.state.nr_processes, 3), np.uint64)
        spans[:, 0] = np.arange(m.state.nr_processes)
        spans[:, 2] = np.uint64(0xffffffffffffffff)
    span = spans
    memset(&found, 0, sizeof(found))
    found.poison = poison
    try:
        with nogil:
            for i in range(<uint64_t>span.shape[0]):
                process = <uint32_t>span[i, 0]
                found.shared = found.again = 0
                found.start = span[i, 1]
                found.stop = span[i, 2]
                if process < m.state.nr_processes and m.state.processes[process].root:
                    walk(m, m.state.processes[process].root, m.config.geometry.levels, 0, process, &found)
        if found.failed:
            raise MemoryError("no memory to recount the page tables")
        out = np.empty(found.n, LEAVES)
        if found.n:
            out.view(np.uint8)[:] = np.asarray(<unsigned char[:found.n * sizeof(Leaves)]><unsigned char *>found.runs)
        return out
    finally:
        free(found.runs)
        free(found.tables)


cdef void count_tables(Machine *m, uint32_t table, int level, uint64_t *counts) noexcept nogil:
    """Add the tables below `table`, whose entries are of `level`, to counts[level of their entries]."""
    cdef uint64_t *entries = <uint64_t *>(m.state.tables.base + (<uint64_t>table << m.config.geometry.table_shift))
    cdef uint64_t i
    if level == PMD:
        counts[1] += (<hgm_ptdesc *>m.state.ptdescs.base)[table].nr_deposited
    if level == PTE:
        return
    for i in range(<uint64_t>1 << m.config.geometry.index_bits):
        if entries[i] & (HGM_PTE_PRESENT | HGM_PTE_LEAF) == HGM_PTE_PRESENT:
            counts[level - 1] += 1
            count_tables(m, <uint32_t>(entries[i] >> HGM_PTE_FRAME_SHIFT), level - 1, counts)


def page_tables(Core core):
    """How many page tables each process has, by the level of their entries: a uint64 array (processes, 4).

    Columns 1 to 3 are tables of PTEs, PMDs and PUDs, without the root; those in deposit, for PMD leaves of anonymous
    memory, are tables of PTEs. A shared table counts for each of its users, as in VmPTE.
    """
    cdef Machine *m = &core.m
    cdef uint32_t process
    cdef uint64_t counts[8]
    out = np.zeros((m.state.nr_processes, 4), np.uint64)
    cdef unsigned long[:, ::1] row = out
    for process in range(m.state.nr_processes):
        memset(counts, 0, sizeof(counts))
        if m.state.processes[process].root:
            count_tables(m, m.state.processes[process].root, m.config.geometry.levels, counts)
        for level in range(1, 4):
            row[process, level] = counts[level]
    return out


def split_at_folios(runs, folios, base_shift):
    """Runs of leaves cut where they go from one huge page into the next, in the order of `runs`.

    runs: an array of LEAVES; folios: Core.folios(), or some rows of it: what maps others is left out.
    """
    begin = folios["pfn"].astype(np.int64)
    end = begin + folios["nr_pages"].astype(np.int64)
    first = runs["pfn"].astype(np.int64)
    last = first + (runs["count"] * runs["size"]).astype(np.int64)
    low = np.searchsorted(end, first, "right")
    parts = np.maximum(np.searchsorted(begin, last, "left") - low, 0)
    of = np.repeat(np.arange(len(runs)), parts)
    folio = low[of] + np.arange(len(of)) - np.repeat(np.cumsum(parts) - parts, parts)
    start = np.maximum(first[of], begin[folio])
    out = runs[of]
    out["address"] += (start - first[of]).astype(np.uint64) << np.uint64(base_shift)
    out["pfn"] = start
    out["count"] = (np.minimum(last[of], end[folio]) - start) // out["size"].astype(np.int64)
    return out


def mapcounts(runs):
    """How many leaves map each base page: runs (first pfn, last pfn, count > 0), an int64 array (n, 3).

    runs: an array of LEAVES; a leaf in a shared table is one leaf, however many processes reach it. Sorted and
    disjoint; neighbours differ in count or do not touch.
    """
    runs = runs[runs["again"] == 0]
    first = runs["pfn"].astype(np.int64)
    last = first + (runs["count"] * runs["size"]).astype(np.int64)
    if (first[1:] >= last[:-1]).all():    # in order, and no page twice
        if not len(first):
            return np.empty((0, 3), np.int64)
        apart = first[1:] != last[:-1]
        out = np.ones((1 + np.count_nonzero(apart), 3), np.int64)
        out[0, 0], out[-1, 1] = first[0], last[-1]
        out[1:, 0], out[:-1, 1] = first[1:][apart], last[:-1][apart]
        return out
    at, where = np.unique(np.concatenate([first, last]), return_inverse=True)
    change = np.zeros(len(at), np.int64)
    np.add.at(change, where[:len(first)], 1)
    np.add.at(change, where[len(first):], -1)
    count = np.cumsum(change)
    keep = np.flatnonzero(change)
    at, count = at[keep], count[keep]
    out = np.stack([at[:-1], at[1:], count[:-1]], 1) if len(at) else np.empty((0, 3), np.int64)
    return out[out[:, 2] > 0]
