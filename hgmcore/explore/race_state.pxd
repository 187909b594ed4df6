# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""A global state of a race, taken and put back: the machine with the locks that are held, and the stack of each thread.

They are kept as pieces of memory that have numbers (pool.pxd), so that states are compared byte by byte.
"""
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from hgmcore.hgm cimport *
from hgmcore.core.machine cimport State
from hgmcore.explore.pool cimport pool_clear, pool_free, pool_new, pool_number, pool_piece
from hgmcore.explore.race_memory cimport Beside
from hgmcore.explore.race_threads cimport (
    fresh, hgm_coroutine, hgm_coroutine_bytes, hgm_coroutine_restore, hgm_coroutine_size, Race
)
from hgmcore.explore.tiny cimport image_restore, image_take, Tiny, tiny_free

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void **to, size_t alignment, size_t size)

cdef inline bint race_new(Race *r) noexcept nogil:
    """Memory for a race whose machine is made. False: the host has none."""
    cdef void *placed
    cdef int i
    if not pool_new(&r.machines) or not pool_new(&r.stacks):
        return False
    for i in range(2):
        if posix_memalign(&placed, 64, sizeof(hgm_coroutine)):
            return False
        r.threads[i] = <hgm_coroutine *>placed
    r.scratch = <unsigned char *>calloc(1, 1 << 20)
    return r.scratch is not NULL

cdef inline void race_free(Race *r) noexcept nogil:
    cdef int i
    tiny_free(&r.t)
    pool_free(&r.machines)
    pool_free(&r.stacks)
    for i in range(2):
        free(r.threads[i])
    free(r.scratch)

cdef inline uint32_t race_begin(Race *r) noexcept nogil:
    """The number of the machine as it is now, where a race begins; NO_PIECE: no memory."""
    fresh(r)
    pool_clear(&r.machines)
    return machine_take(r)

cdef inline uint32_t machine_take(Race *r) noexcept nogil:
    """The number of the machine as it is now, with what is beside it; NO_PIECE: no memory."""
    cdef Tiny *t = &r.t
    cdef unsigned char *data = t.image.data
    cdef size_t size
    r.beside.underflows, r.beside.overflows = t.m.context.cost.underflows, t.m.context.cost.overflows
    r.beside.nr_results = t.m.context.nr_results
    memcpy(r.beside.results, t.m.context.results.base, sizeof(r.beside.results))
    t.image.data = r.scratch + sizeof(Beside) + sizeof(State)
    image_take(t)
    t.image.data = data
    memcpy(r.scratch, &r.beside, sizeof(Beside))
    memcpy(r.scratch + sizeof(Beside), &t.image.state, sizeof(State))
    size = (t.m.state.tables.used + t.m.state.ptdescs.used + t.m.state.vmemmap.used + t.m.state.folios.used
            + t.m.state.poisoned.used + t.fixed_size + sizeof(Beside) + sizeof(State) + 7) & ~<size_t>7
    return pool_number(&r.machines, r.scratch, size)

cdef inline void machine_restore(Race *r, uint32_t number) noexcept nogil:
    cdef Tiny *t = &r.t
    cdef unsigned char *data = t.image.data
    cdef const unsigned char *piece = pool_piece(&r.machines, number)
    memcpy(&r.beside, piece, sizeof(Beside))
    memcpy(&t.image.state, piece + sizeof(Beside), sizeof(State))
    t.image.data = <unsigned char *>piece + sizeof(Beside) + sizeof(State)
    image_restore(t)
    t.image.data = data
    t.m.context.cost.underflows, t.m.context.cost.overflows = r.beside.underflows, r.beside.overflows
    t.m.context.nr_results = r.beside.nr_results
    t.m.context.results.used = r.beside.nr_results * sizeof(hgm_result)
    memcpy(t.m.context.results.base, r.beside.results, sizeof(r.beside.results))

cdef inline uint32_t thread_take(Race *r, int i) noexcept nogil:
    return pool_number(&r.stacks, hgm_coroutine_bytes(r.threads[i]), hgm_coroutine_size(r.threads[i]))

cdef inline void thread_restore(Race *r, int i, uint32_t number) noexcept nogil:
    hgm_coroutine_restore(r.threads[i], pool_piece(&r.stacks, number), r.stacks.pieces[number].size)
