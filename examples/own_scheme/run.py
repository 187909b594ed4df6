"""A machine under the scheme of twice.pyx, which setup.py in this folder builds.

Prints the map count of a huge page with three leaves, and the atomics that it took.
"""
import twice

import hgmcore as hgm

machine = hgm.Machine(twice.engine)
file = machine.file("F", "2M", 1, populate=True)
mapping = machine.process("A").mmap(file, minor=True, hgm=True)
mapping.uffd_continue(0, "12K")
print("mapcount", machine.observe()["folios"][0]["mapcount"])
print("atomics", machine.cost()["atomics"]["map"])
