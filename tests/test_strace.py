"""The importer of strace logs."""

import re
import tracemalloc

import numpy as np
import pytest
from recorded_calls import DATA, counted, load, operations, statements, text_of

from hgmcore.importers import strace
from hgmcore.importers.parsers import lines as line_blocks
from hgmcore.importers.parsers import strace_calls
from hgmcore.importers.parsers.strace_lines import key
from hgmcore.importers.processes import accesses
from hgmcore.importers.processes.accesses import ACCESS
from hgmcore.trace import NO_TIME, File, TraceError
from hgmcore.trace.statements import CODES

A = 0x7f0000000000  # an address at which a hugetlb page may begin
MEMFD = 'memfd_create("ram", MFD_HUGETLB|21<<MFD_HUGE_SHIFT) = 3</memfd:ram>(deleted)\n'
SHARED = f"mmap(NULL, 4194304, PROT_READ|PROT_WRITE, MAP_SHARED, 3</memfd:ram>(deleted), 0) = {A:#x}\n"


def anon(address=A, length=2 << 20, more=""):
    return (f"mmap(NULL, {length}, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS{more}, -1, 0) = {address:#x}\n")


def place(call, offset, length=4096, result="0"):
    if call == "COPY":
        return (f"ioctl(5<anon_inode:[userfaultfd]>, UFFDIO_COPY, {{dst={A + offset:#x}, src=0x5000, "
                f"len={length:#x}, mode=0, copy={length:#x}}}) = {result}\n")
    return (f"ioctl(5<anon_inode:[userfaultfd]>, UFFDIO_{call}, {{range={{start={A + offset:#x}, "
            f"len={length:#x}}}, mode=0, mapped={length:#x}}}) = {result}\n")


# Recordings


@pytest.mark.parametrize("name", ["hugetlb-madvise", "thuge-gen", "uffd-minor"])
def test_a_recording_becomes_this_trace(name):
    trace, report = load("strace", (DATA / f"{name}.strace").read_bytes())
    assert text_of(trace) == (DATA / f"{name}.strace.hgm").read_text()
    assert report.used.total() + report.skipped.total() == report.lines


def test_placements_of_a_recording_the_plain_way():
    log = (DATA / "qemu-postcopy_4k.strace").read_text()
    base = int(re.search(r"MAP_FIXED, 9</memfd:mem.* = (0x\w+)", log)[1], 16)
    copies = [int(where, 16) for where in re.findall(r"UFFDIO_COPY, {dst=(\w+), .* = 0$", log, re.MULTILINE)]
    trace, report = load("strace", log, kinds="shmem", folio="4K")
    touched = [offset for _, _, offset, *_ in operations(trace, "touch")]
    assert touched == [where - base for where in copies if where - base < 1 << 30]
    assert len(copies) == report.used["UFFDIO_COPY"] + report.skipped["UFFDIO_COPY in memory that is not taken"] == 79
    assert trace.header.files == [File("memory-backend-memfd", 4096, (1 << 30) // 4096, "shmem")]
    assert report.skipped["mmap: anon memory is not taken"] > 0


@pytest.mark.parametrize("name", ["qemu-postcopy_4k", "uffd-minor"])
@pytest.mark.parametrize("size", [400, 4096])
def test_blocks_of_lines_change_nothing(monkeypatch, name, size):
    log = (DATA / f"{name}.strace").read_bytes()
    whole, expected = load("strace", log)
    monkeypatch.setattr(line_blocks, "BLOCK", size)
    trace, report = load("strace", log)
    assert trace == whole
    assert counted(report) == counted(expected)


def test_many_lines_at_once_are_as_one_by_one(monkeypatch):
    results = ["0", "0 <0.000011>", "-1 EEXIST (File exists)", "0"]
    log = MEMFD + SHARED + "".join(place(call, 8192 * at, 8192, result) for at, result in enumerate(results)
                                   for call in ("COPY", "ZEROPAGE", "CONTINUE"))
    whole, expected = load("strace", log)
    assert len(operations(whole, "touch", "continue")) == 9
    monkeypatch.setattr(strace, "placements", lambda block, where, end: (np.zeros(0, ACCESS), where[:0]))
    trace, report = load("strace", log)
    assert trace == whole and counted(report) == counted(expected)


# What becomes of a line


@pytest.mark.parametrize("prefix, thread, time", [
    ("", 0, NO_TIME), ("812 ", 812, NO_TIME), ("[pid   812] ", 812, NO_TIME),
    ("81    1700000000.000015 ", 81, 1700000000000015000), ("1700000000.5 ", 0, 1700000000500000000),
    ("[pid 812] 1700000000.000015 ", 812, 1700000000000015000),
    ("812 13:00:01 ", 812, 46801 * 10**9), ("812 13:00:01.000002 ", 812, 46801000002000)])
def test_who_and_when(prefix, thread, time):
    trace, _ = load("strace", prefix + anon().rstrip() + " <0.000009>\n" + prefix + f"munmap({A:#x}, 2097152) = 0\n")
    assert statements(trace) == [f"mmap p{thread} anon anon:2M 0 2M private", f"munmap p{thread} anon 0 2M"]
    assert (0 if trace.thread is None else trace.thread[1]) == thread
    assert (NO_TIME if trace.time is None else trace.time[1]) == time


@pytest.mark.parametrize("log, expected", [
    (anon(more="|MAP_HUGETLB|30<<MAP_HUGE_SHIFT", length=1 << 30),
     ["file hugetlb 1G 1", "mmap p0 hugetlb hugetlb 0 1G private"]),
    (anon(more="|MAP_HUGETLB|MAP_HUGE_1GB", length=5),
     ["file hugetlb 1G 1", "mmap p0 hugetlb hugetlb 0 1G private"]),
    (anon(more="|MAP_HUGETLB|MAP_POPULATE", length=4 << 20),
     ["file hugetlb 2M 2", "mmap p0 hugetlb hugetlb 0 4M private", "touch p0 hugetlb 0 write",
      "touch p0 hugetlb 2M write"]),
    (anon().replace("MAP_PRIVATE", "MAP_SHARED").replace("|PROT_WRITE", ""),
     ["file shmem 2M 1 shmem", "mmap p0 shmem shmem 0 2M shared", "mprotect p0 shmem 0 2M r"]),
    (anon(length=4097), ["mmap p0 anon anon:4K 0 8K private"]),
    (anon() + f"mprotect({A + 4096:#x}, 4096, PROT_NONE) = 0\n",
     ["mmap p0 anon anon:2M 0 2M private", "mprotect p0 anon 4K 4K none"]),
    (anon() + anon(A + 4096, 4096, "|MAP_FIXED"),
     ["mmap p0 anon anon:2M 0 2M private", "munmap p0 anon 4K 4K", "mmap p0 anon.2 anon:4K 0 4K private"]),
    (anon() + f"madvise({A:#x}, 2097152, MADV_COLLAPSE) = 0\nmadvise({A:#x}, 1, MADV_HWPOISON) = 0\n",
     ["mmap p0 anon anon:2M 0 2M private", "collapse p0 anon 0 2M", "hwpoison p0 anon 0"]),
    (anon() + f"madvise({A:#x}, 2097152, MADV_POPULATE_READ) = 0\n",
     ["mmap p0 anon anon:2M 0 2M private", "touch p0 anon 0"]),
    (anon() + f"mremap({A:#x}, 2097152, 4194304, MREMAP_MAYMOVE) = {A:#x}\nmunmap({A:#x}, 4194304) = 0\n",
     ["mmap p0 anon anon:2M 0 2M private", "mremap p0 anon 4M", "munmap p0 anon 0 4M"]),
    (anon() + f"mremap({A:#x}, 2097152, 4096, 0) = {A:#x}\n",
     ["mmap p0 anon anon:2M 0 2M private", "munmap p0 anon 4K 2044K"]),
    ("brk(NULL) = 0x5000\nbrk(0x7000) = 0x7000\nbrk(0x209000) = 0x209000\nbrk(0x6000) = 0x6000\n",
     ["mmap p0 heap anon:4K 0 8K private", "mremap p0 heap 2064K", "munmap p0 heap 4K 2060K"]),
    (MEMFD + "ftruncate(3</memfd:ram>(deleted), 8388608) = 0\nfallocate(3, 0, 2097152, 4194304) = 0\n"
     "fallocate(3, FALLOC_FL_KEEP_SIZE|FALLOC_FL_PUNCH_HOLE, 0, 4096) = 0\nftruncate(3, 2097152) = 0\n",
     ["file ram 2M 4", "populate ram 1 2", "punch ram 0 4K", "truncate ram 2M"]),
    (MEMFD + SHARED + f"madvise({A + (2 << 20):#x}, 2097152, MADV_REMOVE) = 0\n",
     ["file ram 2M 2", "mmap p0 ram ram 0 4M shared", "punch ram 2M 2M"]),
    (MEMFD + SHARED + f"ioctl(5, UFFDIO_REGISTER, {{range={{start={A:#x}, len=0x400000}}, mode=UFFDIO_REGISTER_MODE_WP|"
     "UFFDIO_REGISTER_MODE_MINOR, ioctls=0x1}) = 0\n"
     f"ioctl(5, UFFDIO_UNREGISTER, {{start={A:#x}, len=0x400000}}) = 0\n",
     ["file ram 2M 2", "mmap p0 ram ram 0 4M shared", "register p0 ram minor wp", "unregister p0 ram"]),
    (MEMFD + SHARED + place("COPY", 0, 4 << 20) + place("CONTINUE", 4096) + place("ZEROPAGE", 0, 2 << 20),
     ["file ram 2M 2", "mmap p0 ram ram 0 4M shared", "touch p0 ram 0 write", "touch p0 ram 2M write",
      "continue p0 ram 4K 4K", "touch p0 ram 0"]),
    ("shmget(IPC_PRIVATE, 3145728, IPC_CREAT|SHM_HUGETLB|21<<SHM_HUGE_SHIFT|0600) = 7\n"
     f"shmat(7, NULL, SHM_RDONLY) = {A:#x}\nshmctl(7, IPC_RMID, NULL) = 0\nshmdt({A:#x}) = 0\n",
     ["file shm 2M 2", "mmap p0 shm shm 0 4M shared", "mprotect p0 shm 0 4M r", "munmap p0 shm 0 4M"]),
    ('openat(AT_FDCWD, "/dev/shm/x y", O_RDWR) = 4\ndup2(4, 9) = 9\nclose(4) = 0\nfcntl(9, F_DUPFD_CLOEXEC, 20) = 20\n'
     f"mmap(NULL, 2097152, PROT_READ|PROT_WRITE, MAP_SHARED, 20, 0x200000) = {A:#x}\n",
     ["file x_y 2M 2 shmem", "mmap p0 x_y x_y 2M 2M shared"]),
    ('open("/dev/hugepages/r", O_RDWR|O_CREAT, 0600) = 4\n'
     f"mmap(NULL, 2097152, PROT_READ|PROT_WRITE, MAP_SHARED, 4</dev/hugepages/r>, 0) = {A:#x}\n"
     f"mmap(NULL, 2097152, PROT_READ|PROT_WRITE, MAP_SHARED, 4</lib/x>, 0) = {A + (4 << 20):#x}\n",
     ["file r 2M 1", "mmap p0 r r 0 2M shared"]),
])
def test_what_a_call_becomes(log, expected):
    trace, report = load("strace", log)
    assert statements(trace) == expected
    assert report.used.total() + report.skipped.total() == report.lines


def test_threads_share_and_children_copy():
    trace, report = load("strace", f"""\
10 {anon()}\
10 clone3({{flags=CLONE_VM|CLONE_THREAD, stack=0x1}} <unfinished ...>
11 munmap({A:#x}, 4096 <unfinished ...>
10 <... clone3 resumed> => {{parent_tid=[11]}}, 88) = 11
10 mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = {A:#x}
11 <... munmap resumed>) = 0
11 +++ exited with 0 +++
10 madvise({A + 8192:#x}, 4096, MADV_DONTFORK) = 0
10 fork( <unfinished ...>
12 munmap({A + 4096:#x}, 4096) = 0
10 <... fork resumed>) = 12
10 vfork( <unfinished ...>
13 munmap({A + 4096:#x}, 4096) = 0
13 execve("/bin/x", ["x"], 0x7f) = 0
10 <... vfork resumed>) = 13
12 execve("/bin/x", ["x"], 0x7f) = 0
13 {anon()}\
13 +++ killed by SIGKILL +++
10 exit_group(0) = ?
10 +++ exited with 0 +++
""")
    assert statements(trace) == [
        "mmap p10 anon anon:2M 0 2M private", "munmap p10 anon 0 4K", "mmap p10 anon.2 anon:4K 0 4K private",
        "fork p10 p12", "munmap p12 anon 8K 4K", "munmap p12 anon 4K 4K", "munmap p10 anon 4K 4K", "exit p12",
        "mmap p13 anon anon:2M 0 2M private", "exit p13", "exit p10"]
    assert report.used["first halves of calls"] == 3 and report.used["second halves of munmap"] == 1
    assert report.used.total() + report.skipped.total() == report.lines


def test_a_guest():
    log = MEMFD + SHARED + place("COPY", 0, 8192) + place("ZEROPAGE", 2 << 20) + place("COPY", 4096)
    trace, report = load("strace", log, **{"as": "guest", "page_size": "2M", "later": "touch"})
    assert statements(trace)[-7:] == [
        "split program ram 0 4M", "continue program ram 0 4K urgent",
        "continue program ram 4K 4K urgent", "continue program ram 2M 4K urgent", "touch program ram 4K write",
        "collapse program ram 0 4M", "observe"]


# What is not as it should be


@pytest.mark.parametrize("line, reason", [
    (f"munmap({A:#x}, 4096) = -1 EINVAL (Invalid argument)", "munmap that failed with EINVAL"),
    ("mmap(NULL, 4096, PROT_READ) = 0x7f0000000000", "malformed mmap"),
    ("munmap(one, 4096) = 0", "malformed munmap"),
    (f"munmap({A:#x}, 40", "not a line of strace"),
    (f"munmap({A + (64 << 20):#x}, 4096) = 0", "munmap: outside any mapping that the recording shows"),
    (place("COPY", 64 << 20).rstrip(), "UFFDIO_COPY outside any mapping that the recording shows"),
    (place("CONTINUE", 0, result="-1 EEXIST (File exists)").rstrip(), "UFFDIO_CONTINUE that failed with EEXIST"),
    ("ioctl(5<anon_inode:[userfaultfd]>, UFFDIO_CONTINUE, 0x7ffe1000) = 0",
     "UFFDIO_CONTINUE of which strace shows a pointer only"),
    ("ioctl(5, TCGETS, 0x7ffe1000) = 0", "system call ioctl"),
    ("ioctl(5, UFFDIO_WAKE, {start=0x1000, len=0x1000}) = 0", "UFFDIO_WAKE"),
    ("<... munmap resumed>) = 0", "second half of a call without its first"),
    ("futex(0x7f00, FUTEX_WAIT <unfinished ...>", "system call futex"),
    ("mremap(0x1000, 4096, <unfinished ...>", "first half of a call without its second"),
    ("--- SIGSEGV {si_signo=SIGSEGV} ---", "signal"), ("", "empty line"),
    ("strace: Process 8 attached", "message of strace"),
    ("what is this (is it)", "not a line of strace"),
    ("mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 3</etc/passwd>, 0) = 0x7f1000000000", "mmap: a mapping of another file"),
    (anon(more="|MAP_HUGETLB|16<<MAP_HUGE_SHIFT").rstrip(), "mmap: no hugetlb pages of 64K in this geometry"),
    (f"munmap({A:#x}, -4096) = 0", "malformed munmap"),
    (anon(A + (2 << 20), 1 << 57).rstrip(), "mmap: at addresses that no process has"),
    (anon(1 << 70).rstrip(), "mmap: at addresses that no process has"),
    (f"mremap({A:#x}, 2097152, 99999999999999999999, 0) = {A:#x}", "mremap: at addresses that no process has"),
    (f"mremap({A:#x}, 8192, 12288, MREMAP_MAYMOVE) = {A + 4096:#x}", "mremap: onto itself, which a kernel refuses"),
    (f"mremap({A:#x}, 4194304, 6291456, 0) = {A:#x}", "mremap: outside any mapping that the recording shows"),
    ("brk(0xffffffffffffffff) = 0xffffffffffffffff", "brk: at addresses that no process has"),
    (place("COPY", 0, 1 << 34).rstrip(), "UFFDIO_COPY of more than 8G at once"),
    (place("ZEROPAGE", 0, (1 << 64) - 4096).rstrip(), "UFFDIO_ZEROPAGE at addresses that no process has"),
])
def test_a_line_that_is_left_out(line, reason):
    trace, report = load("strace", anon() + line + "\n")
    assert report.skipped[reason] == 1 and report.first[reason] == 2
    assert statements(trace)[0] == "mmap p0 anon anon:2M 0 2M private"
    assert report.used.total() + report.skipped.total() == report.lines == 2


def test_a_log_cut_anywhere():
    log = (DATA / "uffd-minor.strace").read_bytes()
    for end in range(9000, len(log), 997):
        trace, report = load("strace", log[:end])
        assert report.lines == log[:end].count(b"\n") + (log[end - 1:end] != b"\n")
        assert report.used.total() + report.skipped.total() == report.lines


@pytest.mark.parametrize("halves", [
    ["mremap(0x1000, <unfinished ...>", "<... munmap resumed>) = 0"],
    ["mremap(0x1000, <unfinished ...>", "<... munmap resumed>) = 0", "<... mremap resumed>4096, 8192, 0) = 0x1000"],
    ["mremap(0x1000, <unfinished ...>", "mremap(0x1000, <unfinished ...>"],
    [f"munmap({A:#x}, 4096 <unfinished ...>"],
    [f"munmap({A:#x}, 4096 <unfinished ...>", "brk( <unfinished ...>", "<... brk resumed>NULL) = 0x5000"],
    ["clone3({flags=0}, 88 <unfinished ...>", "<... fork resumed>) = 9"],
])
def test_halves_that_do_not_fit_are_counted(halves):
    _, report = load("strace", "".join(f"7 {line}\n" for line in [anon().strip(), *halves, anon(A << 1).strip()]))
    assert report.used["mmap"] == 2
    assert report.used.total() + report.skipped.total() == report.lines


def test_what_a_file_cannot_have():
    log = MEMFD + SHARED + "".join(f"{call} = 0\n" for call in (
        f"fallocate(3</memfd:ram>(deleted), 0, {1 << 52}, 4096)", f"ftruncate(3</memfd:ram>(deleted), {1 << 60})"))
    trace, report = load("strace", log)
    assert [reason for reason in report.skipped if "a file of more than 4096T" in reason] == [
        "fallocate: a file of more than 4096T", "ftruncate: a file of more than 4096T"]
    assert trace.header.files == [File("ram", 2 << 20, 2)]


@pytest.mark.parametrize("way", ["touch", "guest"])
def test_a_call_that_would_touch_too_much(way):
    log = anon() + place("COPY", 0) + anon(A << 1, 1 << 50, "|MAP_POPULATE")
    trace, report = load("strace", log, **{"as": way})
    assert report.notes[0] == ("calls that would touch more than 16,777,216 folios at once, and here touch none: 1")
    assert len(trace) < 20


def test_placements_of_huge_pages_are_as_many_touches(monkeypatch):
    log = anon(A, 8 << 20) + "".join(place("COPY", at << 20, 2 << 20) for at in (0, 4, 2)) + place("ZEROPAGE", 7 << 20)
    options = {"as": "guest", "page_size": "2M"}
    whole, small = load("strace", log, **options)[0], load("strace", log, folio="4K")[0]
    monkeypatch.setattr(accesses, "_ROWS", 700)
    assert load("strace", log, **options)[0] == whole and load("strace", log, folio="4K")[0] == small
    pages = [*range(512), *range(1024, 1536), *range(512, 1024), 7 * 256]
    touches = small.operations[small.operations["op"] == CODES["touch"]]
    assert (touches["offset"] // 4096).tolist() == pages


def test_steps_back_of_the_clock():
    _, report = load("strace", "".join(f"7 {time}.000000 {anon()}" for time in (5, 4, 6, 6, 3)))
    assert report.notes == ["steps back of the clock: 2; the order of lines is kept"]


@pytest.mark.parametrize("log, reason", [
    ("", "log: not a log of strace: no line is of the form NAME(ARGUMENTS) = RESULT"),
    ("int main(void) { }\n\0\0\n", "log: not a log of strace: no line is of the form NAME(ARGUMENTS) = RESULT"),
    ("read(3, 0x1, 2) = 2\n", "log: no memory of the kinds hugetlb, shmem, anon is mapped in 1 lines"),
])
def test_nothing_to_import(log, reason):
    with pytest.raises(TraceError) as caught:
        load("strace", log)
    assert str(caught.value) == reason


@pytest.mark.parametrize("options, reason", [
    ({"kinds": "huge"}, "kinds: 'huge' is not one of hugetlb, shmem, anon"),
    ({"hugetlb": "4K"}, "hugetlb: x86-64 has no pages of 4K (it has 2M, 1G)"),
    ({"folio": "3"}, "folio: x86-64 has no pages of 3 (it has 4K, 2M, 1G)"),
    ({"as": "x"}, "as: 'x' is not one of touch, guest"),
    ({"as": "guest", "kinds": "anon"}, "kinds: means nothing with as=guest"),
    ({"piece": "2M"}, "piece: means nothing with as=touch"),
    ({"hugetlbfs": "/mnt=x"}, "hugetlbfs: 'x' is not a number (expected decimal or 0x, then K, M, G or T)"),
])
def test_a_bad_option(options, reason):
    with pytest.raises(ValueError) as caught:
        load("strace", anon(), **options)
    assert str(caught.value) == reason


def test_keys_of_calls_are_apart_from_those_that_are_frequent():
    frequent = (b"read", b"write", b"futex", b"poll", b"lseek", b"pread64", b"rt_sigprocmask", b"epoll_wait")
    assert not {key(name) for name in frequent} & {key(name) for name in strace_calls.NAMES}


def test_memory_does_not_grow():
    peaks = []
    for count in (20_000, 100_000):
        log = (MEMFD + SHARED + "".join(place("COPY", at % 512 * 4096) for at in range(count))).encode()
        load("strace", log[:1000] + b"\n")
        tracemalloc.start()
        trace, _ = load("strace", log)
        peaks.append(tracemalloc.get_traced_memory()[1] - len(log))
        tracemalloc.stop()
        assert len(trace) == count + 2
    assert peaks[1] < 1.2 * peaks[0]
