# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Packed states: a whole machine in a few 64-bit words, without what does not matter.

What does not matter: costs, results, frame, table and folio numbers, addresses.

    packed state:  file size | which huge pages are cached | a word for each process | counted marks | folios

    process:       born, mapped, exited | VMA flags | for each huge page the entries at and below the hstate level,
                   each in a place of its own, whether there is a table or not
    folio:         reference count | freed | pins | then the words of the fields that any state of this search uses

Folios are numbered by first appearance: the page cache in order, then the folios that counted marks stand for. What is
the same but for which process or base page is which: symmetry.pxd.
"""
from libc.string cimport memset

from hgmcore.hgm cimport *
from hgmcore.core.folio cimport cache_refs, folio_at
from hgmcore.core.machine cimport Machine, Mapping, Vma
from hgmcore.core.table cimport (
    hstate_entry, is_leaf, is_table, leaf_entry, PTE, table_desc, table_entries, table_number
)
from hgmcore.explore.tiny cimport (
    blank, BORN, EXITED, MAPS, MAX_PROCESSES, MAX_STATE_FOLIOS, new_folio, new_table, Seen, Tiny, UNBORN
)

# Fields of a packed state that only some schemes or scopes use.
cdef enum:
    MARKS = 1
    CHILDREN = 2
    POISON = 4
    ENTIRE = 8
    NR_PAGES_MAPPED = 16
    LARGE = 32
    TOTAL = 64
    PER_PAGE = 128
    DOUBLE_MAP = 256
    SLOTS = 512
    STRANGE = 1024                # a word that no field stands for
    SPREAD = 2048
    PRIVATE = 4096                # hgm_page.private_ of each struct page
    PRIVATE_BITS = 16

# What a scheme keeps in the words where others have their owners' slots: those; slots (hgm.h) of which only the sum
# matters, or each one; sums of process numbers (rmap_id). All but the owners are counts, `spread` of them.
cdef enum:
    KEEPS_OWNERS, KEEPS_SLOTS, KEEPS_EACH_SLOT, KEEPS_SUMS

cdef struct Bits:
    uint64_t *words
    int at

cdef inline void put(Bits *b, uint64_t value, int width) noexcept nogil:
    cdef int at = b.at & 63
    b.words[b.at >> 6] |= value << at
    if at + width > 64:
        b.words[(b.at >> 6) + 1] |= value >> (64 - at)
    b.at += width

cdef inline void replace(Bits *b, uint64_t value, int width) noexcept nogil:
    """put(), where other bits stand."""
    cdef int at = b.at & 63
    cdef uint64_t mask = ~<uint64_t>0 >> (64 - width)
    b.words[b.at >> 6] = b.words[b.at >> 6] & ~(mask << at) | value << at
    if at + width > 64:
        b.words[(b.at >> 6) + 1] = b.words[(b.at >> 6) + 1] & ~(mask >> (64 - at)) | value >> (64 - at)
    b.at += width

cdef inline uint64_t get(Bits *b, int width) noexcept nogil:
    cdef int at = b.at & 63
    cdef uint64_t value = b.words[b.at >> 6] >> at
    if at + width > 64:
        value |= b.words[(b.at >> 6) + 1] << (64 - at)
    b.at += width
    return value & (~<uint64_t>0 >> (64 - width)) if width else 0

cdef inline int entry_bits(const Tiny *t, int level) noexcept nogil:
    """Bits of an entry of a level and of all below it."""
    if level == PTE:
        return 2
    return (2 + (t.m.config.geometry.index_bits + 1 if t.fields & CHILDREN else 0)
            + (entry_bits(t, level - 1) << t.m.config.geometry.index_bits))

cdef inline int subtree_bits(const Tiny *t) noexcept nogil:
    return (2 if t.fields & MARKS else 0) + entry_bits(t, t.hstate_level)    # counted, and for the page that is cached

cdef inline int folio_bits(const Tiny *t) noexcept nogil:
    cdef int bits = t.ref_bits + 1 + t.pin_bits
    bits += t.N if t.fields & POISON else 0
    bits += t.count_bits if t.fields & ENTIRE else 0
    bits += t.count_bits + 1 if t.fields & NR_PAGES_MAPPED else 0
    bits += t.count_bits if t.fields & LARGE else 0
    bits += t.count_bits if t.fields & TOTAL else 0
    bits += t.N * t.count_bits if t.fields & PER_PAGE else 0
    bits += 1 if t.fields & DOUBLE_MAP else 0
    bits += t.spread * t.count_bits if t.fields & SPREAD else 0
    bits += 1 + 2 * (t.id_bits + t.count_bits) if t.fields & SLOTS else 0
    bits += t.N * PRIVATE_BITS if t.fields & PRIVATE else 0
    return bits

cdef inline int state_bits(const Tiny *t) noexcept nogil:
    cdef int folios = t.H
    cdef int bits = 2 + t.H + t.P * t.process_bits
    if t.fields & MARKS:
        folios += t.P * t.H
        bits += t.P * t.H * t.mark_bits
    return bits + folios * folio_bits(t)

cdef inline hgm_page *sums_page(const Tiny *t, const hgm_folio *folio) noexcept nogil:
    return &folio.page[3 if t.N > 3 else 1]

cdef inline int64_t sums_base(const Tiny *t) noexcept nogil:
    """Of a folio of so few base pages."""
    return 1025 if t.m.config.options.rmap_values == 4 else 513

cdef inline int64_t spread_get(const Tiny *t, const hgm_folio *folio, int i) noexcept nogil:
    """The count of number i: all slots, slot i, or digit i of the first sum."""
    cdef int64_t sum = 0, base = sums_base(t)
    cdef uint32_t slot
    if t.keeps == KEEPS_EACH_SLOT:
        return hgm_slot(folio, i)[0]
    if t.keeps == KEEPS_SLOTS:
        for slot in range(hgm_nr_slots(folio)):
            sum += hgm_slot(folio, slot)[0]
        return sum
    sum = sums_page(t, folio)._rmap_val0
    if sum < 0:
        return -1
    while i > 0:
        sum //= base
        i -= 1
    return sum % base

cdef inline bint spread_strange(const Tiny *t, const hgm_folio *folio) noexcept nogil:
    """Has a slot of no process something in it, or a sum that no process adds to?"""
    cdef hgm_page *page = sums_page(t, folio)
    cdef uint32_t slot
    cdef bint strange = False
    if t.keeps == KEEPS_EACH_SLOT:
        for slot in range(t.P, hgm_nr_slots(folio)):
            strange |= hgm_slot(folio, slot)[0] != 0
    elif t.keeps == KEEPS_SUMS:
        strange = page._rmap_val1 | page._rmap_val2 | page._rmap_val3 != 0
    return strange

cdef inline void spread_set(const Tiny *t, hgm_folio *folio, int i, int64_t count) noexcept nogil:
    cdef int64_t base = sums_base(t)
    if t.keeps == KEEPS_SUMS:
        while i > 0:
            count *= base
            i -= 1
        sums_page(t, folio)._rmap_val0 += count
    else:
        hgm_slot(folio, i)[0] = <int32_t>count

cdef inline void entries_unpack(Tiny *t, Bits *b, uint64_t *entry, int level, uint64_t pfn) noexcept nogil:
    """What stands at `entry` of `level`, whose first base page is frame `pfn`, and below it."""
    cdef Machine *m = &t.m
    cdef int end = b.at + t.entry_width[level], code = <int>get(b, 2), i, entries = 1 << m.config.geometry.index_bits
    cdef uint64_t step, number
    if code == 0:
        b.at = end
    elif code == 1 or level == PTE and code == 2:
        entry[0] = leaf_entry(pfn) | (HGM_PTE_GROUP if code == 2 else 0)
        b.at = end
    elif code == 3:
        entry[0] = HGM_PTE_POISON
        b.at = end
    else:
        number = new_table(t)
        m.state.nr_tables += 1
        entry[0] = number << HGM_PTE_FRAME_SHIFT | HGM_PTE_PRESENT
        if t.fields & CHILDREN:
            table_desc(m, number).children = <uint32_t>get(b, m.config.geometry.index_bits + 1)
        step = <uint64_t>1 << (m.config.geometry.level_shift[level - 1] - m.config.geometry.base_shift)
        for i in range(entries):
            entries_unpack(t, b, &table_entries(m, number)[i], level - 1, pfn + i * step)

cdef inline void folio_unpack(Tiny *t, Bits *b, uint32_t number) noexcept nogil:
    cdef Machine *m = &t.m
    cdef hgm_folio *folio = folio_at(m, number)
    cdef hgm_page *page1 = &folio.page[1]
    cdef uint64_t bad
    cdef int i
    folio.page._refcount = <int32_t>get(b, t.ref_bits)
    folio.flags |= HGM_FOLIO_FREED if get(b, 1) else 0
    folio.pins = <int32_t>get(b, t.pin_bits)
    if t.fields & POISON:
        bad = get(b, t.N)
        for i in range(t.N):
            if bad >> i & 1:
                (<uint64_t *>m.state.poisoned.base)[m.state.poisoned.used // sizeof(uint64_t)] = folio.pfn + i
                m.state.poisoned.used += sizeof(uint64_t)
                folio.poisons += 1
                folio.flags |= HGM_FOLIO_POISONED
    if t.fields & ENTIRE:
        page1._entire_mapcount = <int32_t>get(b, t.count_bits)
    if t.fields & NR_PAGES_MAPPED:
        page1._nr_pages_mapped = <int32_t>get(b, t.count_bits)
        page1._nr_pages_mapped += <int32_t>get(b, 1) << 23
    if t.fields & LARGE:
        page1._large_mapcount = <int32_t>get(b, t.count_bits)
    if t.fields & TOTAL:
        page1._total_mapped_pages = <int64_t>get(b, t.count_bits)
    if t.fields & PER_PAGE:
        for i in range(t.N):
            folio.page[i]._mapcount = <int32_t>get(b, t.count_bits)
    if t.fields & DOUBLE_MAP and get(b, 1):
        page1.flags |= HGM_PAGE_DOUBLE_MAP
    if t.fields & SPREAD:
        for i in range(t.spread):
            spread_set(t, folio, i, <int64_t>get(b, t.count_bits))
    if t.fields & SLOTS:
        for i in range(2):
            page1._mm_id[i] = <uint32_t>get(b, t.id_bits)
            page1._mm_id_mapcount[i] = <int32_t>get(b, t.count_bits)
        if get(b, 1):
            page1._mm_id[1] |= <uint32_t>1 << 31
    if t.fields & PRIVATE:
        for i in range(t.N):
            folio.page[i].private_ = get(b, PRIVATE_BITS)

cdef inline void unpack(Tiny *t, const uint64_t *key) noexcept nogil:
    """Make the machine the state `key`."""
    cdef Machine *m = &t.m
    cdef Bits b, word
    cdef uint64_t words[MAX_PROCESSES][2]
    cdef uint32_t number
    cdef int p, h, status, level, cached, bits
    cdef uint64_t *entry
    cdef uint32_t held
    cdef int nr_marks = 0, k
    cdef uint64_t *marks[MAX_STATE_FOLIOS]
    cdef uint32_t pages[MAX_STATE_FOLIOS]
    cdef bint counted, same
    cdef Vma *vma
    blank(t)
    t.before.unborn = 0
    b.words = <uint64_t *>key
    b.at = 0
    m.state.files[0].size = get(&b, 2)
    cached = <int>get(&b, t.H)
    for h in range(t.H):
        if cached >> h & 1:
            number = new_folio(t, h)
            m.state.files[0].cache[h] = number + 1
            folio_at(m, number).flags = HGM_FOLIO_CACHED
    for p in range(t.P):
        words[p][0] = get(&b, t.process_bits)
        words[p][1] = 0
        word.words = words[p]
        word.at = 0
        status = <int>get(&word, 2)
        if status == UNBORN:
            t.before.unborn |= 1 << p
        elif status == EXITED:
            m.state.processes[p].exited = True
        elif status == MAPS:
            vma = &m.state.mappings[p].vmas[0]
            m.state.mappings[p].nr_vmas = 1
            m.state.processes[p].next_address = vma.end = m.state.mappings[p].length
            vma.start = 0
            vma.lock = 0
            bits = <int>get(&word, 3)
            vma.flags = HGM_OPF_SHARED | HGM_OPF_READ | HGM_OPF_WRITE | bits << 1
            level = m.config.geometry.levels
            m.state.processes[p].root = number = new_table(t)
            while level > t.hstate_level:
                table_entries(m, number)[0] = <uint64_t>(number + 1) << HGM_PTE_FRAME_SHIFT | HGM_PTE_PRESENT
                number = new_table(t)
                level -= 1
            for h in range(t.H):
                entry = &table_entries(m, number)[h]
                counted = same = False
                if t.fields & MARKS:
                    counted = get(&word, 1)
                    same = get(&word, 1)
                held = m.state.files[0].cache[h]
                entries_unpack(t, &word, entry, t.hstate_level, folio_at(m, held - 1).pfn if held else 0)
                if counted:
                    entry[0] |= HGM_PTE_COUNTED
                    if same:
                        table_desc(m, table_number(entry[0])).folio = m.state.files[0].cache[h]
                    else:
                        marks[nr_marks] = entry
                        pages[nr_marks] = h
                        nr_marks += 1
    for k in range(nr_marks):
        number = <uint32_t>get(&b, t.mark_bits)
        while number >= m.state.nr_folios:
            new_folio(t, pages[k])
        table_desc(m, table_number(marks[k][0])).folio = number + 1
    b.at = t.folios_at
    for number in range(m.state.nr_folios):
        folio_unpack(t, &b, number)

cdef inline void ptes_look(Tiny *t, Bits *b, const uint64_t *entries, const hgm_folio *folio,
                           uint64_t first) noexcept nogil:
    """What stands in a table of PTEs: as entries_look() of each."""
    cdef uint64_t codes = 0, e, frame = folio.pfn + first if folio is not NULL else 0
    cdef int i, n = 1 << t.m.config.geometry.index_bits
    cdef bint strange = False
    for i in range(n):
        e = entries[i]
        if e == 0:
            continue
        if is_leaf(e):
            strange |= e >> HGM_PTE_FRAME_SHIFT != frame + i or folio is NULL
            codes |= <uint64_t>(2 if e & HGM_PTE_GROUP else 1) << 2 * i
        else:
            strange |= e != HGM_PTE_POISON
            codes |= <uint64_t>3 << 2 * i
    t.seen.strange |= strange
    put(b, codes, 2 * n)

cdef inline void entries_look(Tiny *t, Bits *b, const uint64_t *entry, int level, const hgm_folio *folio,
                       uint64_t first) noexcept nogil:
    cdef Machine *m = &t.m
    cdef uint64_t e = entry[0], step
    cdef uint32_t number
    cdef int end = b.at + t.entry_width[level], i
    if e == 0:
        put(b, 0, 2)
    elif is_leaf(e):
        if folio is NULL or e >> HGM_PTE_FRAME_SHIFT != folio.pfn + first:
            t.seen.strange = True
        put(b, 2 if e & HGM_PTE_GROUP else 1, 2)
    elif is_table(e) and level > 1:
        put(b, 2, 2)
        number = table_number(e)
        if t.fields & CHILDREN:
            put(b, table_desc(m, number).children, m.config.geometry.index_bits + 1)
            if table_desc(m, number).children > <uint32_t>1 << m.config.geometry.index_bits:
                t.seen.strange = True
        elif table_desc(m, number).children:
            t.seen.grow |= CHILDREN
        if level == 2:
            ptes_look(t, b, table_entries(m, number), folio, first)
            return
        step = <uint64_t>1 << (m.config.geometry.level_shift[level - 1] - m.config.geometry.base_shift)
        for i in range(1 << m.config.geometry.index_bits):
            entries_look(t, b, &table_entries(m, number)[i], level - 1, folio, first + i * step)
    elif e == HGM_PTE_POISON:
        put(b, 3, 2)
    else:
        t.seen.strange = True
    b.at = end

cdef inline void look(Tiny *t) noexcept nogil:
    """See the machine as a packed state does: `t.seen`, but for its folios."""
    cdef Machine *m = &t.m
    cdef Seen *s = &t.seen
    cdef Mapping *v
    cdef Bits b
    cdef uint64_t word[2]
    cdef uint64_t *entry
    cdef hgm_folio *folio
    cdef int p, h
    s.grow = 0
    s.strange = s.negative = s.unbounded = False
    for h in range(t.H):
        s.cached[h] = m.state.files[0].cache[h]
    for p in range(t.P):
        word[0] = word[1] = 0
        b.words = word
        b.at = 0
        v = &m.state.mappings[p]
        for h in range(t.H):
            s.mark[p][h] = 0
        if s.unborn >> p & 1:
            put(&b, UNBORN, 2)
        elif m.state.processes[p].exited:
            put(&b, EXITED, 2)
        elif v.nr_vmas == 0:
            put(&b, BORN, 2)
        else:
            put(&b, MAPS, 2)
            if v.nr_vmas > 1:
                s.strange = True
            put(&b, v.vmas[0].flags >> 1 & 7, 3)
            for h in range(t.H):
                entry = hstate_entry(m, &m.state.processes[p],
                                     v.address + (<uint64_t>h << m.state.files[0].page_shift), t.hstate_level,
                                     False)
                folio = folio_at(m, s.cached[h] - 1) if s.cached[h] else NULL
                if entry is not NULL and entry[0] & HGM_PTE_COUNTED:
                    s.mark[p][h] = table_desc(m, table_number(entry[0])).folio
                    if not t.fields & MARKS:
                        s.grow |= MARKS
                if t.fields & MARKS:
                    put(&b, s.mark[p][h] != 0, 1)
                    put(&b, s.mark[p][h] != 0 and s.mark[p][h] == s.cached[h], 1)
                if entry is not NULL and entry[0]:
                    entries_look(t, &b, entry, t.hstate_level, folio, 0)
                else:
                    b.at += t.entry_width[t.hstate_level]
        s.word[p] = word[0]

cdef inline void count_pack(Tiny *t, Bits *b, uint32_t field, int64_t value) noexcept nogil:
    """A map word."""
    if value < 0:
        t.seen.negative |= value > -(<int64_t>1 << 30)    # else it has wrapped: an overflow
        value = 0
    elif value > t.count_bound:
        t.seen.unbounded = True
        value = 0
    if t.fields & field:
        put(b, <uint64_t>value, t.count_bits)
    elif value:
        t.seen.grow |= field

cdef inline void folio_pack(Tiny *t, Bits *b, uint32_t number, const int *inverse) noexcept nogil:
    cdef Machine *m = &t.m
    cdef hgm_folio *folio = folio_at(m, number)
    cdef hgm_page *page1 = &folio.page[1]
    cdef Seen *s = &t.seen
    cdef int64_t references = folio.page._refcount
    cdef int64_t bound = folio.pins + folio.poisons + t.count_bound
    cdef uint64_t bad = 0
    cdef size_t k
    cdef int i
    cdef uint32_t id
    if folio.flags & HGM_FOLIO_CACHED:
        bound += cache_refs(m, folio)
    if references < 0 or references > bound:
        s.negative |= references < 0 and references > -(<int64_t>1 << 30)
        s.unbounded |= references > bound
        references = 0
    put(b, <uint64_t>references, t.ref_bits)
    put(b, folio.flags & HGM_FOLIO_FREED != 0, 1)
    put(b, <uint64_t>folio.pins, t.pin_bits)
    if t.fields & POISON:
        for k in range(m.state.poisoned.used // sizeof(uint64_t)):
            if (<uint64_t *>m.state.poisoned.base)[k] - folio.pfn < folio.nr_pages:
                bad |= <uint64_t>1 << ((<uint64_t *>m.state.poisoned.base)[k] - folio.pfn)
        put(b, bad, t.N)
    elif folio.poisons:
        s.grow |= POISON
    count_pack(t, b, ENTIRE, page1._entire_mapcount)
    count_pack(t, b, NR_PAGES_MAPPED,
               page1._nr_pages_mapped & 0x7fffff if page1._nr_pages_mapped >= 0 else page1._nr_pages_mapped)
    if t.fields & NR_PAGES_MAPPED:
        put(b, page1._nr_pages_mapped >> 23 & 1, 1)
        s.unbounded |= page1._nr_pages_mapped >> 24 > 0
    elif page1._nr_pages_mapped:
        s.grow |= NR_PAGES_MAPPED
    count_pack(t, b, LARGE, page1._large_mapcount)
    count_pack(t, b, TOTAL, page1._total_mapped_pages if t.keeps == KEEPS_OWNERS else 0)
    for i in range(t.N):
        count_pack(t, b, PER_PAGE, folio.page[i]._mapcount)
    if t.fields & DOUBLE_MAP:
        put(b, page1.flags & HGM_PAGE_DOUBLE_MAP != 0, 1)
    elif page1.flags & HGM_PAGE_DOUBLE_MAP:
        s.grow |= DOUBLE_MAP
    if t.keeps != KEEPS_OWNERS:
        for i in range(t.spread):
            count_pack(t, b, SPREAD, spread_get(t, folio, i))
        s.strange |= spread_strange(t, folio)
    elif t.fields & SLOTS:
        for i in range(2):
            id = page1._mm_id[i] & 0x7fffffff
            if id > <uint32_t>t.P:
                s.strange = True
                id = 0
            put(b, <uint64_t>inverse[id - 1] + 1 if id else 0, t.id_bits)
            count_pack(t, b, SLOTS, page1._mm_id_mapcount[i])
        put(b, page1._mm_id[1] >> 31, 1)
    elif page1._mm_id[0] | page1._mm_id[1]:
        s.grow |= SLOTS
    if page1._pincount:
        s.grow |= STRANGE
    for i in range(t.N if t.keeps == KEEPS_OWNERS else 0):    # sums of process numbers stand there too
        if folio.page[i].private_ >> PRIVATE_BITS:
            s.grow |= STRANGE
        elif t.fields & PRIVATE:
            put(b, folio.page[i].private_, PRIVATE_BITS)
        elif folio.page[i].private_:
            s.grow |= PRIVATE

cdef inline void pack(Tiny *t, const int *order, uint64_t *key) noexcept nogil:
    """The packed state of the machine that look() saw, with process order[i] in place i."""
    cdef Machine *m = &t.m
    cdef Seen *s = &t.seen
    cdef Bits b
    cdef int inverse[MAX_PROCESSES]
    cdef uint32_t folios[MAX_STATE_FOLIOS]
    cdef uint32_t mark
    cdef int n = 0, i, h, k
    memset(key, 0, t.words * sizeof(uint64_t))
    b.words = key
    b.at = 0
    put(&b, m.state.files[0].size, 2)
    for h in range(t.H):
        put(&b, s.cached[h] != 0, 1)
        if s.cached[h]:
            folios[n] = s.cached[h] - 1
            n += 1
    for i in range(t.P):
        inverse[order[i]] = i
        put(&b, s.word[order[i]], t.process_bits)
    if t.fields & MARKS:
        for i in range(t.P):
            for h in range(t.H):
                mark = s.mark[order[i]][h]
                if mark == 0 or mark == s.cached[h]:
                    continue
                k = 0
                while k < n and folios[k] != mark - 1:
                    k += 1
                if k == n:
                    folios[n] = mark - 1
                    n += 1
                put(&b, k, t.mark_bits)
    b.at = t.folios_at
    for k in range(n):
        folio_pack(t, &b, folios[k], inverse)
