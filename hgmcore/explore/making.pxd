# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Making a tiny machine: its memory, and how wide everything is in a packed state."""
from hgmcore.hgm cimport *
from hgmcore.core.core cimport Core, Engine
from hgmcore.core.machine cimport File
from hgmcore.explore.packing cimport (
    entry_bits, folio_bits, KEEPS_EACH_SLOT, KEEPS_OWNERS, KEEPS_SLOTS, KEEPS_SUMS, MARKS, state_bits, subtree_bits
)
from hgmcore.explore.symmetry cimport PAGES_STAY
from hgmcore.explore.tiny cimport MAX_HUGE, MAX_PAGES, MAX_PROCESSES, MAX_WORDS, Tiny, tiny_place

cdef inline int tiny_make(Tiny *t, Core core, Engine engine, int born, int maxpins, permutations, int pages,
                          uint32_t fields, bint poison) except -1:
    """A tiny machine like `core`, on which nothing ran. ValueError: it does not fit; MemoryError."""
    cdef File *f = &core.m.state.files[0]
    cdef int i, j, c
    t.m = core.m
    t.run, t.answer = engine.run, engine.answer
    t.page_mapcount_runs = engine.page_mapcount_runs
    t.P, t.H, t.N = core.m.state.nr_processes, <int>f.pages, <int>f.nr_pages
    t.hstate_level, t.born = f.level, born
    if (t.P > MAX_PROCESSES or t.H > MAX_HUGE or t.N > MAX_PAGES or t.N < 2
            or t.H > 1 << core.m.config.geometry.index_bits):
        raise ValueError(f"a search has at most {MAX_PROCESSES} processes and {MAX_HUGE} huge pages of 2 to "
                         f"{MAX_PAGES} base pages")
    t.fields = fields
    if engine.has_slots:
        t.keeps = KEEPS_EACH_SLOT if engine.by_number else KEEPS_SLOTS
        t.spread = t.P if engine.by_number else 1
    elif engine.by_number and engine.table is NULL:    # the numbers of four processes have three bits
        t.keeps, t.spread = KEEPS_SUMS, 3
    else:
        t.keeps, t.spread = KEEPS_OWNERS, 0
    t.nr_permutations = len(permutations)
    for i in range(t.nr_permutations):
        for j in range(t.P):
            t.permutations[i][j] = permutations[i][j]
    c = t.N if core.m.config.options.cache_refs_folio else 1
    t.count_bound = t.P * t.N
    t.count_bits = int(t.count_bound).bit_length()
    t.pin_bits = int(maxpins).bit_length()
    t.ref_bits = min(32, int(c + maxpins + (t.N if poison else 0) + t.count_bound).bit_length())
    t.id_bits = int(t.P).bit_length()
    t.mark_bits = 4
    t.page_symmetry = pages if not fields & MARKS or t.H == 1 else PAGES_STAY
    for i in range(1, t.hstate_level + 1):
        t.entry_width[i] = entry_bits(t, i)
    t.process_bits = 5 + t.H * subtree_bits(t)
    t.folios_at = 2 + t.H + t.P * t.process_bits + (t.P * t.H * t.mark_bits if fields & MARKS else 0)
    if t.process_bits > 64:
        raise ValueError("a process of this scope does not fit in a word")
    t.folio_width = folio_bits(t)
    t.words = (state_bits(t) + 63) // 64
    if t.words > MAX_WORDS:
        raise ValueError("a state of this scope is too large")
    if not tiny_place(t):
        raise MemoryError("no memory for a search")
    return 0
