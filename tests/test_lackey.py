"""The importer of valgrind's lackey, against a reader that does one access at a time."""

import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgmcore.importers import lackey
from hgmcore.importers.parsers import lines as line_blocks
from hgmcore.trace import TraceError
from hgmcore.trace.statements import CODES, WRITE

DATA = Path(__file__).parent / "data"
RAW = (DATA / "true.lackey").read_bytes()
FOLDED = (DATA / "python.lackeywin").read_bytes()


def load(log, name="log", **options):
    return lackey.read(io.BytesIO(log if isinstance(log, bytes) else log.encode()), name, **options)


def accesses(log):
    """[(page, written)] of every access."""
    out = []
    for line in log.decode().splitlines():
        if match := re.fullmatch(r"(?:I | (S)| L| (M)) +([0-9a-f]+),(\d+)", line):
            address, size = int(match[3], 16), int(match[4])
            pages = range(address >> 12, ((address + size - 1) >> 12) + 1)
            out.append([(page, bool(match[1] or match[2])) for page in pages])
        elif match := re.fullmatch(r"\d+ ([RWX]) ([0-9a-f]+)", line):
            out.append([(int(match[2], 16) >> 12, match[1] == "W")])
    return out


def fold(log, window):
    """The first touch of a page in each window of accesses, and its first write in it."""
    seen, out = set(), []
    for number, touched in enumerate(accesses(log), 1):
        for page, write in touched:
            key = (number // window, page)
            if (key, False) not in seen or (write and (key, True) not in seen):
                out.append((page, write))
            seen |= {(key, False), (key, write)}
    return out


def touches(trace, notes):
    """[(page, written, first)] of a trace of one window of 1G at address 0 and perhaps one at 0x1fc0000000."""
    windows = [int(base, 16) for base in re.search(r"file: (.*)", notes[0])[1].split(", ")]
    out = []
    for op, offset, flags in zip(*(trace.operations[key].tolist() for key in ("op", "offset", "flags"))):
        if op in (CODES["continue"], CODES["touch"]):
            page = (windows[offset >> 30] + offset % (1 << 30)) >> 12
            out.append((page, bool(flags & WRITE) if op == CODES["touch"] else None))
    return out


def expected(folded):
    there, out = set(), []
    for page, write in folded:
        out.append((page, write if page in there else None))
        there.add(page)
    return out


@pytest.mark.parametrize("log", [RAW, FOLDED], ids=["raw", "folded"])
def test_first_touches_of_a_slice(log):
    trace, report = load(log)
    pages = list(dict.fromkeys(page for touched in accesses(log) for page, _ in touched))
    assert touches(trace, report.notes) == [(page, None) for page in pages]
    assert len(pages) == (17 if log is RAW else 209)
    assert report.used.total() + report.skipped.total() == report.lines == log.count(b"\n")


@pytest.mark.parametrize("window", [1, 2, 7, 50, 100_000])
def test_later_touches_are_folded(window):
    trace, report = load(RAW, later="touch", window=window)
    assert touches(trace, report.notes) == expected(fold(RAW, window))


def test_the_window_of_the_recorder():
    # A fold of the same slice by another program: "lk 50", of 508 accesses to 17 pages, has 51 touches.
    trace, report = load(RAW, later="touch", window=50)
    assert report.used == {"accesses": 508} and len(touches(trace, report.notes)) == 51


def test_a_folded_log_is_taken_as_it_is():
    trace, report = load(FOLDED, later="touch", window=1_000_000_000)
    assert touches(trace, report.notes) == expected([touch for each in accesses(FOLDED) for touch in each])


@pytest.mark.parametrize("size", [50, 300])
@pytest.mark.parametrize("log", [RAW, FOLDED], ids=["raw", "folded"])
def test_blocks_of_lines_change_nothing(monkeypatch, log, size):
    options = {"later": "touch", "window": 9}
    whole, counted = load(log, **options)
    monkeypatch.setattr(line_blocks, "BLOCK", size)
    trace, report = load(log, **options)
    assert trace == whole and report.to_dict() == counted.to_dict()


def test_what_is_reported():
    _, report = load(RAW)
    assert report.skipped["system call brk"] == 1 and report.skipped["valgrind's own line"] == 7
    assert report.skipped["end of a system call"] == 2 and report.first["system call brk"] == 416
    _, report = load(FOLDED)
    assert report.used == {"accesses": 389} and report.skipped["system call munmap"] == 1
    assert report.notes == ["touched 209 pieces of 4K in 2 windows of 1G, each a huge page of the file: "
                            "0x0, 0x1fc0000000"]


def test_an_access_may_reach_into_several_pages():
    trace, report = load("I  00000ffe,4\n S 00002fff,2\n L 00004000,12288\n")
    assert [page for page, _ in touches(trace, report.notes)] == [0, 1, 2, 3, 4, 5, 6]


def test_both_forms_in_one_log():
    log = "I  00001000,3\n5 W 7000\n S 00007008,8\n6 R 9000\n4 X 1000\n"
    trace, report = load(log, later="touch")
    assert touches(trace, report.notes) == [(1, None), (7, None), (7, True), (9, None), (1, False)]
    assert report.notes[1] == "steps back of the number of accesses: 1; the order of lines is kept"


@pytest.mark.parametrize("line, reason", [
    ("I  0401ab70\n", "malformed access"),
    ("I  0401ab70,\n", "malformed access"),
    ("I  0401ab70,0\n", "malformed access"),
    ("I  0401ab70,x\n", "malformed access"),
    ("I  0401ab7g,4\n", "malformed access"),
    (" S 1fff00,100000\n", "malformed access"),
    (" S ffffffffffffffff,8\n", "malformed access"),
    (" L \n", "malformed access"),
    ("12 W\n", "malformed access"),
    ("12 Q 4000\n", "malformed access"),
    ("12 W 4000 5\n", "malformed access"),
    ("12W4000\n", "malformed access"),
    ("I\n", "not a line of lackey"),
    (" X 1fff00,8\n", "not a line of lackey"),
    ("hello\n", "not a line of lackey"),
    ("\0\xff\n", "not a line of lackey"),
    ("\n", "empty line"),
    ("==12== Lackey\n", "valgrind's own line"),
    ("SYSCALL[1,1](9) sys_mmap ( 0x0, 8192 ) --> Success(0x4835000)\n", "system call mmap"),
    ("# 55 SYSCALL[1,1](12) sys_brk ( 0x0 ) --> Success(0x4835000)\n", "system call brk"),
    ("SYSCALL[1,1](0) ... [async] --> Success(0x340)\n", "end of a system call"),
])
def test_a_line_that_is_skipped(line, reason):
    trace, report = load(("I  00001000,3\n" + line + " L 00002000,8\n").encode("latin-1"))
    assert touches(trace, report.notes) == [(1, None), (2, None)]
    assert report.skipped == {reason: 1} and report.first == {reason: 2}


def test_a_log_that_is_cut():
    trace, report = load(RAW[:RAW.index(b"SYSCALL") - 4])
    assert report.skipped["malformed access"] == 1 and len(trace) > 10


@pytest.mark.parametrize("log", ["", "hgmcore-trace 1\nobserve\n", "==1== Lackey\n", "1 2 3\n"])
def test_a_foreign_file(log):
    with pytest.raises(TraceError, match="^a.log: not a log of valgrind's lackey: no line is of the form"):
        load(log, "a.log")


def test_a_bad_window():
    for window, reason in (("0", "window: expected at least 1"), ("x", "window: 'x' is not a number")):
        with pytest.raises(ValueError, match=reason):
            load(RAW, window=window)


LINE = st.one_of(
    st.builds("{}{:x},{}\n".format, st.sampled_from(["I  ", " L ", " S ", " M "]), st.integers(0, 40_000),
              st.sampled_from([1, 8, 5000])),
    st.builds("{} {} {:x}\n".format, st.integers(0, 99), st.sampled_from("RWX"),
              st.integers(0, 9).map(lambda page: page << 12)),
    st.sampled_from(["==1== x\n", "junk\n", "\n", "I  00\n"]))


@given(st.lists(LINE, max_size=60), st.integers(1, 9))
def test_any_log_against_the_plain_reader(lines, window):
    log = "I  0,1\n" + "".join(lines)
    trace, report = load(log, later="drop")
    pages = list(dict.fromkeys(page for touched in accesses(log.encode()) for page, _ in touched))
    assert touches(trace, report.notes) == [(page, None) for page in pages]
    raw = "".join(line for line in log.splitlines(True) if not line[0].isdigit())
    trace, report = load(raw, later="touch", window=window)
    assert touches(trace, report.notes) == expected(fold(raw.encode(), window))
    assert report.used.total() + report.skipped.total() == report.lines
