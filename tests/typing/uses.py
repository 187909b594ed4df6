"""Lines as users write them: type checkers accept each, but for those that end in `# refused`, which they refuse.

tests/test_typing.py runs the checkers over this file; nothing runs it.
"""

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import hgmcore as hgm
from hgmcore.api import Entry, File, Mapping, Process, Snapshot, Table, Vma
from hgmcore.core.core import Engine
from hgmcore.own import Leaf

m = hgm.Machine("mm_id", "x86-64", reserve="64M", journal=True, cache_refs=1)
f = m.file("F", page_size="2M", pages=4, populate=True)
a = m.process("A")
v = a.mmap(f, name="v", minor=True, offset=0, length="8M")
assert_type(f, File)
assert_type(a, Process)
assert_type(v, Mapping)
assert_type(m.engine, Engine)
assert_type(v.uffd_continue(0, "4K"), int)
assert_type(v.touch("4K", write=True), int)
assert_type(v.dontneed(), int)
assert_type(v.uffd_continue(np.arange(4) * 4096), NDArray[np.void])
assert_type(v.uffd_continue([0, 4096]), NDArray[np.void])
assert_type(v.touch(["4K", "8K"]), NDArray[np.void])
assert_type(v.munmap(np.array([0]), "4K"), NDArray[np.void])
assert_type(v.mremap("4M"), int)
assert_type(v.mremap("2M", to="w"), Mapping)
assert_type(v.mprotect(0, "2M", "r"), int)
assert_type(f.pin(), None)
assert_type(f.populate(0, 1), int)
assert_type(f.populate([0, 1]), NDArray[np.void])
assert_type(f.truncate("4M"), None)
assert_type(f.truncate(["4M"]), NDArray[np.void])
assert_type(f.pin([0, 1], 2), NDArray[np.void])
assert_type(f.struct_pages(0), NDArray[np.void])
assert_type(m.page_table(a), NDArray[np.uint64])
assert_type(v.walk(0), list[Entry])
assert_type(v.vmas, tuple[Vma, ...])
assert_type(a.mappings, tuple[Mapping, ...])
assert_type(m.observe(), dict[str, Any])
assert_type(m.trace(), hgm.Trace)
for table in m.tables():
    assert_type(table, Table)
with m.snapshot() as before, m.restore(before) as same, m.clone() as other, m.trial() as trial:
    assert_type(before, Snapshot)
    assert_type((same, other, trial), tuple[hgm.Machine, hgm.Machine, hgm.Machine])
for step in hgm.replay_steps("small.hgm", "mm_id", start=1):
    print(step.statement, step.entries[0]["level"], step.error)
result = hgm.replay(hgm.workloads.postcopy(page_size="1G", pages=1, seed=1), "mm_id", threads=2, batch="6.12")
print(result["cost"], result.to_pandas())


class Pieces(hgm.Scheme):
    def leaf_install(self, leaf: Leaf) -> None:
        leaf.map_add("_entire_mapcount", 1)


assert_type(hgm.register(Pieces), type[Pieces])
assert_type(hgm.Machine(Pieces).engine, Engine)
hgm.replay("small.hgm", Pieces)
hgm.replay("small.hgm", Pieces())
comparison = hgm.compare(hgm.load(["file F 2M 1"]), schemes=["mm_id", m.engine], repeat=0)
try:
    v.uffd_continue(0)
except hgm.OperationError as error:
    assert_type(error.errno, int | None)
    assert_type(error.op, str)
    assert_type(error.offset, int | None)
except OSError:
    pass

v.uffd_continue(1.5)    # refused
v.uffd_continue()    # refused
v.uffd_continue(0, "4K", True)    # refused
v.touch(None)    # refused
v.touch([1.5])    # refused
v.register(True)    # refused
v.mremap("2M", [0])    # refused
v.mremap("2M", to=3)    # refused
v.mprotect(0, "2M", 3)    # refused
v.resize("2M")    # refused
a.mmap("F")    # refused
a.mmap(f, "v", True)    # refused
a.fork()    # refused
f.pin("0")    # refused
f.name = "G"    # refused
f.struct_pages("0")    # refused
m.file("F", pages="1")    # refused
m.page_table(0)    # refused
m.restore(m)    # refused
m.walk(v, 0)    # refused
m.fail("1")    # refused
m.operation    # refused
hgm.Machine()    # refused
hgm.Machine("mm_id", "x86-64", "64M")    # refused
hgm.Machine(3)    # refused
hgm.Machine(int)    # refused
hgm.OperationError("continue")    # refused
hgm.replay("small.hgm")    # refused
hgm.replay("small.hgm", "mm_id", threads="2")    # refused
hgm.compare("small.hgm", repeat="3")    # refused
hgm.load("small.hgm").save(3)    # refused
hgm.workloads.postcopy(page_size=1.5)    # refused
hgm.workloads.postcopi()    # refused
print([step.line + 1 for step in hgm.replay_steps("small.hgm", "mm_id")])    # refused
