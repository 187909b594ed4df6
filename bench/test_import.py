"""How fast recordings come in, from memory: lines a second of each format that is recorded by the million."""

import io
import time
from pathlib import Path

import numpy as np
import pytest

from hgmcore import importers
from hgmcore.trace.statements import CODES

PLACEMENTS = 500_000
ACCESSES = Path(__file__).parent.parent / "tests" / "data" / "true.lackey"


def qemu_log():
    """A postcopy of placements in random order, as QEMU writes it; and how many pieces that makes."""
    base = 0x7F0000000000
    head = f"1@1.000000:postcopy_nhp_range mem0: {base:#x} offset=0x0 length={PLACEMENTS * 4096:#x}\n"
    pages = np.random.default_rng(1).permutation(PLACEMENTS) * 4096 + base
    lines = "".join(f"8742@1795369192.{i % 1000000:06}:postcopy_place_page host={page:#x}\n"
                    for i, page in enumerate(pages.tolist()))
    return (head + lines).encode(), PLACEMENTS


def strace_log():
    """Threads of which one places pages; two lines of three are halves of calls that tell nothing."""
    count, base = PLACEMENTS // 3, 0x7F0000000000
    lines = [f"8741 1.000000 mmap(NULL, {count * 4096}, PROT_READ, MAP_SHARED|MAP_ANONYMOUS, -1, 0) = {base:#x}\n",
             "8741 1.000000 clone3({flags=CLONE_VM|CLONE_THREAD}, 88) = 8742\n"]
    for i, page in enumerate((np.random.default_rng(1).permutation(count) * 4096 + base).tolist()):
        when = f"1795369192.{i % 1000000:06}"
        lines += [f"8742 {when} ioctl(16<anon_inode:[userfaultfd]>, UFFDIO_CONTINUE, {{range={{start={page:#x}, "
                  f"len=0x1000}}, mode=0, mapped=0x1000}}) = 0\n",
                  f"8741 {when} futex(0x7f6e08, FUTEX_WAIT_PRIVATE, 0, NULL <unfinished ...>\n",
                  f"8741 {when} <... futex resumed>) = 0\n"]
    return "".join(lines).encode(), count


def bpftrace_log():
    """Page faults that userfaultfd answers: the fault, the call and its result."""
    count, base = PLACEMENTS // 3, 0x7F0000000000
    lines = [f"1 8741 8741 MMAP {base:x} {count * 4096:x} prot=1 flags=21 fd=-1 off=0\n"]
    for i, page in enumerate((np.random.default_rng(1).permutation(count) * 4096 + base).tolist()):
        lines += [f"{4 * i} 8741 8743 PF {page:x} 4\n", f"{4 * i + 1} 8741 8742 UFFD 7 {page:x} 1000 0\n",
                  f"{4 * i + 2} 8741 8742 UFFDRET 0\n"]
    return "".join(lines).encode(), count


def lackey_log():
    """A slice of what lackey prints of /bin/true, 4,000 times."""
    return ACCESSES.read_bytes() * 4000, 17


@pytest.mark.parametrize("format, log, goal", [
    ("qemu", qemu_log, 500_000), ("strace", strace_log, 300_000), ("bpftrace", bpftrace_log, 300_000),
    ("lackey", lackey_log, 1_000_000)])
def test_import(benchmark, format, log, goal):
    (text, pieces), rates = log(), []
    lines = text.count(b"\n")

    def read():
        start = time.perf_counter()
        trace, _ = importers.load(format).read(io.BytesIO(text), "log")
        rates.append(lines / (time.perf_counter() - start))
        return trace

    trace = benchmark.pedantic(read, rounds=5)
    assert np.count_nonzero(trace.operations["op"] == CODES["continue"]) == pieces
    benchmark.extra_info.update(work=f"import {format}", unit="lines", rate=round(float(np.median(rates))), goal=goal)
