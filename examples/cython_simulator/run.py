"""The simulator of pager.pyx on a machine of hgmcore, checked and unchecked: both map the same pages."""
import pager

import hgmcore as hgm

for checked in True, False:
    machine = hgm.Machine("mm_id")
    file = machine.file("F", "1G", 1, populate=True)
    machine.process("A").mmap(file, name="v", minor=True, hgm=True)
    mapped, again, atomics = pager.serve(machine, 1000, 1 << 18, checked)
    assert machine.cost()["leaf_installs"] == mapped and len(machine.results()) == again
    print("mapped", mapped, "again", again, "map-count atomics", atomics)
