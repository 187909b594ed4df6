# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""New states that one worker has judged, for the other workers: who meets the same state needs not run it again.

The set of states does not grow while workers expand, so that each of them finds the same new states. A worker therefore
keeps what it judged in memory of its own and shows it in slots that all workers read. A slot has the last state of its
hash, and a state that no slot has is judged again, so the slots may lose states but never an answer.
"""
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from hgmcore.hgm cimport *

cdef enum:
    JUDGED_SLOTS = 1 << 17
    JUDGED_WORDS = 1 << 17        # of one worker's memory

# In a worker's memory: what the state breaks and whose premises hold; the state; nothing of it changes any more.
ctypedef uint64_t *Verdict

cdef extern from *:
    Verdict verdict_load "__atomic_load_n"(Verdict *at, int order) noexcept nogil
    void verdict_store "__atomic_store_n"(Verdict *at, Verdict value, int order) noexcept nogil
    int ACQUIRE "__ATOMIC_ACQUIRE"
    int RELEASE "__ATOMIC_RELEASE"

cdef struct Judged:
    Verdict *slots                # shared by all workers; NULL: there is one worker
    uint64_t *verdicts
    uint64_t used

cdef inline bint judged_new(Judged *j, Judged *sharing) noexcept nogil:
    """sharing: whose slots are used, NULL: new ones. False: the host has no memory."""
    j.slots = <Verdict *>calloc(JUDGED_SLOTS, sizeof(Verdict)) if sharing is NULL else sharing.slots
    j.verdicts = <uint64_t *>malloc(JUDGED_WORDS * sizeof(uint64_t))
    return j.slots is not NULL and j.verdicts is not NULL

cdef inline void judged_clear(Judged *j) noexcept nogil:
    """Forget all states, as they are entered now. No worker may run; the slots are those of all workers."""
    memset(j.slots, 0, JUDGED_SLOTS * sizeof(Verdict))

cdef inline const uint64_t *judged_find(const Judged *j, const uint64_t *key, uint64_t hash, int words) noexcept nogil:
    """What a state breaks, and behind it whose premises hold; NULL: no worker has said so."""
    cdef const uint64_t *there
    cdef uint64_t other = 0
    cdef int i
    if j.slots is NULL:
        return NULL
    there = verdict_load(&j.slots[hash % JUDGED_SLOTS], ACQUIRE)
    if there is NULL:
        return NULL
    for i in range(words):
        other |= there[2 + i] ^ key[i]
    return NULL if other else there

cdef inline void judged_add(Judged *j, const uint64_t *key, uint64_t hash, int words, uint32_t broken,
                            uint32_t held) noexcept nogil:
    cdef Verdict new
    if j.slots is NULL or j.used + words + 2 > JUDGED_WORDS:
        return
    new = &j.verdicts[j.used]
    new[0] = broken
    new[1] = held
    memcpy(&new[2], key, words * sizeof(uint64_t))
    j.used += words + 2
    verdict_store(&j.slots[hash % JUDGED_SLOTS], new, RELEASE)
