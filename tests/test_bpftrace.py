"""The importer of recordings by bpftrace."""

import re
from collections import Counter
from importlib import resources

import pytest
from recorded_calls import DATA, counted, load, operations, statements, text_of

from hgmcore.importers import bpftrace
from hgmcore.importers.parsers import bpftrace_events
from hgmcore.importers.parsers import lines as line_blocks
from hgmcore.importers.processes import accesses, mapper
from hgmcore.replay import replay, to_json
from hgmcore.trace import TraceError

A = 0x7f0000000000
MMAP = f"5 7 7 MMAP {A:x} 400000 prot=3 flags=22 fd=-1 off=0\n"
ANON = "mmap p7 anon anon:2M 0 4M private"
MEMFD = f"5 7 7 MEMFD 4 3\n5 7 7 MMAP {A:x} 400000 prot=3 flags=1 fd=3 off=0\n"
RAM = ["file memfd 2M 2", "mmap p7 memfd memfd 0 4M shared"]


def uffd(command, offset, length, mode=0, tid=7, result=0):
    third = length if command == 3 else mode
    call = f"5 7 {tid} UFFD {command:x} {A + offset:x} {0x5000 if command == 3 else length:x} {third:x}\n"
    return call if result is None else call + f"5 7 {tid} UFFDRET {result}\n"


# Recordings


@pytest.mark.parametrize("name", ["hugepage-mremap", "uffd-minor"])
def test_a_recording_becomes_this_trace(name):
    trace, report = load("bpftrace", (DATA / f"{name}.bt").read_bytes())
    assert text_of(trace) == (DATA / f"{name}.bt.hgm").read_text()
    assert report.used.total() + report.skipped.total() == report.lines


@pytest.mark.parametrize("name", ["uffd-minor", "uffd-stress"])
def test_a_recording_counted_the_plain_way(name):
    log = (DATA / f"{name}.bt").read_text()
    words = [line.split() for line in log.splitlines() if re.match(r"\d", line)]
    trace, report = load("bpftrace", log)
    events = Counter(line[3] for line in words)
    everything = report.used + report.skipped

    def of(what):
        return sum(count for reason, count in everything.items() if reason.startswith(what))

    assert of("page fault") == events["PF"] > 50
    assert report.used["results of userfaultfd calls"] + report.skipped["UFFDRET without its UFFD"] == events["UFFDRET"]
    for command, call in ((3, "COPY"), (7, "CONTINUE"), (0, "REGISTER"), (2, "WAKE"), (6, "WRITEPROTECT")):
        assert of(f"UFFDIO_{call}") == sum(line[3:5] == ["UFFD", str(command)] for line in words)
    failed = sum(line[3:] == ["UFFDRET", "-17"] for line in words)
    assert sum(count for reason, count in everything.items() if reason.endswith("failed with EEXIST")) == failed > 0


def test_faults_lie_where_the_recording_says():
    log = (DATA / "uffd-minor.bt").read_text()
    first, second = (int(line[4], 16) for line in map(str.split, log.splitlines())
                     if len(line) > 8 and line[3] == "MMAP" and line[7:9] == ["flags=1", "fd=4"])
    trace, _ = load("bpftrace", log, kinds="shmem")
    faults = [int(line[4], 16) for line in map(str.split, log.splitlines()) if len(line) > 4 and line[3] == "PF"]
    touched = {offset for _, target, offset, *_ in operations(trace, "touch") if target == 0}
    assert touched == {(at - first) & ~4095 for at in faults if first <= at < first + (4 << 20)}
    continued = [offset for _, _, offset, *_ in operations(trace, "continue")]
    assert sorted(continued) == list(range(0, 64 * 4096, 4096)) and continued != sorted(continued)


@pytest.mark.parametrize("name", ["uffd-minor", "uffd-stress"])
@pytest.mark.parametrize("size", [200, 1000])
def test_blocks_of_lines_change_nothing(monkeypatch, name, size):
    log = (DATA / f"{name}.bt").read_bytes()
    whole, expected = load("bpftrace", log)
    monkeypatch.setattr(line_blocks, "BLOCK", size)
    trace, report = load("bpftrace", log)
    assert sorted(statements(trace)) == sorted(statements(whole))  # a call without a result may move
    assert counted(report)["used"] == counted(expected)["used"]


@pytest.mark.parametrize("name", ["hugepage-mremap", "uffd-stress"])
def test_the_core_refuses_nothing_that_the_kernel_did(name):
    trace, _ = load("bpftrace", (DATA / f"{name}.bt").read_bytes(), kinds="hugetlb")
    answers = replay(trace, "nr_pages_mapped", operations="all")["operations"]
    assert len(answers) == len(trace) > 8 and not answers["errno"].any()


# What becomes of a line


@pytest.mark.parametrize("log, expected", [
    (MMAP + f"6 7 8 PF {A + 0x1008:x} 6\n6 7 8 PF {A + 0x200000:x} 4\n",
     [ANON, "touch p7 anon 4K write", "touch p7 anon 2M"]),
    (MMAP + f"6 7 7 MUNMAP {A:x} 1000\n6 7 7 PF {A + 0x1000:x} 7\n",
     [ANON, "munmap p7 anon 0 4K", "touch p7 anon 4K write"]),
    (MMAP + f"6 7 7 MPROTECT {A:x} 1000 1\n6 7 7 MADVISE {A:x} 1000 4\n6 7 7 MADVISE {A:x} 200000 25\n",
     [ANON, "mprotect p7 anon 0 4K r", "dontneed p7 anon 0 4K", "collapse p7 anon 0 2M"]),
    (MMAP + f"6 7 7 MREMAP {A:x} 400000 400000 ret={2 * A:x}\n", [ANON, "mremap p7 anon 0 4M anon.2"]),
    (MMAP + f"6 7 7 MREMAP {A:x} 400000 800000 0\n", [ANON, "mremap p7 anon 8M"]),
    ("5 7 7 BRK 5000\n5 7 7 BRK 7000\n5 7 7 PF 6fff 6\n",
     ["mmap p7 heap anon:4K 0 8K private", "touch p7 heap 4K write"]),
    (MEMFD + "6 7 7 FALLOCATE 3 0 0 400000\n6 7 7 FALLOCATE 3 3 0 1000\n6 7 7 TRUNCATE 3 200000\n",
     [*RAM, "populate memfd 0 2", "punch memfd 0 4K", "truncate memfd 2M"]),
    (MEMFD.replace("MEMFD 4 3", "MEMFD 4"), RAM),  # v1 does not tell the descriptor
    (MEMFD.replace("MEMFD 4", "MEMFD 78000004").replace("400000", "40000000"),
     ["file memfd 1G 1", "mmap p7 memfd memfd 0 1G shared"]),
    (MEMFD + uffd(0, 0, 4 << 20, 4) + uffd(7, 0x3000, 4096) + uffd(7, 0x3000, 4096, result=-17) + uffd(1, 0, 4 << 20),
     [*RAM, "register p7 memfd minor", "continue p7 memfd 12K 4K", "unregister p7 memfd"]),
    (MEMFD + uffd(0, 0, 4 << 20, 1) + f"6 7 9 PF {A:x} 6\n" + uffd(3, 0, 4 << 20) + uffd(4, 2 << 20, 2 << 20),
     [*RAM, "touch p7 memfd 0 write", "touch p7 memfd 2M write", "touch p7 memfd 2M"]),
    (MMAP + f"6 7 7 FORK 8 1200000\n6 7 7 FORK 9 3d0f00\n6 8 8 PF {A:x} 6\n6 8 8 EXIT\n6 7 9 EXIT\n6 7 7 EXIT\n",
     [ANON, "fork p7 p8", "touch p8 anon 0 write", "exit p8", "exit p7"]),
    (MMAP + f"6 7 7 FORK 8\n6 7 7 FORK 9\n6 7 7 PF {A:x} 6\n6 8 8 PF {A:x} 6\n6 7 9 PF {A:x} 6\n6 8 8 EXEC\n",
     [ANON, "touch p7 anon 0 write", "fork p7 p8", "touch p8 anon 0 write", "touch p7 anon 0 write", "exit p8"]),
    (MMAP + f"6 7 7 FORK 8 4100\n6 8 8 MUNMAP {A:x} 200000\n6 8 8 EXEC\n6 8 8 PF {A:x} 6\n",
     [ANON, "munmap p7 anon 0 2M"]),  # vfork: in the memory of the parent until execve
])
def test_what_an_event_becomes(log, expected):
    trace, report = load("bpftrace", log)
    assert statements(trace) == expected
    assert report.used.total() + report.skipped.total() == report.lines


def test_a_call_takes_place_when_it_returns():
    trace, report = load("bpftrace", MEMFD + uffd(7, 0, 4096, result=None) + uffd(7, 4096, 4096, tid=8)
                         + "6 7 7 UFFDRET 0\n" + uffd(7, 8192, 4096, result=None) + uffd(7, 12288, 4096, result=None))
    assert statements(trace)[2:] == [f"continue p7 memfd {at} 4K" for at in ("4K", "0", "8K", "12K")]
    assert report.notes[0] == "userfaultfd calls without a result in the recording: 2, taken as done"


def test_what_is_written_together_stays_in_order(monkeypatch):
    """Three processes that take turns between calls of theirs, and placements that are longer than what is made at
    once: as if each line came alone."""
    log = MEMFD.replace("400000", "4000000") + "6 7 7 FORK 8 1200000\n6 7 7 FORK 9 1200000\n"
    for number in range(60):
        who, page = 7 + number * 5 % 3, A + number % 7 * 4096
        log += f"{number} {who} {who} PF {page:x} {number % 2 * 2:x}\n"
        log += f"6 7 6 UFFD 4 {A + number * 4096:x} {number % 4 << 21:x} 0\n6 7 6 UFFDRET 0\n"
        log += number % 5 * f"6 {who} {who} MADVISE {page:x} 1000 4\n"
        log += (number % 20 == 19) * f"6 {who} {who} MMAP {page:x} 1000 prot=3 flags=8032 fd=-1 off=0\n"
    whole, _ = load("bpftrace", log)
    monkeypatch.setattr(accesses, "_ROWS", 2)
    parts, _ = load("bpftrace", log)
    monkeypatch.setattr(line_blocks, "BLOCK", 50)
    single, _ = load("bpftrace", log)
    assert statements(whole) == statements(parts) == statements(single) and len(whole) > 250
    assert whole.time.tolist() == single.time.tolist() and whole.thread.tolist() == single.thread.tolist()


def test_moves_that_a_trace_cannot_name_are_one_note(monkeypatch):
    monkeypatch.setattr(mapper, "NO_ARG", 1)
    trace, report = load("bpftrace", MMAP + "".join(
        f"6 7 7 MREMAP {A << at:x} 400000 400000 ret={A << at + 1:x}\n" for at in range(3)))
    assert statements(trace) == [ANON] + 3 * ["munmap p7 anon 0 4M", ANON]
    assert report.notes == ["moves of a mapping that are written as munmap and mmap, as a trace cannot name more "
                            "mappings in mremap: 3"]


def test_a_guest():
    log = MMAP + f"6 7 8 PF {A + 0x1008:x} 6\n" + uffd(3, 0x1000, 8192) + f"6 9 9 PF {5 * A:x} 4\n"
    trace, report = load("bpftrace", log, **{"as": "guest", "page_size": "2M", "later": "touch"})
    assert statements(trace)[4:-2] == ["continue program ram 4K 4K urgent", "touch program ram 4K write",
                                       "continue program ram 8K 4K urgent", "continue program ram 2M 4K urgent"]
    assert report.used["page fault"] == 2 and report.used["UFFDIO_COPY"] == 1


# What is not as it should be


@pytest.mark.parametrize("length, reason", [
    (1 << 40, "UFFDIO_COPY of more than 8G at once"),
    ((1 << 64) - A, "UFFDIO_COPY at addresses that no process has"),
])
@pytest.mark.parametrize("way", ["touch", "guest"])
def test_a_placement_that_is_too_long(way, length, reason):
    _, report = load("bpftrace", MMAP + uffd(3, 0, length) + uffd(3, 0, 4096), **{"as": way})
    assert report.skipped == {reason: 1} and report.used["UFFDIO_COPY"] == 1


@pytest.mark.parametrize("line, reason", [
    ("6 7 7 PF zz 6", "malformed PF"), ("6 7 7 PF 7f0000000000", "malformed PF"),
    ("6 7 7 UFFD 7 1 2", "malformed UFFD"),
    ("6 7 7 UFFDRET x", "malformed UFFDRET"), ("6 7 7 MMAP 7f", "malformed MMAP"), ("6 7 7 BLINK 3", "event 'BLINK'"),
    ("6 7 7 UFFDRET 0", "UFFDRET without its UFFD"), ("6 7 x PF 7f 6", "not a line of hgm.bt"),
    ("6 7", "not a line of hgm.bt"),
    ("99999999999999999999 7 7 PF 7f0000000000 6", "not a line of hgm.bt"), ("", "empty line"),
    ("# hgm.bt v2", "comment"),
    ("Attaching 15 probes...", "what bpftrace says of itself"),
    ("6 7 7 PF 5000 6", "page fault outside any mapping that the recording shows"),
    ("6 7 7 MMAP ffffffffffffffea 1000 prot=3 flags=22 fd=-1 off=0", "mmap that failed"),
    ("6 7 7 MREMAP 7f0000000000 1000 1000 ret=fffffffffffffff2", "mremap that failed"),
    ("6 7 7 MMAP 5000 1000 prot=5 flags=2 fd=3 off=0", "mmap: a mapping of another file"),
    ("6 7 7 FALLOCATE 3 0 0 1000", "fallocate: a file that is not taken"),
    (f"6 7 7 MMAP {A:x} ffffffffff000000 prot=3 flags=22 fd=-1 off=0", "mmap: at addresses that no process has"),
    ("6 7 7 PF ffffffffff600000 4", "page fault at addresses that no process has"),
])
def test_a_line_that_is_left_out(line, reason):
    trace, report = load("bpftrace", MMAP + line + "\n")
    assert report.skipped == {reason: 1} and report.first[reason] == 2
    assert statements(trace) == [ANON]


def test_a_hugetlb_page_is_not_cut():
    trace, report = load("bpftrace", MEMFD + f"6 7 7 MUNMAP {A + 4096:x} 1ff000\n")
    assert report.skipped["munmap: cuts a hugetlb page, which a kernel refuses"] == 1 and statements(trace) == RAM


def test_a_recording_cut_anywhere():
    log = (DATA / "uffd-stress.bt").read_bytes()
    for end in range(9000, len(log), 997):
        _, report = load("bpftrace", log[:end])
        assert report.lines == log[:end].count(b"\n") + (log[end - 1:end] != b"\n")
        assert report.used.total() + report.skipped.total() == report.lines


@pytest.mark.parametrize("log, reason", [
    ("", "log: not a recording of hgm.bt: no line is of the form NANOSECONDS TGID TID EVENT"),
    ("8@1.0:postcopy_x\n\0", "log: not a recording of hgm.bt: no line is of the form NANOSECONDS TGID TID EVENT"),
    ("6 7 7 EXIT\n", "log: no memory of the kinds hugetlb, shmem, anon is mapped in 1 lines"),
])
def test_nothing_to_import(log, reason):
    with pytest.raises(TraceError) as caught:
        load("bpftrace", log)
    assert str(caught.value) == reason


# The recorder


def test_the_recorder_ships_and_is_understood():
    script = resources.files("hgmcore.importers").joinpath("hgm.bt").read_text()
    assert bpftrace.RECORDER.endswith("hgm.bt") and "bpftrace.RECORDER" in bpftrace.explanation
    assert "exceptions:page_fault_kernel" in script and "exceptions:page_fault_user" in script
    written = set(re.findall(r'printf\("%lld %d %d (\w+)', script))
    assert written == {event.decode() for event in bpftrace_events.EVENTS} | {"PF", "UFFD", "UFFDRET"}


def test_a_recording_without_mprotect_does_not_tell_what_may_be_used():
    """hgm.bt v1: a thread's stack, mapped for nothing, is touched all the same."""
    trace, _ = load("bpftrace", (DATA / "uffd-stress.bt").read_bytes())
    assert "EFAULT" not in [row["error"] for row in to_json(replay(trace, "mm_id"), trace)["operations"]]


def test_a_private_mapping_of_a_memfd_is_left_out_by_name():
    private = f"6 7 7 MMAP {A + (1 << 30):x} 200000 prot=3 flags=2 fd=3 off=0\n7 7 7 PF {A + (1 << 30):x} 6\n"
    trace, report = load("bpftrace", MEMFD.replace("MEMFD 4", "MEMFD 0") + private)
    assert report.skipped["mmap: a private mapping of a shmem file, which traces do not have"] == 1
    assert statements(trace) == ["file memfd 2M 2 shmem", RAM[1]]
