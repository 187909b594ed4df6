# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The set of states: packed states in the order in which they were entered, each with the step that led to it.

    keys      words of each state
    parents   the state that it was reached from, NONE: it is the first
    steps     by which step
    table     open addressing; a slot is a state's number, and above it bits of the state's hash, so that a look-up
              seldom reads the words of another state. NONE: the slot is empty.

The set is exact: a look-up compares all words. It never moves a state, so that numbers stay.
"""
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

from hgmcore.hgm cimport *

cdef enum:
    NONE = 0xffffffff
    FIRST_ROOM = 1 << 10
    AHEAD = 8                     # states whose slots are fetched while another is entered

cdef extern from *:
    void prefetch "__builtin_prefetch"(const void *at, ...) noexcept nogil

cdef struct States:
    uint64_t *keys
    uint32_t *parents
    uint16_t *steps
    uint32_t *table
    uint64_t nr, room, table_size
    int words
    int number_bits               # of a slot

cdef inline bint states_new(States *s, int words) noexcept nogil:
    """An empty set. False: the host has no memory."""
    s.words = words
    s.nr = s.room = s.table_size = 0
    s.keys = NULL
    s.parents = s.table = NULL
    s.steps = NULL
    return states_grow(s)

cdef inline void states_free(States *s) noexcept nogil:
    free(s.keys)
    free(s.parents)
    free(s.steps)
    free(s.table)

cdef inline uint64_t key_hash(const uint64_t *key, int words) noexcept nogil:
    cdef uint64_t h = <uint64_t>0x9e3779b97f4a7c15
    cdef int i
    for i in range(words):
        h = (h ^ key[i]) * <uint64_t>0xd6e8feb86659fd93
        h ^= h >> 32
    return h

cdef inline uint64_t first_slot(const States *s, uint64_t hash) noexcept nogil:
    return (hash >> 32) * s.table_size >> 32

cdef inline uint64_t next_slot(const States *s, uint64_t at) noexcept nogil:
    return at + 1 if at + 1 < s.table_size else 0

cdef inline void states_expect(const States *s, uint64_t hash) noexcept nogil:
    """A state of this hash will be looked for soon."""
    prefetch(&s.table[first_slot(s, hash)])

cdef inline uint32_t states_find(const States *s, const uint64_t *key, uint64_t hash) noexcept nogil:
    """The number of a state, or NONE. hash: key_hash() of it."""
    cdef uint64_t at = first_slot(s, hash), other
    cdef uint32_t mask = (<uint32_t>1 << s.number_bits) - 1, wanted = <uint32_t>hash & ~mask, slot
    cdef const uint64_t *there
    cdef int i
    while True:
        slot = s.table[at]
        if slot == NONE:
            return NONE
        if slot & ~mask == wanted:
            there = &s.keys[<uint64_t>(slot & mask) * s.words]
            other = 0
            for i in range(s.words):
                other |= there[i] ^ key[i]
            if other == 0:
                return slot & mask
        at = next_slot(s, at)

cdef inline void states_place(States *s, uint32_t number, uint64_t hash) noexcept nogil:
    cdef uint64_t at = first_slot(s, hash)
    cdef uint32_t mask = (<uint32_t>1 << s.number_bits) - 1
    while s.table[at] != NONE:
        at = next_slot(s, at)
    s.table[at] = <uint32_t>hash & ~mask | number

cdef inline bint states_grow(States *s) noexcept nogil:
    """Make room for half as many states again. False: the host has no memory; the set is as it was."""
    cdef uint64_t room = s.room + s.room // 2 if s.room else FIRST_ROOM, size = room + room // 5, i
    cdef void *grown
    if room >= <uint64_t>1 << 31:
        return False
    grown = realloc(s.keys, room * s.words * sizeof(uint64_t))
    if grown is NULL:
        return False
    s.keys = <uint64_t *>grown
    grown = realloc(s.parents, room * sizeof(uint32_t))
    if grown is NULL:
        return False
    s.parents = <uint32_t *>grown
    grown = realloc(s.steps, room * sizeof(uint16_t))
    if grown is NULL:
        return False
    s.steps = <uint16_t *>grown
    grown = realloc(s.table, size * sizeof(uint32_t))
    if grown is NULL:
        return False
    s.table = <uint32_t *>grown
    s.room, s.table_size, s.number_bits = room, size, 1
    while (<uint64_t>1 << s.number_bits) - 1 <= room:
        s.number_bits += 1
    memset(s.table, 0xff, size * sizeof(uint32_t))
    for i in range(s.nr):
        if i + AHEAD < s.nr:
            states_expect(s, key_hash(&s.keys[(i + AHEAD) * s.words], s.words))
        states_place(s, <uint32_t>i, key_hash(&s.keys[i * s.words], s.words))
    return True

cdef inline bint states_enter(States *s, const uint64_t *key, uint64_t hash, uint32_t parent, int step) noexcept nogil:
    """Add a state that is not there. False: the host has no memory."""
    if s.nr == s.room and not states_grow(s):
        return False
    states_place(s, <uint32_t>s.nr, hash)
    memcpy(&s.keys[s.nr * s.words], key, s.words * sizeof(uint64_t))
    s.parents[s.nr] = parent
    s.steps[s.nr] = <uint16_t>step
    s.nr += 1
    return True

cdef inline double bytes_of_state(const States *s) noexcept nogil:
    """Bytes that a state takes, its place in the table included."""
    return (s.words * sizeof(uint64_t) + sizeof(uint32_t) + sizeof(uint16_t)
            + sizeof(uint32_t) * <double>s.table_size / (s.nr if s.nr else 1))
