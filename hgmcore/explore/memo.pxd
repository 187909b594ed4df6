# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""What the steps of one process do, kept for all states that agree in that process and in the folios.

A step that walks the tables of one process alone (LOCAL) changes the same bits of a packed state whatever the other
processes map. So its outcome is found once, by running it, for each different pair of that process's word and the
words of the folios; in other states it is the packed state with these bits changed. A search runs a step all the same
where what comes of it is a new state, breaks something, or is none that a packed state can show.

    slots   open addressing: a group of steps, a packed state without the words of other processes -> a record
    record  group | that packed state | an entry for each step that is enabled, in their order; LAST. The bits that
            change follow an entry with DELTA.

Workers share the slots: a record is never changed once it stands there. The memory of each worker's records is bounded;
when one is full, all are emptied as soon as no worker runs.
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

ctypedef uint64_t *Record

cdef extern from *:
    Record record_load "__atomic_load_n"(Record *at, int order) noexcept nogil
    bint record_swap "__atomic_compare_exchange_n"(Record *at, Record *was, Record new, bint weak, int done,
                                                   int failed) noexcept nogil
    int RELAXED "__ATOMIC_RELAXED"
    int ACQUIRE "__ATOMIC_ACQUIRE"
    int RELEASE "__ATOMIC_RELEASE"

cdef struct Memo:
    bint on
    bint full
    int words
    uint64_t mask[GROUPS][MAX_WORDS]    # of a packed state, for each group
    Record *slots                 # shared
    uint64_t most                 # records that this worker may add
    uint64_t *entries
    uint64_t used, nr, started

cdef inline bint memo_new(Memo *o, int words, Memo *sharing, int workers) noexcept nogil:
    """sharing: the memo whose slots it shares, NULL: none. False: the host has no memory."""
    o.words = words
    o.most = SLOTS_OF_MEMO // 2 // workers
    o.slots = <Record *>calloc(SLOTS_OF_MEMO, sizeof(Record)) if sharing is NULL else sharing.slots
    o.entries = <uint64_t *>malloc(MEMO_WORDS * sizeof(uint64_t))
    return o.slots is not NULL and o.entries is not NULL

cdef inline void memo_empty(Memo *o) noexcept nogil:
    memset(o.slots, 0, SLOTS_OF_MEMO * sizeof(Record))
    o.used = o.nr = 0
    o.full = False

cdef inline uint32_t memo_slot(const Memo *o, const uint64_t *wanted, const uint64_t **found) noexcept nogil:
    """Where a record of this beginning (group, packed state) is, or where it belongs.

    found: that record, or NULL. Another worker may fill the slot at any moment, with another record too, so the slot
    must not be read again.
    """
    cdef uint32_t at = <uint32_t>key_hash(wanted, o.words + 1) % SLOTS_OF_MEMO
    cdef const uint64_t *there
    cdef uint64_t other
    cdef int i
    while True:
        there = record_load(&o.slots[at], ACQUIRE)
        found[0] = there
        if there is NULL:
            return at
        other = 0
        for i in range(o.words + 1):
            other |= there[i] ^ wanted[i]
        if other == 0:
            return at
        at = (at + 1) % SLOTS_OF_MEMO

cdef inline const uint64_t *memo_find(Memo *o, const uint64_t *key, int group, uint64_t steps,
                                      bint *begun) noexcept nogil:
    """The first entry of a group's record for a state; NULL: there is none.

    begun: memo_add() is to write it. It has at most so many steps.
    """
    cdef uint64_t wanted[MAX_WORDS + 1]
    cdef const uint64_t *there
    cdef int i
    wanted[0] = group
    for i in range(o.words):
        wanted[1 + i] = key[i] & o.mask[group][i]
    memo_slot(o, wanted, &there)
    if there is not NULL:
        return there + 1 + o.words
    o.full |= o.used + (steps + 2) * (1 + o.words) > MEMO_WORDS or o.nr >= o.most
    begun[0] = not o.full
    if begun[0]:
        o.started = o.used
        memcpy(&o.entries[o.used], wanted, (1 + o.words) * sizeof(uint64_t))
        o.used += 1 + o.words
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

cdef inline void memo_close(Memo *o) noexcept nogil:
    """The record is whole; it stands in a slot from now on, if no other worker was faster."""
    cdef Record new = &o.entries[o.started], none = NULL
    cdef const uint64_t *there
    cdef uint32_t at = memo_slot(o, new, &there)
    o.entries[o.used] = LAST
    o.used += 1
    o.nr += 1
    while not record_swap(&o.slots[at], &none, new, False, RELEASE, RELAXED):
        at = (at + 1) % SLOTS_OF_MEMO
        none = NULL
