# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""What the steps of one process do, kept for all states that agree in that process and in the folios.

A step that walks the tables of one process alone (LOCAL) changes the same bits of a packed state whatever the other
processes map. So its outcome is found once, by running it, for each different pair of that process's word and the
words of the folios; in other states it is the packed state with these bits changed. A search runs a step all the same
where what comes of it is a new state, breaks something, or is none that a packed state can show.

    slots   open addressing: a group of steps, a packed state without the words of other processes -> a record
    record  an entry for each step that is enabled, in their order; one with DELTA is followed by the bits that change

The memory is bounded: when it is full, it is emptied.
"""
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from hgmcore.hgm cimport *
from hgmcore.explore.states cimport key_hash
from hgmcore.explore.tiny cimport MAX_PROCESSES, MAX_WORDS

cdef enum:
    SLOTS_OF_MEMO = 1 << 15
    MEMO_WORDS = 1 << 20          # of all records
    GROUPS = MAX_PROCESSES + 1    # the last: steps of no process

# Of an entry.
cdef enum:
    STEP_BITS = 0xffff
    DELTA = 1 << 16               # it changes the state
    RUN = 1 << 17                 # it has to be run
    REFUSED = 1 << 18
    INJECTED = 1 << 19
    REMOVES = 1 << 20             # the premises that hold
    INSTALLS = 1 << 21
    REFUSES = 1 << 22
    LAST = 1 << 23                # no entry: the record ends

cdef struct Memo:
    bint on
    int words
    uint64_t mask[GROUPS][MAX_WORDS]    # of a packed state, for each group
    uint64_t *keys
    uint32_t *records             # where a slot's record begins in `entries`, 0: the slot is empty
    uint64_t *entries             # the first of a record is its group
    uint64_t used, nr, started

cdef inline bint memo_new(Memo *o, int words) noexcept nogil:
    """False: the host has no memory."""
    o.words = words
    o.keys = <uint64_t *>malloc(SLOTS_OF_MEMO * words * sizeof(uint64_t))
    o.records = <uint32_t *>calloc(SLOTS_OF_MEMO, sizeof(uint32_t))
    o.entries = <uint64_t *>malloc(MEMO_WORDS * sizeof(uint64_t))
    o.used, o.nr = 1, 0
    return o.keys is not NULL and o.records is not NULL and o.entries is not NULL

cdef inline void memo_free(Memo *o) noexcept nogil:
    free(o.keys)
    free(o.records)
    free(o.entries)

cdef inline uint32_t memo_slot(const Memo *o, const uint64_t *wanted, int group) noexcept nogil:
    """Where a record is, or where it belongs."""
    cdef uint64_t other
    cdef uint32_t at = (<uint32_t>key_hash(wanted, o.words) ^ <uint32_t>(group << 8)) % SLOTS_OF_MEMO
    cdef int i
    while o.records[at]:
        other = o.entries[o.records[at]] ^ <uint64_t>group
        for i in range(o.words):
            other |= o.keys[<uint64_t>at * o.words + i] ^ wanted[i]
        if other == 0:
            break
        at = (at + 1) % SLOTS_OF_MEMO
    return at

cdef inline const uint64_t *memo_find(Memo *o, const uint64_t *key, int group) noexcept nogil:
    """The first entry of a group's record for a state; NULL: there is none, and memo_add() begins to write it."""
    cdef uint64_t wanted[MAX_WORDS]
    cdef uint32_t at
    cdef int i
    for i in range(o.words):
        wanted[i] = key[i] & o.mask[group][i]
    at = memo_slot(o, wanted, group)
    if o.records[at]:
        return &o.entries[o.records[at] + 1]
    o.started = o.used
    o.entries[o.used] = group
    o.used += 1
    return NULL

cdef inline void memo_add(Memo *o, uint64_t entry, const uint64_t *before, const uint64_t *after) noexcept nogil:
    """One more entry of the record that is written; DELTA where the packed states differ."""
    cdef uint64_t differ = 0, at = o.used
    cdef int i
    for i in range(o.words):
        o.entries[at + 1 + i] = before[i] ^ after[i]
        differ |= before[i] ^ after[i]
    if differ and not entry & RUN:
        o.entries[at] = entry | DELTA
        o.used += 1 + o.words
    else:
        o.entries[at] = entry
        o.used += 1

cdef inline void memo_close(Memo *o, const uint64_t *key, int group) noexcept nogil:
    """The record is whole."""
    cdef uint64_t wanted[MAX_WORDS]
    cdef uint32_t at
    cdef int i
    o.entries[o.used] = LAST
    o.used += 1
    for i in range(o.words):
        wanted[i] = key[i] & o.mask[group][i]
    at = memo_slot(o, wanted, group)
    memcpy(&o.keys[<uint64_t>at * o.words], wanted, o.words * sizeof(uint64_t))
    o.records[at] = <uint32_t>o.started
    o.nr += 1

cdef inline void memo_room(Memo *o, uint64_t steps) noexcept nogil:
    """Make room for the records of one more state, of at most so many steps; empties the memo where there is none."""
    if o.used + steps * (1 + o.words) + 4 * GROUPS > MEMO_WORDS or o.nr + GROUPS > SLOTS_OF_MEMO // 2:
        memset(o.records, 0, SLOTS_OF_MEMO * sizeof(uint32_t))
        o.used, o.nr = 1, 0
