"""tracer.c on a machine of hgmcore."""
import tracer

import hgmcore as hgm

machine = hgm.Machine("subtree")
file = machine.file("F", "2M", 1, populate=True)
mapping = machine.process("A").mmap(file, name="v", minor=True, hgm=True)
mapping.uffd_continue(0, "64K")
print("zapped", tracer.zap_each(machine, 0, 8), "leaves gone", machine.cost()["leaf_removes"])
