"""What importers write traces to."""

import subprocess
import sys

import numpy as np
import pytest

from hgmcore.trace import Trace, TraceError
from hgmcore.trace import writer as module
from hgmcore.trace.statements import CODES, MINOR, OPERATION, SHARED
from hgmcore.trace.writer import Writer, word


def test_every_way_in():
    writer = Writer("arm64-4k")
    ram = writer.file("/dev/hugepages/ram", 2 << 20, 1)
    vmm = writer.process("qemu")
    v = writer.mmap(vmm, "v", ram, 0, 4 << 20, SHARED | MINOR, thread=7, time=100)
    heap = writer.mmap(vmm, "heap", writer.anonymous(2 << 20), 0, 2 << 20)
    pieces = np.zeros(3, dtype=OPERATION)
    pieces["op"], pieces["target"], pieces["length"] = CODES["continue"], v, 4096
    pieces["offset"] = np.arange(3) * 4096
    writer.extend(pieces, thread=8, time=np.array([200, -1, 190]))
    child = writer.fork(vmm, "qemu", thread=7)
    writer.emit("touch", writer.child_mapping(child, heap), 4096)
    moved = writer.move(heap, 0, 2 << 20, "heap2")
    writer.emit("munmap", moved, 0, 2 << 20)
    assert writer.mmap(vmm, "heap", 1, 0, 4 << 20) == heap
    writer.exit(child)
    writer.resize(ram, 2)
    trace = writer.trace("made", {"who": "me"})
    assert len(writer) == len(trace) == 12
    assert trace.to_text() == """hgmcore-trace 1
# provenance who: "me"
geometry arm64-4k
file _dev_hugepages_ram 2M 2
@7:100 mmap qemu v _dev_hugepages_ram 0 4M shared minor
mmap qemu heap anon:2M 0 2M private
@8:200 continue qemu v 0 4K
@8 continue qemu v 4K 4K
@8:190 continue qemu v 8K 4K
@7 fork qemu qemu.2
touch qemu.2 heap 4K
mremap qemu heap 0 2M heap2
munmap qemu heap2 0 2M
mmap qemu heap anon:2M 0 4M private
exit qemu.2
"""
    assert Trace.parse(trace.to_text()) == trace


def test_nothing_written():
    trace = Writer().trace("empty")
    assert len(trace) == 0 and trace.thread is None and trace.time is None


def test_columns_that_nobody_filled_are_left_out():
    writer = Writer()
    writer.file("f", 2 << 20, 1)
    writer.extend(np.zeros(0, dtype=OPERATION))
    trace = writer.trace("t")
    assert trace.thread is None and trace.time is None


@pytest.mark.parametrize("name, expected", [
    ("a", "a"), ("9", "_9"), ("", "_"), ("/a b", "_a_b"), ("é", "_"), (".x", "_.x")])
def test_words(name, expected):
    assert word(name) == expected


def test_names_stay_apart():
    writer = Writer()
    names = [writer.process(name) for name in ("a", "a", "a", "a.2", "a/2")]
    assert names == ["a", "a.2", "a.3", "a.2.2", "a_2"]
    files = [writer.file(name, 2 << 20, 1) for name in ("x", "x", "x.2")]
    assert [writer.names.files[index].name for index in files] == ["x", "x.2", "x.2.2"]


def test_what_a_trace_cannot_hold():
    writer = Writer()
    with pytest.raises(ValueError, match="x86-64 has no hugetlb pages of 64K"):
        writer.file("small", 64 << 10, 1)
    file = writer.file("f", 2 << 20, 1)
    with pytest.raises(ValueError, match="no process 'nobody'"):
        writer.fork("nobody", "child")
    writer.emit("populate", file, 0, 2)
    with pytest.raises(TraceError, match="made: statement 1: populate: .* reach beyond file 'f' of 1"):
        writer.trace("made")


GROW = """
import sys
import numpy as np
from programs import memory_peak
from hgmcore.trace import binary, text, wellformed
from hgmcore.trace.describe import describe
from hgmcore.trace import writer as module
from hgmcore.trace.writer import Writer
from hgmcore.trace.statements import OPERATION, SHARED
binary.ROW_GROUP = text.CHUNK = wellformed.CHUNK = 1 << 15
writer, n = Writer(), int(sys.argv[1])
v = writer.mmap(writer.process("p"), "v", writer.file("f", 2 << 20, 1), 0, 2 << 20, SHARED)
some = np.zeros(10_000, dtype=OPERATION)
some["op"], some["target"], some["offset"] = 7, v, np.arange(10_000) * 8 % (2 << 20)
for i in range(n // len(some)):
    writer.extend(some, thread=1 + i % 3, time=np.arange(len(some)) + i)
trace = writer.trace("t")
trace.save(sys.argv[2])
describe(trace)
print(memory_peak())
"""


def peak(operations, path):
    """Kilobytes that a process needs at most to write so many operations to `path`."""
    command = [sys.executable, "-c", GROW, str(operations), str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert not done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("suffix, operations", [("hgmt", 4_000_000), ("hgm", 600_000)])
def test_memory_does_not_grow(tmp_path, suffix, operations):
    small = peak(operations // 5, tmp_path / f"small.{suffix}")
    large = peak(operations, tmp_path / f"large.{suffix}")
    kept = operations * (OPERATION.itemsize + 12) // 1024
    assert large - small < kept / 4


@pytest.mark.parametrize("count, operations, where", [(0, 9, []), (1, 9, [4]), (2, 9, [3, 7]), (5, 2, [0, 2]),
                                                      (3, 0, [])])
def test_observations_are_inserted_evenly(monkeypatch, count, operations, where):
    monkeypatch.setattr(module, "_CHUNK", 2)
    out = Writer()
    for number in range(operations):
        out.emit("fail", 0, 1 + number, thread=number + 1, time=number)
    out.observe(count)
    trace = out.trace("t")
    assert np.flatnonzero(trace.operations["op"] == CODES["observe"]).tolist() == where
    kept = np.delete(np.arange(len(trace)), where)
    assert trace.operations["offset"][kept].tolist() == list(range(1, operations + 1))
    assert operations == 0 or trace.thread[kept].tolist() == list(range(1, operations + 1))
    out.emit("fail", 0, 99)
    assert out.trace("t").operations["offset"][-1] == 99
