# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Symmetry: states that are the same but for which process or base page is which are one, the least of them.

    processes   those of one birth are exchanged, in owner slots too
    base pages  those of one table are exchanged, and the tables below one table with all that is in them; contiguous
                groups only as a whole. An exchange moves a base page's entries in all processes, its map count and
                its failure. A scheme that looks at base page 0 keeps it in its place.

Base pages are sorted, never tried in all orders: what a packed state has of each of them is one number (a column).
"""
from libc.string cimport memcpy

from hgmcore.hgm cimport *
from hgmcore.explore.packing cimport (
    Bits, CHILDREN, ENTIRE, get, LARGE, MARKS, NR_PAGES_MAPPED, pack, PER_PAGE, POISON, replace, SLOTS,
    subtree_bits, TOTAL
)
from hgmcore.explore.tiny cimport MAX_HUGE, MAX_PAGES, MAX_PROCESSES, MAX_STATE_FOLIOS, MAX_WORDS, Tiny

# No base pages are exchanged, all but the first, or all.
cdef enum:
    PAGES_STAY, FIRST_STAYS, PAGES_MOVE

# How a packed state became the least one. pages: which base page is now at each place of a huge page.
cdef struct Chosen:
    int permutation
    uint32_t orbit                # states that it stands for
    unsigned char pages[MAX_HUGE][MAX_PAGES]

cdef inline int key_order(const Tiny *t, const uint64_t *a, const uint64_t *b) noexcept nogil:
    cdef int i
    for i in range(t.words):
        if a[i] != b[i]:
            return -1 if a[i] < b[i] else 1
    return 0

cdef inline bint in_order(const Tiny *t, const uint64_t *words, const int *order) noexcept nogil:
    """Are processes of one birth in the order of their words? Exchanges of base pages change the words."""
    cdef int k
    if t.page_symmetry != PAGES_STAY:
        return True
    for k in range(1, t.P):
        if k != t.born and words[order[k - 1]] > words[order[k]]:
            return False
    return True

cdef inline void canonical(Tiny *t, const uint64_t *raw, uint64_t *key, Chosen *c) noexcept nogil:
    """The least of the states that are the same as `raw`, the packed state of the machine that look() saw."""
    cdef uint64_t other[MAX_WORDS]
    cdef uint32_t same = 0
    cdef int i
    if t.nr_permutations == 1 or not t.fields & MARKS:
        canonical_key(t, raw, key, c)
        return
    for i in range(t.nr_permutations):
        if in_order(t, t.seen.word, t.permutations[i]):
            pack(t, t.permutations[i], other)
            same = least(t, other, i, key, c, same)
    c.orbit = t.nr_permutations * c.orbit // same

cdef inline void canonical_key(const Tiny *t, const uint64_t *raw, uint64_t *key, Chosen *c) noexcept nogil:
    """As canonical(), of any packed state that has no marks or whose processes stay who they are."""
    cdef uint64_t other[MAX_WORDS]
    cdef uint64_t words[MAX_PROCESSES]
    cdef uint32_t same = 0
    cdef Bits b
    cdef int i
    if t.nr_permutations == 1 and t.page_symmetry == PAGES_STAY:
        memcpy(key, raw, t.words * sizeof(uint64_t))
        c.permutation, c.orbit = 0, 1
        return
    b.words = <uint64_t *>raw
    b.at = 2 + t.H
    for i in range(t.P):
        words[i] = get(&b, t.process_bits)
    for i in range(t.nr_permutations):
        if in_order(t, words, t.permutations[i]):
            if i:
                permuted(t, raw, words, t.permutations[i], other)
            else:
                memcpy(other, raw, t.words * sizeof(uint64_t))
            same = least(t, other, i, key, c, same)
    c.orbit = t.nr_permutations * c.orbit // same

cdef inline uint32_t least(const Tiny *t, uint64_t *other, int permutation, uint64_t *key, Chosen *c,
                           uint32_t same) noexcept nogil:
    """Keep `other` in `key` if it is less, with its base pages in order; returns how many were equal to `key`."""
    cdef Chosen found
    cdef int order
    found.orbit = 1
    if t.page_symmetry != PAGES_STAY:
        sort_pages(t, other, &found)
    order = key_order(t, other, key) if same else -1
    if order == 0:
        return same + 1
    if order > 0:
        return same
    memcpy(key, other, t.words * sizeof(uint64_t))
    c[0] = found
    c.permutation = permutation
    return 1

cdef inline void permuted(const Tiny *t, const uint64_t *raw, const uint64_t *words, const int *order,
                          uint64_t *key) noexcept nogil:
    """A packed state without marks with process order[i] in place i. words: of its processes."""
    cdef Bits b
    cdef int inverse[MAX_PROCESSES]
    cdef int i, h, slot
    cdef uint64_t id
    memcpy(key, raw, t.words * sizeof(uint64_t))
    b.words = key
    b.at = 2 + t.H
    for i in range(t.P):
        inverse[order[i]] = i
        replace(&b, words[order[i]], t.process_bits)
    if t.fields & SLOTS:
        for h in range(t.H):
            for slot in range(2):
                b.at = slot_at(t, h, slot)
                id = get(&b, t.id_bits)
                if id:
                    b.at -= t.id_bits
                    replace(&b, inverse[id - 1] + 1, t.id_bits)

cdef inline int slot_at(const Tiny *t, int folio, int slot) noexcept nogil:
    """Where the owner in a slot stands in a packed state without marks."""
    return (2 + t.H + t.P * t.process_bits + (folio + 1) * t.folio_width - 1
            - (2 - slot) * (t.id_bits + t.count_bits))

# Where a base page, or a block of them, stands in a packed state: at most so many places.
cdef enum:
    MAX_PARTS = MAX_PROCESSES + 2 * MAX_STATE_FOLIOS

cdef struct Parts:
    int n
    int at[MAX_PARTS]
    int width[MAX_PARTS]

cdef inline void part(Parts *parts, int at, int width) noexcept nogil:
    parts.at[parts.n] = at
    parts.width[parts.n] = width
    parts.n += 1

cdef inline void folio_parts(const Tiny *t, Parts *parts, int folio, int page) noexcept nogil:
    """Of a base page: its failure and its map count."""
    cdef int at = t.folios_at + folio * t.folio_width + t.ref_bits + 1 + t.pin_bits
    if t.fields & POISON:
        part(parts, at + page, 1)
        at += t.N
    at += t.count_bits if t.fields & ENTIRE else 0
    at += t.count_bits + 1 if t.fields & NR_PAGES_MAPPED else 0
    at += t.count_bits if t.fields & LARGE else 0
    at += t.count_bits if t.fields & TOTAL else 0
    if t.fields & PER_PAGE:
        part(parts, at + page * t.count_bits, t.count_bits)

cdef inline void page_parts(const Tiny *t, const uint64_t *key, int h, int page, Parts *parts) noexcept nogil:
    cdef int p, level, at, inside, folio = 0, folios = 1, size
    parts.n = 0
    for p in range(t.P):
        at = 2 + t.H + p * t.process_bits + 5 + h * subtree_bits(t) + (2 if t.fields & MARKS else 0)
        inside, size, level = page, t.N, t.hstate_level
        while level > 1:
            at += 2 + (t.m.config.geometry.index_bits + 1 if t.fields & CHILDREN else 0)
            size >>= t.m.config.geometry.index_bits
            level -= 1
            at += inside // size * t.entry_width[level]
            inside %= size
        part(parts, at, 2)
    if t.fields & MARKS:
        folios = t.P + 1    # one huge page: all are its own
    else:
        folios = key[0] >> (2 + h) & 1
        folio = h and key[0] >> 2 & 1
    for p in range(folio, folio + folios):
        folio_parts(t, parts, p, page)

cdef inline void table_parts(const Tiny *t, int h, int block, Parts *parts) noexcept nogil:
    """Of a table below the hstate-level entry's: the entry that it hangs at, and its children."""
    cdef int p, width = 2 + (t.m.config.geometry.index_bits + 1 if t.fields & CHILDREN else 0)
    parts.n = 0
    for p in range(t.P):
        part(parts, 2 + t.H + p * t.process_bits + 5 + h * subtree_bits(t) + (2 if t.fields & MARKS else 0) + width
             + block * t.entry_width[t.hstate_level - 1], width)

# A column is at most two words.
cdef struct Column:
    uint64_t high
    uint64_t low

cdef inline Column column_get(const uint64_t *key, const Parts *parts) noexcept nogil:
    cdef Column c
    cdef Bits b
    cdef int i
    c.high = c.low = 0
    b.words = <uint64_t *>key
    for i in range(parts.n):
        b.at = parts.at[i]
        c.high = c.high << parts.width[i] | c.low >> (64 - parts.width[i])
        c.low = c.low << parts.width[i] | get(&b, parts.width[i])
    return c

cdef inline void column_set(uint64_t *key, const Parts *parts, Column c) noexcept nogil:
    cdef Bits b
    cdef int i = parts.n - 1
    b.words = key
    while i >= 0:
        b.at = parts.at[i]
        replace(&b, c.low & (~<uint64_t>0 >> (64 - parts.width[i])), parts.width[i])
        c.low = c.low >> parts.width[i] | c.high << (64 - parts.width[i])
        c.high >>= parts.width[i]
        i -= 1

cdef inline int column_order(const Column *a, const Column *b) noexcept nogil:
    if a.high != b.high:
        return -1 if a.high < b.high else 1
    return 0 if a.low == b.low else -1 if a.low < b.low else 1

# The base pages of a table (or of a contiguous group), with the table's own bits.
cdef struct Block:
    Column own
    Column pages[MAX_PAGES]
    unsigned char page[MAX_PAGES]

cdef inline int block_order(const Block *a, const Block *b, int size) noexcept nogil:
    cdef int i, order = column_order(&a.own, &b.own)
    for i in range(size):
        if order == 0:
            order = column_order(&a.pages[i], &b.pages[i])
    return order

cdef inline uint32_t sort_block(Block *b, int first, int size) noexcept nogil:
    """Sort its pages from `first` on; returns in how many different orders they may stand."""
    cdef int i, k
    cdef Column c
    cdef unsigned char page
    cdef uint32_t orders = 1, same = 1
    for i in range(first + 1, size):
        c, page, k = b.pages[i], b.page[i], i
        while k > first and column_order(&b.pages[k - 1], &c) > 0:
            b.pages[k], b.page[k] = b.pages[k - 1], b.page[k - 1]
            k -= 1
        b.pages[k], b.page[k] = c, page
    for i in range(first + 1, size):
        same = same + 1 if column_order(&b.pages[i - 1], &b.pages[i]) == 0 else 1
        orders = orders * <uint32_t>(i - first + 1) // same
    return orders

cdef inline void sort_pages(const Tiny *t, uint64_t *key, Chosen *c) noexcept nogil:
    """Put the base pages of each huge page in order. c.orbit: how many orders of them are different."""
    cdef Block blocks[MAX_PAGES]
    cdef Block b
    cdef Parts parts
    cdef bint two = t.hstate_level > 2, group = t.m.config.geometry.group[1] > 1
    cdef int size = (1 << t.m.config.geometry.index_bits if two else
                     t.m.config.geometry.group[1] if group else t.N)
    cdef int n = t.N // size, stay = t.page_symmetry == FIRST_STAYS, h, i, k
    cdef uint32_t same
    for h in range(t.H):
        for i in range(n):
            blocks[i].own.high = blocks[i].own.low = 0
            if two:
                table_parts(t, h, i, &parts)
                blocks[i].own = column_get(key, &parts)
            for k in range(size):
                page_parts(t, key, h, i * size + k, &parts)
                blocks[i].pages[k] = column_get(key, &parts)
                blocks[i].page[k] = <unsigned char>(i * size + k)
            if not group:
                c.orbit *= sort_block(&blocks[i], stay and i == 0, size)
        for i in range(stay + 1, n):
            b, k = blocks[i], i
            while k > stay and block_order(&blocks[k - 1], &b, size) > 0:
                blocks[k] = blocks[k - 1]
                k -= 1
            blocks[k] = b
        same = 1
        for i in range(stay + 1, n):
            same = same + 1 if block_order(&blocks[i - 1], &blocks[i], size) == 0 else 1
            c.orbit = c.orbit * <uint32_t>(i - stay + 1) // same
        for i in range(n):
            if two:
                table_parts(t, h, i, &parts)
                column_set(key, &parts, blocks[i].own)
            for k in range(size):
                page_parts(t, key, h, i * size + k, &parts)
                column_set(key, &parts, blocks[i].pages[k])
                c.pages[h][i * size + k] = blocks[i].page[k]
