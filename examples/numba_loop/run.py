"""hgmcore from Numba: a compiled loop that decides by itself what to map next, one operation at a time."""
import numba

import hgmcore as hgm

machine = hgm.Machine("logical_counter")
file = machine.file("F", "1G", 1, populate=True)
machine.process("A").mmap(file, name="v", minor=True, hgm=True)
door = machine.ctypes
continue_, address = door.lib.hgm_mapping_continue, door.state_address


@numba.njit
def every_third(state, pages):
    """Map each third page; ask again for each ninth. Returns pages mapped, and refusals."""
    mapped = refused = 0
    for page in range(0, pages, 3):
        for again in range(2 if page % 9 == 0 else 1):
            if continue_(state, 0, 4096 * page, 4096) == 4096:
                mapped += 1
            else:
                refused += 1
    return mapped, refused


print(every_third(address, 3000))
print("leaves", machine.cost()["leaf_installs"], "refusals", len(machine.results()))
