"""A machine that goes back: what-if on one machine, and two futures of it side by side.

Prints how many leaves map a huge page before a trial, in it, behind it, and in a clone that went another way.
"""
import hgmcore as hgm

machine = hgm.Machine("mm_id")
file = machine.file("F", "2M", 1, populate=True)
mapping = machine.process("A").mmap(file, minor=True, hgm=True)
mapping.uffd_continue(0, "64K")


def mapcount(machine):
    return machine.observe()["folios"][0]["mapcount"]


print("before", mapcount(machine))
with machine.trial():    # all that happens in the block is taken back at its end
    mapping.dontneed(0, "32K")
    print("in the trial", mapcount(machine))
print("behind the trial", mapcount(machine))

before = machine.snapshot()
other = machine.clone()
mapping.collapse(0, "2M")
print("collapsed", mapcount(machine), "the clone", mapcount(other))
machine.restore(before)
print("restored", mapcount(machine))
