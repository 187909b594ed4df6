# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The two threads of a race: each runs one operation on a stack of its own, cut before each access and each lock.

The operations are those of the scheme's engine, compiled a second time so that a thread can be cut before each access
to memory that the other may reach and before each lock (races.h). Each runs on a stack of its own (coroutine.h).
"""
from libc.string cimport memset

from hgmcore.hgm cimport *
from hgmcore.core.core cimport run_function
from hgmcore.core.machine cimport Machine
from hgmcore.explore.pool cimport Pool
from hgmcore.explore.race_memory cimport Beside, Held
from hgmcore.explore.tiny cimport Tiny

cdef extern from "hgmcore/races.h" nogil:
    struct hgm_race:
        void (*cut)(int access, const void *where) noexcept nogil
        int (*lock)(int lock, const void *of, int how, int wait) noexcept nogil
        void (*unlock)(int lock) noexcept nogil
        hgm_racer *me
        uint32_t repairs

cdef extern from "hgmcore/coroutine.h" nogil:
    enum:
        HGM_ACCESSES, HGM_WAITS, HGM_TRIES, HGM_ENDED

    ctypedef struct hgm_coroutine:
        hgm_racer racer
        uint64_t low
        const void *where
        int32_t next
        int32_t access
        int32_t how
        int32_t number

    void hgm_coroutine_start(hgm_coroutine *c, void (*body)() noexcept nogil) noexcept
    void hgm_coroutine_resume(hgm_coroutine *c) noexcept
    void hgm_coroutine_forget(hgm_coroutine *c) noexcept
    void hgm_coroutine_cut(hgm_coroutine *c) noexcept
    uint64_t hgm_coroutine_size(const hgm_coroutine *c) noexcept
    const unsigned char *hgm_coroutine_bytes(const hgm_coroutine *c) noexcept
    void hgm_coroutine_restore(hgm_coroutine *c, const unsigned char *bytes, uint64_t size) noexcept

cdef struct Race:
    Tiny t                        # t.run: of the engine that can be cut
    hgm_race *hooks               # of that engine
    uint32_t locks                # classes of locks that are taken, a bit for each
    hgm_operation operations[2]
    hgm_coroutine *threads[2]
    hgm_coroutine *running
    hgm_racer solo                # of an operation that runs alone
    Beside beside
    Pool machines                 # by number, of global states (race_state.pxd)
    Pool stacks
    unsigned char *scratch

# The race that runs now, for functions that engines call. The GIL, which its caller keeps, makes it the only one.
cdef extern from *:
    """
    static void *hgm_race_of_now;
    static inline void hgm_race_is(void *race) { hgm_race_of_now = race; }
    static inline void *hgm_race_now(void) { return hgm_race_of_now; }
    """
    void race_is "hgm_race_is"(void *race) noexcept nogil
    void *race_now "hgm_race_now"() noexcept nogil

# -- what an engine calls

cdef inline void cut_here(int access, const void *where) noexcept nogil:
    cdef hgm_coroutine *c = (<Race *>race_now()).running
    c.next, c.access, c.where = HGM_ACCESSES, access, where
    hgm_coroutine_cut(c)

cdef inline int lock_here(int lock, const void *of, int how, int wait) noexcept nogil:
    cdef Race *r = <Race *>race_now()
    cdef hgm_coroutine *c = r.running
    cdef Held *held
    if not r.locks >> lock & 1:
        return 1
    c.next, c.access, c.where, c.how = HGM_WAITS if wait else HGM_TRIES, lock, of, how
    hgm_coroutine_cut(c)
    if not wait and not lock_free(r, c):
        return 0
    held = &r.beside.locks[r.beside.nr_locks]
    held.of, held.lock, held.how, held.owner = of, lock, how, c.number
    r.beside.nr_locks += 1
    return 1

cdef inline void unlock_here(int lock) noexcept nogil:
    cdef Race *r = <Race *>race_now()
    cdef int64_t i
    for i in range(<int64_t>r.beside.nr_locks - 1, -1, -1):
        if r.beside.locks[i].lock == lock and r.beside.locks[i].owner == r.running.number:
            unlock(&r.beside, i)
            return

cdef inline void unlock(Beside *b, uint64_t i) noexcept nogil:
    b.nr_locks -= 1
    while i < b.nr_locks:
        b.locks[i] = b.locks[i + 1]
        i += 1
    memset(&b.locks[b.nr_locks], 0, sizeof(Held))

cdef inline bint lock_free(const Race *r, const hgm_coroutine *c) noexcept nogil:
    """Could the thread take the lock that it wants?"""
    cdef uint64_t i
    cdef const Held *held
    for i in range(r.beside.nr_locks):
        held = &r.beside.locks[i]
        if (held.owner != c.number and held.lock == c.access and held.of == c.where
                and (held.how or c.how)):
            return False
    return True

cdef inline void body() noexcept nogil:
    """A thread: one operation."""
    cdef Race *r = <Race *>race_now()
    r.t.run(&r.t.m, &r.operations[r.running.number], 1, r.running.number)
    r.running.next = HGM_ENDED

# -- running

cdef inline void hooks(Race *r, bint on) noexcept nogil:
    r.hooks.cut = NULL
    r.hooks.lock = NULL
    r.hooks.unlock = NULL
    if on:
        race_is(r)
        r.hooks.cut, r.hooks.lock, r.hooks.unlock = cut_here, lock_here, unlock_here

cdef inline void start(Race *r, int i) noexcept nogil:
    """Begin thread `i` and let it go on to its first cut; hooks() are on."""
    r.threads[i].number = i
    hgm_coroutine_start(r.threads[i], body)
    go(r, i)

cdef inline void go(Race *r, int i) noexcept nogil:
    """Let thread `i` go on to its next cut, or its end."""
    cdef hgm_coroutine *c = r.threads[i]
    cdef int64_t k
    r.running = c
    r.hooks.me = &c.racer
    hgm_coroutine_resume(c)
    if c.next == HGM_ENDED:
        for k in range(<int64_t>r.beside.nr_locks - 1, -1, -1):
            if r.beside.locks[k].owner == i:
                unlock(&r.beside, k)
        hgm_coroutine_forget(c)

cdef inline bint runnable(const Race *r, int i) noexcept nogil:
    cdef const hgm_coroutine *c = r.threads[i]
    return c.next != HGM_ENDED and (c.next != HGM_WAITS or lock_free(r, c))

cdef inline bint ended(const Race *r) noexcept nogil:
    """Are both operations through?"""
    return r.threads[0].next == HGM_ENDED and r.threads[1].next == HGM_ENDED

cdef inline void by_itself(Race *r) noexcept nogil:
    """What runs now is no thread of a race."""
    memset(&r.solo, 0, sizeof(hgm_racer))
    r.hooks.me = &r.solo

cdef inline void alone(Race *r, int number) noexcept nogil:
    """An operation without cuts; hooks() are off."""
    by_itself(r)
    r.t.run(&r.t.m, &r.operations[number], 1, number)

cdef inline void fresh(Race *r) noexcept nogil:
    """A run begins: no results, no costs."""
    cdef Machine *m = &r.t.m
    memset(&m.context.cost, 0, sizeof(m.context.cost))
    memset(&r.beside, 0, sizeof(r.beside))
    memset(m.context.results.base, 0, 2 * sizeof(hgm_result))
    m.context.nr_results = 0
    m.context.results.used = 0
    m.context.fail = 0

cdef inline void answers_of(const Race *r, hgm_result *out) noexcept nogil:
    """What both operations answered."""
    cdef const hgm_result *results = <const hgm_result *>r.t.m.context.results.base
    cdef uint64_t i
    for i in range(2):
        memset(&out[i], 0, sizeof(hgm_result))
        out[i].done = r.operations[i].length
    for i in range(r.t.m.context.nr_results):
        out[results[i].index] = results[i]
    out[0].index = out[1].index = 0
