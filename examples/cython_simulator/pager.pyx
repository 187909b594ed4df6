# cython: language_level=3
"""A simulator of its own that maps memory as its guest asks: one operation at a time, without a Python object."""
from hgmcore.hgm cimport *
from hgmcore.library cimport (
    hgm_machine_cost, hgm_mapping_continue, hgm_mapping_continue_unchecked, hgm_strerror, machine_of
)


cdef uint64_t next_page(uint64_t *state) noexcept nogil:
    """The page that the guest asks for next (xorshift)."""
    state[0] ^= state[0] << 13
    state[0] ^= state[0] >> 7
    state[0] ^= state[0] << 17
    return state[0]


def serve(machine, uint64_t faults, uint64_t pages, bint checked=True):
    """Serve faults at random pages of mapping 0. Returns (mapped, met again, map-count atomics)."""
    cdef hgm_machine *m = machine_of(machine)
    cdef uint64_t _i, page, state = 1, mapped = 0, again = 0
    cdef int64_t done = 0
    with nogil:
        for _i in range(faults):
            page = next_page(&state) % pages
            done = (hgm_mapping_continue(m, 0, page << 12, 4096) if checked
                    else hgm_mapping_continue_unchecked(m, 0, page << 12, 4096))
            if done == 4096:
                mapped += 1
            elif done == -17:    # EEXIST
                again += 1
            else:
                break
    if done < 0 and done != -17:
        raise RuntimeError(hgm_strerror(<int>done).decode())
    return mapped, again, hgm_machine_cost(m).map
