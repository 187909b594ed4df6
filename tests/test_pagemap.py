"""The importer of snapshots: the state that it brings about has the map counts of the snapshot."""

import ctypes
import io
import mmap
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hgmcore import importers, replay
from hgmcore.importers import pagemap
from hgmcore.importers.parsers import lines as line_blocks
from hgmcore.importers.processes import resident
from hgmcore.trace import TraceError
from hgmcore.trace.statements import CODES, WRITE

DATA = Path(__file__).parent / "data"
SNAPSHOT = (DATA / "postgres.pagemapsnap").read_bytes()
SMAPS = (DATA / "postgres.smaps").read_bytes()
HUGE = 0x7F0000000000


def load(log, name="snap", **options):
    return pagemap.read(io.BytesIO(log if isinstance(log, bytes) else log.encode("latin-1")), name, **options)


def text(trace):
    return [line for line in trace.to_text().splitlines()[1:] if not line.startswith("#")]


def mapcounts(trace):
    """(file of the page's first mapping, page) -> how many processes map it, computed without the core.

    A touch maps the page in one process; a fork copies private mappings.
    """
    header, held = trace.header, {}
    shared = {}
    for record in trace.operations:
        op, target = record["op"], int(record["target"])
        if op == CODES["mmap"]:
            shared[header.mappings[target].name] = bool(record["flags"] & 1)
            held.setdefault(header.mappings[target].process, set())
        elif op == CODES["touch"]:
            mapping = header.mappings[target]
            assert bool(record["flags"] & WRITE) != shared[mapping.name]
            held[mapping.process].add((mapping.name, int(record["offset"])))
        elif op == CODES["fork"]:
            held[int(record["arg"])] = {page for page in held[target] if not shared[page[0]]}
    return Counter(page for pages in held.values() for page in pages)


def test_the_counts_of_a_slice():
    trace, report = load(SNAPSHOT, kinds="hugetlb")
    expected = [int(count) for count in re.findall(rb"^P \S+ 512 \d+ map=(\d+) .*huge", SNAPSHOT, re.M)]
    assert len(expected) == 44 and max(expected) == 12
    result = replay(trace, "hugetlb", operations="all")
    assert not result["operations"]["errno"].any()
    folios = result["observations"][0]["folios"]
    assert [folio["mapcount"] for folio in folios] == expected
    assert [folio["truth"]["mappings"] for folio in folios] == expected
    assert report.used == {"VMAs": 1, "runs of pages": 44}
    assert report.used.total() + report.skipped.total() == report.lines == SNAPSHOT.count(b"\n")
    assert trace.header.files[0] == ("anon_hugepage", 2 << 20, 274, "hugetlb")


def test_all_kinds_of_a_slice():
    trace, report = load(SNAPSHOT)
    expected = Counter()
    for vma in re.split(rb"^V ", SNAPSHOT, flags=re.M)[1:]:
        if re.match(rb"\S+ \S+ \S+ 0 (?:\[heap\]|\[stack\])?$|.*(?:huge|shm|SYSV)", vma, re.M):
            for run, pages, count in re.findall(rb"^(P \S+ (\d+) \d+ map=(\d+).*)$", vma, re.M):
                expected[int(count)] += 1 if b"huge" in run else int(pages)
    assert Counter(mapcounts(trace).values()) == expected
    assert expected[12] > 2 and expected[8] > 5
    assert report.used.total() + report.skipped.total() == report.lines


def test_smaps():
    trace, report = load(SMAPS, kinds="hugetlb")
    result = replay(trace, "hugetlb")
    mapping = result["observations"][0]["mappings"][0]
    assert mapping["shared_hugetlb"] == 165888 << 10 and mapping["private_hugetlb"] == 0
    assert report.used.total() + report.skipped.total() == report.lines == SMAPS.count(b"\n")
    trace, _ = load(SMAPS)
    count = mapcounts(trace)
    names = {name for name, _ in count}
    assert names == {"heap", "PostgreSQL.4056584550", "anon_hugepage", "stack"}
    fields = dict(re.findall(rb"^(\w+): +(\d+) kB", SMAPS[SMAPS.index(b"[heap]"):SMAPS.index(b"/dev/shm")], re.M))
    private = (int(fields[b"Private_Clean"]) + int(fields[b"Private_Dirty"])) // 4
    assert sum(count[page] == 1 for page in count if page[0] == "heap") == private
    assert sum(page[0] == "heap" for page in count) == int(fields[b"Rss"]) // 4


def vma(start, pages, name="", permissions="rw-p", inode=0, offset=0):
    return f"V {start:x}-{start + pages * 4096:x} {permissions} {offset:08x} {inode} {name}\n"


def run(start, pages, count, flags="-"):
    return f"P {start:#x} {pages} 77 map={count} x=0 sd=0 {flags} \n"


def test_the_state_that_is_written():
    log = (vma(HUGE, 1024, "/anon_hugepage (deleted)", "rw-s", 5) + run(HUGE, 512, 2, "huge")
           + run(HUGE + (2 << 20), 512, 1, "huge") + vma(HUGE + (1 << 30), 2, "[heap]")
           + run(HUGE + (1 << 30), 1, 2, "anon"))
    assert text(load(log, process="pg")[0]) == [
        "file anon_hugepage 2M 2", "mmap pg anon_hugepage anon_hugepage 0 4M shared",
        "mmap pg heap anon:4K 0 8K private", "touch pg anon_hugepage 0", "touch pg heap 0 write", "fork pg pg_2",
        "touch pg_2 anon_hugepage 0", "touch pg anon_hugepage 2M", "observe"]


def test_one_file_in_two_mappings():
    log = (vma(HUGE, 512, "/dev/hugepages/f", "rw-s", 5) + run(HUGE, 512, 1, "huge")
           + vma(HUGE + (4 << 20), 512, "/dev/hugepages/f", "rw-s", 5, offset=2 << 20)
           + run(HUGE + (4 << 20), 512, 1, "huge"))
    assert text(load(log)[0])[:3] == [
        "file f 2M 2", "mmap process f f 0 2M shared", "mmap process f.2 f 2M 2M shared"]


def test_huge_folios_of_other_memory_have_stretches_of_their_own():
    start = HUGE + (1 << 20)
    log = (vma(start, 1280) + run(start, 3, 1, "anon") + run(HUGE + (2 << 20), 512, 1, "anon,thp")
           + run(HUGE + (4 << 20), 100, 2, "anon,thp") + run(HUGE + (5 << 20), 1, 1, "anon"))
    assert text(load(log)[0]) == [
        "mmap process anon anon:4K 0 1M private", "mmap process anon.2 anon:2M 0 2M private",
        "mmap process anon.3 anon:4K 0 2M private",
        *(f"touch process anon.3 {offset} write" for offset in ["0"] + [f"{4 * i}K" for i in range(1, 100)]),
        "fork process process_2", *(f"touch process anon {offset} write" for offset in ("0", "4K", "8K")),
        "touch process anon.2 0 write", "touch process anon.3 1M write", "observe"]
    log = vma(HUGE, 512, "/dev/shm/x", "rw-s", 7) + run(HUGE, 512, 1, "thp")
    assert text(load(log)[0])[0] == "file x 2M 1 shmem"


def test_counts_are_bounded(monkeypatch):
    monkeypatch.setattr(resident, "MOST_SHARERS", 3)
    trace, report = load(vma(HUGE, 512, "[heap]") + run(HUGE, 2, 5000, "anon"))
    assert trace.header.processes == ["process", "process_3", "process_2"]
    assert report.notes[-1] == "map counts above 3, taken as that: 2"


GOOD = vma(HUGE, 512, "/anon_hugepage (deleted)", "rw-s", 5) + run(HUGE, 512, 1, "huge")


@pytest.mark.parametrize("line, reason", [
    (run(HUGE, 512, 1, "huge").replace("map=", "mapped="), "malformed P line"),
    (run(HUGE, 512, 1, "huge")[:20] + "\n", "malformed P line"),
    (run(HUGE, 1, 0, "\xff"), "pages whose map count is not known"),
    (f"V {HUGE + (2 << 20):x}-fffffffffffff000 rw-p 0 0 \n", "VMA that is larger than any can be"),
    (f"V {HUGE + (2 << 20):x}-{HUGE + (4 << 20):x} rw-s fffffffffffff000 6 /x\n", "VMA that is larger than any can be"),
    (run(HUGE + (2 << 20), 1, 1), "P line outside its VMA"),
    (run(HUGE - 4096, 1, 1), "P line outside its VMA"),
    (run(HUGE, 513, 1), "P line outside its VMA"),
    (run(HUGE + 4096, 1, 2), "P line that begins before the last one ends"),
    (run(HUGE + 5, 1, 1), "P line outside its VMA"),
    (run(HUGE, 1, 0), "pages whose map count is not known"),
    (run(HUGE, 1, -1), "pages whose map count is not known"),
    (run(HUGE, 1, 9, "zero"), "pages that are merged, or the zero page"),
    (run(HUGE, 1, 9, "anon,ksm"), "pages that are merged, or the zero page"),
    ("S 0x7f0000001000 0x55\n", "pages that are swapped out"),
    (vma(HUGE - 4096, 1), "VMA that is empty, or overlaps with the one before"),
    (vma(HUGE + (2 << 20), 0), "VMA that is empty, or overlaps with the one before"),
    (vma(HUGE + (2 << 20) + 5, 1), "VMA that is empty, or overlaps with the one before"),
    (vma(HUGE + (2 << 20), 1, "/usr/lib/libc.so", "r-xp", 6), "VMA: a mapping of another file"),
    (vma(HUGE + (2 << 20), 1, "/x", "r--s", 6), "VMA: a mapping of another file"),
    (vma(HUGE + (2 << 20), 1, "[vdso]"), "VMA: memory of the kernel"),
    (vma(HUGE + (2 << 20), 1, "[heap]"), "VMA: anon memory is not taken"),
    (vma(HUGE + (2 << 20), 1, "/dev/zero (deleted)", "rw-s", 6), "VMA: shmem memory is not taken"),
    (vma(HUGE + (2 << 20), 1, "/anon_hugepage", "rw-s", 6), "VMA: hugetlb memory that cannot be of pages of 2M"),
    ("x" * 9000 + "\n", "a line of more than 8192 bytes"),
    ("junk\n", "not a line of a snapshot"),
    ("\0\xff\n", "not a line of a snapshot"),
    ("\n", "empty line"),
    ("# comment\n", "comment"),
])
def test_a_line_that_is_skipped(line, reason):
    trace, report = load(GOOD + line, kinds="hugetlb")
    assert len(trace) == 4 and report.skipped == {reason: 1} and report.first == {reason: 3}


def test_a_foreign_file():
    for log in ("", "hgmcore-trace 1\nobserve\n", run(HUGE, 1, 1)):
        with pytest.raises(TraceError, match="^a: neither a snapshot "):
            load(log, "a")
    with pytest.raises(TraceError, match="no memory of the kinds hugetlb is mapped in 1 VMAs"):
        load(vma(HUGE, 1, "[heap]"), kinds="hugetlb")


def test_bad_options():
    for options, reason in (({"kinds": "x"}, "kinds: 'x' is not one of hugetlb, shmem, anon"),
                            ({"hugetlb": "x"}, "hugetlb: 'x' is not a number"),
                            ({"geometry": "vax"}, "unknown geometry 'vax'")):
        with pytest.raises(ValueError, match=reason):
            load(SNAPSHOT, **options)


@pytest.mark.parametrize("log", [SNAPSHOT, SMAPS], ids=["snapshot", "smaps"])
def test_blocks_of_lines_change_nothing(monkeypatch, log):
    whole, counted = load(log)
    monkeypatch.setattr(line_blocks, "BLOCK", 300)
    trace, report = load(log)
    assert trace == whole and report.to_dict() == counted.to_dict()


@pytest.mark.parametrize("log", [SNAPSHOT, SMAPS], ids=["snapshot", "smaps"])
def test_a_snapshot_that_is_cut_anywhere(log):
    for length in range(0, len(log), 301):
        try:
            load(log[:length])
        except TraceError as error:
            assert str(error).startswith("snap: n")


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.lists(st.integers(1, 5), min_size=1, max_size=6)), min_size=1, max_size=4))
def test_any_counts_come_about(areas):
    log, expected, at = "", Counter(), HUGE
    for number, (shared, counts) in enumerate(areas):
        log += vma(at, len(counts) * 512, f"/dev/hugepages/f{number}", "rw-s" if shared else "rw-p", number + 1)
        for page, count in enumerate(counts):
            log += run(at + page * (2 << 20), 512, count, "huge")
            expected[f"f{number}", page << 21] = count
        at += len(counts) << 21
    assert mapcounts(load(log)[0]) == expected


def shows_frames():
    """Does the kernel show this process's page frames to it? To root in a container it may not."""
    page = mmap.mmap(-1, mmap.PAGESIZE)
    page[0] = 1
    at = np.frombuffer(page, np.uint8).ctypes.data // mmap.PAGESIZE
    with open("/proc/self/pagemap", "rb", 0) as pagemap:
        entry = int.from_bytes(os.pread(pagemap.fileno(), 8, 8 * at), "little")
    return entry >> 63 == 1 and entry & (1 << 55) - 1 != 0


@pytest.mark.skipif(os.geteuid() != 0, reason="kpagecount needs root")
def test_the_recorder_without_frames():
    pr_capbset_drop, cap_sys_admin = 24, 21
    result = subprocess.run(
        [sys.executable, "-m", "hgmcore.importers.snapshot", str(os.getpid())], capture_output=True, text=True,
        preexec_fn=lambda: ctypes.CDLL(None).prctl(pr_capbset_drop, cap_sys_admin, 0, 0, 0))
    assert result.stderr == (f"hgmcore: error: /proc/{os.getpid()}/pagemap: the kernel shows page frames only to "
                             "CAP_SYS_ADMIN\n")
    assert result.returncode == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="kpagecount needs root")
@pytest.mark.skipif(not shows_frames(), reason="pagemap needs CAP_SYS_ADMIN")
def test_the_recorder(tmp_path):
    code = ("import mmap, os, sys; m = mmap.mmap(-1, 1 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS); m[:] = b'x' * "
            "(1 << 20); s = mmap.mmap(-1, 1 << 16); s[:] = b'y' * (1 << 16); print('ready', flush=True); "
            "sys.stdin.read()")
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"ready\n"
        recorded = subprocess.run([sys.executable, "-m", "hgmcore.importers.snapshot", str(child.pid)],
                                  capture_output=True, check=True).stdout
        areas = Path(f"/proc/{child.pid}/maps").read_text().splitlines()
        child.stdin.close()
    path = tmp_path / "snap"
    path.write_bytes(recorded)
    trace, report = importers.read("pagemap", path)
    assert report.used["VMAs"] > 5
    assert not any("malformed" in reason or "outside" in reason for reason in report.skipped)
    assert recorded.count(b"\nV ") == sum("[vsyscall]" not in area for area in areas)
    pages = mapcounts(trace)
    assert len([page for page in pages if page[0].startswith("zero")]) == 16  # shared anonymous memory: /dev/zero
    assert np.bincount(trace.operations["op"])[CODES["touch"]] > 256


def test_the_recorder_complains():
    for argument, reason in (("x", "usage: "), ("999999999", "/proc/999999999/maps: No such file or directory")):
        result = subprocess.run([sys.executable, "-m", "hgmcore.importers.snapshot", argument], capture_output=True,
                                text=True)
        assert result.returncode and reason in result.stderr and "Traceback" not in result.stderr
