# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""What threads of a race share, as Python objects: where an address lies, and every word there is."""
from hgmcore.hgm cimport *
from hgmcore.core.machine cimport File, Machine, Mapping, NO_TABLE, Process
from hgmcore.core.table cimport hstate_entry, number_of_table, table_desc, table_entries
from hgmcore.explore.tiny cimport Tiny

cdef enum:
    MAX_LOCKS = 16                # that two threads hold

cdef struct Held:
    const void *of
    int32_t lock
    int32_t how
    int32_t owner
    int32_t unused

# What a global state has beside the machine's memory and the threads.
cdef struct Beside:
    uint64_t underflows, overflows
    uint64_t nr_locks
    Held locks[MAX_LOCKS]
    uint64_t nr_results
    hgm_result results[2]

cdef inline tuple place(Tiny *t, const void *where):
    """What stands at an address: (name of a region, number in it, byte in that element)."""
    cdef Machine *m = &t.m
    cdef const unsigned char *at = <const unsigned char *>where
    cdef uint64_t table = <uint64_t>1 << m.config.geometry.table_shift
    for name, base, size, used in (
            ("table", <size_t>m.state.tables.base, table, m.state.tables.reserved),
            ("ptdesc", <size_t>m.state.ptdescs.base, sizeof(hgm_ptdesc), m.state.ptdescs.reserved),
            ("page", <size_t>m.state.vmemmap.base, sizeof(hgm_page), m.state.vmemmap.reserved),
            ("folio", <size_t>m.state.folios.base, sizeof(hgm_folio), m.state.folios.reserved),
            ("file", <size_t>m.state.files, sizeof(File), sizeof(File)),
            ("process", <size_t>m.state.processes, sizeof(Process), t.P * sizeof(Process)),
            ("mapping", <size_t>m.state.mappings, sizeof(Mapping), t.P * sizeof(Mapping)),
            ("cache", <size_t>m.state.files[0].cache, sizeof(uint32_t), t.H * sizeof(uint32_t))):
        if <size_t>at - base < used:
            return name, (<size_t>at - base) // size, (<size_t>at - base) % size
    return "elsewhere", 0, 0

cdef inline dict memory(Tiny *t, const Beside *beside):
    """The words that threads share: tables, children by table, pages (bytes of struct pages), cache; hstate: where each
    process's hstate-level entry of each huge page stands, (table, entry); locks held, (thread, class, how, place).
    """
    cdef Machine *m = &t.m
    cdef uint64_t fan_out = <uint64_t>1 << m.config.geometry.index_bits
    cdef uint64_t tables = m.state.tables.used >> m.config.geometry.table_shift, i
    cdef uint64_t *entry
    cdef Mapping *v
    cdef int p, h
    entries = [[table_entries(m, i)[k] for k in range(fan_out)] for i in range(tables)]
    pages = <bytes>(<char *>m.state.vmemmap.base)[:m.state.vmemmap.used]
    hstate = {}
    for p in range(t.P):
        v = &m.state.mappings[p]
        for h in range(t.H):
            entry = NULL
            if m.state.processes[p].root != NO_TABLE and v.nr_vmas:
                entry = hstate_entry(m, &m.state.processes[p],
                                     v.address + (<uint64_t>h << m.state.files[0].page_shift), t.hstate_level,
                                     False)
            if entry is not NULL:
                hstate[p, h] = (number_of_table(m, entry), (entry - table_entries(m, number_of_table(m, entry))))
    return {"tables": entries, "children": [table_desc(m, i).children for i in range(tables)], "pages": pages,
            "cache": [m.state.files[0].cache[h] for h in range(t.H)], "hstate": hstate,
            "level": t.hstate_level, "base_pages": t.N,
            "locks": [(beside.locks[i].owner, beside.locks[i].lock, beside.locks[i].how,
                       place(t, beside.locks[i].of)) for i in range(beside.nr_locks)]}
