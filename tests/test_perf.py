"""The importer of perf's page faults, against a reader that does one line at a time."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hgmcore import replay
from hgmcore.importers import perf
from hgmcore.importers.parsers import lines as line_blocks
from hgmcore.trace import TraceError
from hgmcore.trace.statements import CODES, WRITE

DATA = Path(__file__).parent / "data"
POSTGRES = (DATA / "postgres_hugepages.perfscript").read_bytes()
GCC = (DATA / "gcc.perfscript").read_bytes()
TRACE = (DATA / "true.perftrace").read_bytes()
TOUCH = {"as": "touch"}


def load(log, name="log", **options):
    return perf.read(io.BytesIO(log if isinstance(log, bytes) else log.encode("latin-1")), name, **options)


def faults(log, command):
    """[(page, tid, ns)] of one command."""
    out = []
    for line in log.decode("latin-1").splitlines():
        match = re.match(r"\s*(\S.*?)\s+(?:\d+/)?(\d+)\s+(?:\[\d+\]\s+)?(\d+)\.(\d+): +exceptions:page_fault_\w+: "
                         r"address=0x(\w+) ", line)
        if match and match[1] == command:
            time = int(match[3]) * 10**9 + int(match[4].ljust(9, "0"))
            out.append((int(match[5], 16) >> 12, int(match[2]), time))
    return out


def pages(trace, report):
    """Pages of the guest's `continue`s and touches, as the program knew them."""
    bases = [int(base, 16) for base in re.search(r"file: (.*)", "".join(report.notes))[1].split(", ")]
    ops = trace.operations[np.isin(trace.operations["op"], [CODES["continue"], CODES["touch"]])]
    return [(bases[offset >> 30] + offset % (1 << 30)) >> 12 for offset in ops["offset"].tolist()]


def text(trace):
    return [line for line in trace.to_text().splitlines()[1:] if not line.startswith("#")]


def body(trace):
    """Operations without time, thread and observations."""
    return [line.partition(" ")[2] if line.startswith("@") else line for line in text(trace) if line != "observe"]


def fault(address, tid=7, command="a", write=False, kind="user", time="1.000001"):
    return (f"{command:>16} {tid} [001] {time}: exceptions:page_fault_{kind}: address={address:#x} "
            f"ip=0x5 error_code={6 if write else 4:#x}\n")


def event(name, arguments, tid=7, time="1.000001"):
    return f"{'a':>16} {tid} [001] {time}:   {name}: {arguments}\n"


def mmap(address, length, flags=0x40021, tid=7, prot=3):
    return (event("syscalls:sys_enter_mmap", f"addr: 0x00000000, len: {length:#x}, prot: {prot:#x}, "
                                             f"flags: {flags:#x}, fd: 0xffffffff, off: 0x00000000", tid)
            + event("syscalls:sys_exit_mmap", f"{address:#x}", tid))


def fork(parent, child):
    return event("sched:sched_process_fork", f"comm=a pid={parent} child_comm=a child_pid={child}", parent)


def leave(tid, dead="true"):
    return event("sched:sched_process_exit", f"comm=a pid={tid} prio=120 group_dead={dead}", tid)


# as=guest


def test_a_slice_as_a_guest():
    trace, report = load(GCC)
    assert pages(trace, report) == list(dict.fromkeys(page for page, *_ in faults(GCC, "gcc")))
    assert report.used == {"page faults": len(faults(GCC, "gcc"))}
    assert report.skipped["page fault of another command, cc1"] == len(faults(GCC, "cc1")) > 0
    assert report.used.total() + report.skipped.total() == report.lines == GCC.count(b"\n")
    assert trace.header.processes == ["gcc"] and trace.header.provenance["command"] == "gcc"
    trace, report = load(GCC, command="as", later="touch")
    assert pages(trace, report) == [page for page, *_ in faults(GCC, "as")]
    assert set(trace.time.tolist()) >= {time for *_, time in faults(GCC, "as")}


def test_threads_and_times_of_later_touches():
    log = fault(0x1000, 5, time="3.25") + fault(0x1010, 6, write=True, time="4.123456789") + fault(0x1000, 5)
    assert body(load(log)[0])[4:5] == ["continue a ram 4K 4K urgent"] and len(load(log)[0]) == 8
    assert [line for line in text(load(log, later="touch", observations=0)[0]) if line.startswith("@")] == [
        "@2:3250000000 continue a ram 4K 4K urgent", "@6:4123456789 touch a ram 4K write",
        "@5:1000001000 touch a ram 4K"]


def test_perf_trace():
    trace, report = load(TRACE)
    assert report.used == {"page faults": 30} and not report.skipped
    files = {match[1] for match in re.finditer(rb"=> (/[^/]\S*)@", TRACE)}
    windows = {int(match[1], 16) >> 30 for match in re.finditer(rb"=> (?:\S*(?:anon|\])@)?0x(\w+)", TRACE)}
    assert trace.header.files[0].pages == len(files) + len(windows) == 8
    trace, report = load(TRACE + b"     4.929 ( 0.036 ms): th/5 mmap(len: 8192) = 0x7f\n")
    assert report.skipped == {"system call that perf trace reports": 1}
    with pytest.raises(TraceError, match="no memory of the kinds hugetlb,? ?shmem"):
        load(TRACE, **TOUCH)


@pytest.mark.parametrize("line", [
    "            true 11104/11104  2276.856720: page-faults:     555c138c81e0\n",
    "            true 11104  2276.856720: page-faults:     555c138c81e0\n",
    "true 11104 [000] 2276.856720:          1 page-faults:u:     555c138c81e0     7f4da8a66b70\n",
    "true 11104 [000] 2276.856720:          1 minor-faults: 555c138c81e0     7f4da8a66b70 main+0x5 (/bin/true)\n",
    "a command 11104 2276.856720: exceptions:page_fault_user: address=0x555c138c81e0 ip=0x1 error_code=0x14\n",
    "  a b [c] 3/11104 [000] 2276.856720: exceptions:page_fault_kernel: address=0x555c138c81e0 ip=f error_code=0x14\n",
])
def test_forms_of_a_page_fault(line):
    trace, report = load(line, observations=0)
    assert pages(trace, report) == [0x555c138c8]
    assert trace.time.tolist()[4] == 2276_856720000 and not report.skipped


@pytest.mark.parametrize("line, reason", [
    ("true 1 [000] 2276.8: 1 page-faults: ffffffff8175336a elf_load+0x28a ([kernel])\n", "page fault without address"),
    ("true 1 [000] 2276.8: 1 page-faults: 7f2b1fab2b70 _start+0x0 (/lib/ld.so)\n", "page fault without address"),
    ("true 1 [000] 2276.8: 1 page-faults:\n", "page fault without address"),
    (fault(0x2000).replace("address=0x2000", ""), "page fault without address"),
    (fault(0x2000)[:60] + "\n", "page fault without address"),
    (fault(0xffffffff81753000), "page fault at an address of the kernel"),
    (fault(0x2000).replace(" 7 ", " seven "), "call chain, or not a line of perf"),
    (fault(0x2000).replace("1.000001:", "1.000001"), "call chain, or not a line of perf"),
    (fault(0x2000).replace("1.000001:", "x:"), "call chain, or not a line of perf"),
    (event("migrate:mm_migrate_pages_start", "mode=MIGRATE_SYNC reason=compaction"),
     "event migrate:mm_migrate_pages_start"),
    (event("migrate:set_migration_pte", "addr=7f0000000000, pte=1 order=0"), "event migrate:set_migration_pte"),
    ("            a 7/7 [001] 1.000001: PERF_RECORD_FORK(8:8):(7:7)\n", "event PERF_RECORD_FORK"),
    ("\tffffffff8175336a elf_load+0x28a ([kernel.kallsyms])\n", "call chain, or not a line of perf"),
    ("# captured on    : Tue Nov 24\n", "comment"),
    ("x" * 5000 + "\n", "a line of more than 4096 bytes"),
    ("junk\n", "not a line of perf"),
    ("\n", "empty line"),
    ("\0\xff\n", "not a line of perf"),
])
def test_a_line_that_is_skipped(line, reason):
    trace, report = load(fault(0x1000) + line + fault(0x3000))
    assert pages(trace, report) == [1, 3]
    assert report.skipped == {reason: 1} and report.first == {reason: 2}


def test_a_command_that_is_not_there():
    with pytest.raises(TraceError, match=r"log: no page fault of the command 'ld' \(there are gcc, cc1, as\)"):
        load(GCC, command="ld")
    with pytest.raises(TraceError, match=r"no page fault in 1 lines \(event migrate:x\): record exceptions:page_fault"):
        load(event("migrate:x", "y"))


def test_commands_are_bounded(monkeypatch):
    monkeypatch.setattr(perf, "MOST_COMMANDS", 3)
    _, report = load("".join(fault(0x1000, command=f"c{i}") for i in range(10)))
    assert report.skipped["page fault of another command"] == 7


# as=touch


def simply(log):
    """What becomes of a hugetlb mapping in a log: [(process, "touch", page, write)], forks and exits."""
    mapped, out, entered = {}, [], {}
    for line in log.decode().splitlines():
        tid = int(re.search(r"(\d+) \[", line)[1])
        if match := re.search(r"sys_enter_mmap: .*len: (\w+), .*flags: (\w+),", line):
            entered[tid] = int(match[1], 0), int(match[2], 0)
        elif (match := re.search(r"sys_exit_mmap: (\w+)", line)) and entered.pop(tid, (0, 0))[1] & 0x40000:
            mapped[tid] = int(match[1], 0)
        elif match := re.search(r"sys_enter_munmap: addr: (\w+),", line):
            if mapped.get(tid) == int(match[1], 0):
                out.append((tid, "munmap"))
                del mapped[tid]
        elif (match := re.search(r"process_fork: .* pid=(\d+) .*child_pid=(\d+)", line)) and int(match[1]) in mapped:
            mapped[int(match[2])] = mapped[int(match[1])]
            out.append((int(match[1]), "fork", int(match[2])))
        elif "sched_process_exit" in line and tid in mapped:
            out.append((tid, "exit"))
            del mapped[tid]
        elif match := re.search(r"address=0x(\w+) .*error_code=0x(\w+)", line):
            offset = int(match[1], 16) - mapped.get(tid, 1 << 64)
            if 0 <= offset < 0x22400000:
                out.append((tid, "touch", offset >> 12, bool(int(match[2], 16) & 2)))
    return out


def found(trace):
    out, header = [], trace.header
    for record in trace.operations:
        op, target = record["op"], int(record["target"])
        process = header.processes[header.mappings[target].process] if op in (CODES["touch"], CODES["munmap"]) else \
            header.processes[target] if op in (CODES["fork"], CODES["exit"]) else None
        if op == CODES["touch"]:
            out.append((int(process[1:]), "touch", int(record["offset"]) >> 12, bool(record["flags"] & WRITE)))
        elif op == CODES["fork"]:
            out.append((int(process[1:]), "fork", int(header.processes[record["arg"]][1:])))
        elif op in (CODES["exit"], CODES["munmap"]):
            out.append((int(process[1:]), "exit" if op == CODES["exit"] else "munmap"))
    return out


def test_a_slice_of_processes_on_huge_pages():
    trace, report = load(POSTGRES, **TOUCH, kinds="hugetlb", observations=12)
    assert found(trace) == simply(POSTGRES)
    assert report.used == {"mmap": 1, "page fault": 25, "sched_process_fork": 3, "sched_process_exit": 2, "munmap": 1}
    assert report.used.total() + report.skipped.total() == report.lines == POSTGRES.count(b"\n")
    result = replay(trace, "hugetlb", operations="all")
    assert not result["operations"]["errno"].any()
    shared = [folio["truth"]["processes"] for o in result["observations"] for folio in o["folios"]]
    assert max(shared) == 3 and len(result["observations"]) == 12


@pytest.mark.parametrize("size", [200, 3000])
@pytest.mark.parametrize("options", [TOUCH, {}])
def test_blocks_of_lines_change_nothing(monkeypatch, size, options):
    whole, counted = load(POSTGRES, **options)
    monkeypatch.setattr(line_blocks, "BLOCK", size)
    trace, report = load(POSTGRES, **options)
    assert trace == whole and report.to_dict() == counted.to_dict()


HUGE = 0x7F0000000000


def test_observations_are_evenly_spaced():
    trace, _ = load(mmap(HUGE, 2 << 20) + fault(HUGE) * 20, **TOUCH, observations=2)
    assert np.flatnonzero(trace.operations["op"] == CODES["observe"]).tolist() == [7, 15] and len(trace) == 24


def test_threads_are_told_apart():
    stack = mmap(0x7E0000000000, 0x801000, flags=0x20022)
    log = (mmap(HUGE, 2 << 20) + stack + fork(7, 8) + fault(HUGE, 8) + fork(7, 9) + fault(HUGE, 9) + leave(8, "false")
           + leave(9) + leave(7))
    trace, report = load(log, **TOUCH, kinds="hugetlb")
    assert body(trace)[2:] == ["touch p7 hugetlb 0", "fork p7 p9", "touch p9 hugetlb 0", "exit p9", "exit p7"]
    assert not report.notes
    # Without a stack of its own it is taken for a process; perf tells when asked, and so does a line of its own.
    _, report = load(log.replace("flags: 0x20022", "flags: 0x22"), **TOUCH, kinds="hugetlb")
    assert report.notes == ["threads that were taken as processes: 1; perf script --show-task-events tells them apart"]
    told = "               a 7/7 [001] 1.000001: PERF_RECORD_FORK(7:8):(7:7)\n"
    exits = "               a 7/8 [001] 1.000001: PERF_RECORD_EXIT(7:8):(6:6)\n"
    trace, report = load(mmap(HUGE, 2 << 20) + told + fork(7, 8) + fault(HUGE, 8) + exits + leave(8, "false"),
                         **TOUCH, kinds="hugetlb")
    assert body(trace)[2:] == ["touch p7 hugetlb 0"] and not report.notes
    trace, _ = load(mmap(HUGE, 2 << 20) + fault(HUGE, "7/8"), **TOUCH, kinds="hugetlb")
    assert body(trace)[2:] == ["touch p7 hugetlb 0"]


def test_a_region_of_shared_huge_pages():
    log = fault(HUGE, 7) + fault(HUGE + 5, 8, write=True) + fork(7, 9) + fault(HUGE + (2 << 20), 9) + fault(0x1000)
    trace, report = load(log, **TOUCH, region=f"{HUGE:#x}+4M", observations=0)
    assert body(trace) == [
        "file region 2M 2", "mmap p7 region region 0 4M shared", "touch p7 region 0",
        "mmap p8 region region 0 4M shared", "touch p8 region 0 write", "fork p7 p9", "touch p9 region 2M"]
    assert report.skipped == {"page fault outside any mapping that the recording shows": 1}


def test_permissions_are_unknown_before_mprotect():
    log = mmap(HUGE, 2 << 20, prot=0)
    assert "mprotect" not in load(log, **TOUCH)[0].to_text()
    change = event("syscalls:sys_enter_mprotect", f"start: {HUGE:#x}, len: 0x200000, prot: 0x00000001")
    assert body(load(log + change + mmap(HUGE + (4 << 20), 2 << 20, prot=0), **TOUCH)[0])[2:] == [
        "mprotect p7 hugetlb 0 2M r", "file hugetlb.2 2M 1", "mmap p7 hugetlb.2 hugetlb.2 0 2M shared",
        "mprotect p7 hugetlb.2 0 2M none"]


def test_other_calls():
    log = (mmap(HUGE, 4 << 20) + fault(HUGE) + event("syscalls:sys_enter_madvise", f"start: {HUGE:#x}, len_in: "
                                                     "0x200000, behavior: 0x00000004")
           + event("syscalls:sys_enter_mremap", f"addr: {HUGE:#x}, old_len: 0x400000, new_len: 0x200000, flags: 0x0, "
                   "new_addr: 0x0") + event("syscalls:sys_exit_mremap", f"{HUGE:#x}")
           + event("syscalls:sys_enter_munmap", f"addr: {HUGE:#x}, len: 0x00200000")
           + event("sched:sched_process_exec", "filename=/bin/x pid=7 old_pid=7"))
    trace, report = load(log, **TOUCH)
    assert body(trace)[2:] == ["touch p7 hugetlb 0", "dontneed p7 hugetlb 0 2M", "munmap p7 hugetlb 2M 2M",
                               "munmap p7 hugetlb 0 2M", "exit p7"]
    assert report.used.total() + report.skipped.total() == report.lines


@pytest.mark.parametrize("line, reason", [
    (event("syscalls:sys_enter_mmap", "addr: 0x0"), "begin of mmap"),
    (event("syscalls:sys_exit_mmap", "0x5000"), "mmap whose begin is not recorded"),
    (event("syscalls:sys_enter_munmap", "len: 0x1000"), "malformed syscalls:sys_enter_munmap"),
    (event("syscalls:sys_enter_munmap", ""), "malformed syscalls:sys_enter_munmap"),
    (event("syscalls:sys_enter_shmdt", "shmaddr: 0x7f964201a000"), "event syscalls:sys_enter_shmdt"),
    (event("sched:sched_process_fork", "comm=a pid=7"), "malformed sched:sched_process_fork"),
    (event("sched:sched_process_fork", "comm=a pid=70 child_comm=b child_pid=71"),
     "fork of a process that has mapped nothing of interest"),
    (event("sched:sched_process_exit", "comm=a pid=71 prio=120", 71),
     "exit of a process that has mapped nothing of interest"),
    ("            a 7/7 [001] 1.000001: PERF_RECORD_FORK(8:8)\n", "event PERF_RECORD_FORK"),
])
def test_an_event_that_is_skipped(line, reason):
    trace, report = load(mmap(HUGE, 2 << 20) + line, **TOUCH)
    assert report.skipped == {"begin of mmap": 1} | {reason: 1 + (reason == "begin of mmap")}
    if reason == "begin of mmap":
        _, report = load(mmap(HUGE, 2 << 20) + line + event("syscalls:sys_exit_mmap", "0x5000"), **TOUCH)
        assert report.skipped["malformed syscalls:sys_exit_mmap"] == 1


@pytest.mark.parametrize("result", ["", "x", "0x", "0x7f0%", "99999999999999999999999x7f0"])
def test_a_result_that_is_no_number(result):
    log = mmap(HUGE, 2 << 20) + mmap(2 * HUGE, 2 << 20).replace(f"{2 * HUGE:#x}", result)
    _, report = load(log, **TOUCH)
    assert report.skipped == {"begin of mmap": 2, "malformed syscalls:sys_exit_mmap": 1}


def test_a_call_that_failed():
    _, report = load(mmap(HUGE, 2 << 20) + mmap(0xfffffffffffffff4, 2 << 20), **TOUCH)
    assert report.skipped["mmap that failed"] == 1


@pytest.mark.parametrize("options, reason", [
    ({"as": "faults"}, "as: 'faults' is not one of touch, guest"),
    ({"piece": "3K"}, "piece: 3K is not a multiple of 4K that divides a page of 1G"),
    ({"as": "touch", "command": "x"}, "command: means nothing with as=touch"),
    ({"region": "0x0+2M"}, "region: means nothing with as=guest"),
    ({"kinds": "anon"}, "kinds: means nothing with as=guest"),
    ({"as": "touch", "piece": "8K"}, "piece: means nothing with as=touch"),
    ({"as": "touch", "region": "7f00"}, "region: '7f00' is not of the form 0xADDRESS+LENGTH"),
    ({"as": "touch", "region": "0x1000+2M"}, "region: '0x1000+2M' is not at multiples of 2M"),
    ({"as": "touch", "region": "0x0+0"}, "region: '0x0+0' is not at multiples of 2M"),
    ({"as": "touch", "observations": "x"}, "observations: 'x' is not a number"),
    ({"as": "touch", "kinds": "x"}, "kinds: 'x' is not one of hugetlb, shmem, anon"),
])
def test_a_bad_option(options, reason):
    with pytest.raises(ValueError) as caught:
        load(POSTGRES, **options)
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize("options", [TOUCH, {}])
@pytest.mark.parametrize("log", ["", "hgmcore-trace 1\nobserve\n", "8@1.0:x y\n", "I  00001000,4\n"])
def test_a_foreign_file(log, options):
    with pytest.raises(TraceError, match="^a.log: not what perf script or perf trace prints: no line is of the form"):
        load(log, "a.log", **options)


@pytest.mark.parametrize("options", [TOUCH, {}])
def test_a_recording_that_is_cut_anywhere(options):
    for length in range(0, len(POSTGRES), 997):
        try:
            load(POSTGRES[:length], **options)
        except TraceError as error:
            assert str(error).startswith("log: no")


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(["fault", "fork", "exit", "junk"]), st.integers(7, 10), st.integers(0, 3),
                          st.booleans()), max_size=40))
def test_any_processes_against_the_plain_reader(events):
    log, alive, new = mmap(HUGE, 0x22400000) + fault(HUGE), [7], 100
    for kind, which, page, write in events:
        tid = alive[which % len(alive)] if alive else 7
        if kind == "fork" and alive:
            log += fork(tid, new)
            alive.append(new)
            new += 1
        elif kind == "exit" and alive:
            log += leave(tid)
            alive.remove(tid)
        else:
            log += {"fault": fault(HUGE + page * 0x200000 + 5, tid, write=write), "junk": leave(tid)[:40] + " [\n",
                    "fork": "", "exit": ""}[kind]
    trace, report = load(log, **TOUCH, kinds="hugetlb")
    assert found(trace) == simply(log.encode())
    assert report.used.total() + report.skipped.total() == report.lines
