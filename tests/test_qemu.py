"""The importer of QEMU postcopy logs, against a reader of the same lines that does one line at a time."""

import bz2
import gzip
import hashlib
import io
import lzma
import re
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgmcore import importers, recordings
from hgmcore.importers import qemu
from hgmcore.importers.parsers import lines as line_blocks
from hgmcore.trace import File, Trace, TraceError
from hgmcore.trace.statements import CODES, URGENT

DATA = Path(__file__).parent / "data"
SLICES = {"qemu-postcopy_4k.qemutrace": "4K", "qemu-postcopy_2M.qemutrace": "2M"}

BASE = 0x7f0000001000  # not at a multiple of a huge page, as QEMU's may be
HEAD = f"8@100.000000:postcopy_nhp_range mem0: {BASE:#x} offset=0x0 length=0x200000\n"


def simply(log, base, length, piece):
    """[(offset, thread, ns, urgent)] of the placements in [base, base + length), the plain way."""
    asked, placed, out = set(), set(), []
    for line in log.decode().splitlines():
        if match := re.search(r"rb=mem0 offset=0x(\w+) pid", line):
            asked.add(int(match[1], 16))
        elif match := re.fullmatch(r"(\d+)@(\d+)\.(\d+):postcopy_place_page(?:_zero)? host=0x(\w+)", line):
            offset = int(match[4], 16) - base
            if 0 <= offset < length and offset not in placed:
                placed.add(offset)
                time = int(match[2]) * 10**9 + int(match[3]) * 1000
                out.append((offset, int(match[1]), time, offset in asked))
    return out


def pieces(trace):
    where = np.flatnonzero(trace.operations["op"] == CODES["continue"])
    ops = trace.operations[where]
    thread = np.zeros(len(trace), int) if trace.thread is None else trace.thread
    time = np.full(len(trace), -1) if trace.time is None else trace.time
    return list(zip(ops["offset"].tolist(), thread[where].tolist(), time[where].tolist(),
                    (ops["flags"] == URGENT).tolist()))


def load(log, name="log", **options):
    return qemu.read(io.BytesIO(log if isinstance(log, bytes) else log.encode()), name, **options)


def small(body, **options):
    """Import of `body` after the description of a RAM block of 2M."""
    return load(HEAD + body, page_size="2M", **options)


def place(page, prefix="9@100.000001:", kind=""):
    return f"{prefix}postcopy_place_page{kind} host={BASE + page * 4096:#x}\n"


def request(page, block="mem0"):
    return (f"7@100.000000:postcopy_ram_fault_thread_request Request for HVA={BASE + page * 4096 + 5:#x} "
            f"rb={block} offset={page * 4096:#x} pid=12\n")


# Recorded logs


@pytest.mark.parametrize("name, piece", SLICES.items())
def test_a_slice_of_a_recording(name, piece):
    log = (DATA / name).read_bytes()
    base, length = re.search(rb"nhp_range mem0: (0x\w+) offset=0x0 length=(0x\w+)", log).groups()
    expected = simply(log, int(base, 16), int(length, 16), piece)
    trace, report = load(log, piece=piece)
    assert pieces(trace) == expected
    assert 0 < sum(urgent for *_, urgent in expected) < len(expected)
    assert report.lines == log.count(b"\n")
    assert report.used["placements"] == len(expected)
    assert report.used.total() + report.skipped.total() == report.lines
    assert trace.header.files == [File("mem0", 1 << 30, 1)]


def test_what_is_reported_of_a_slice():
    trace, report = load((DATA / "qemu-postcopy_4k.qemutrace").read_bytes())
    assert report.used == {"descriptions of RAM blocks": 12, "requests by accesses": 2, "placements": 178}
    assert report.skipped["placement in another RAM block, pc.bios"] == 12
    assert report.skipped["placement in another RAM block, /rom@etc/acpi/tables"] == 32
    assert report.skipped["event postcopy_page_req_del"] == 1
    assert report.first["event postcopy_page_req_del"] == 169
    assert report.to_dict()["skipped"][0] == {
        "reason": "placement in another RAM block, /rom@etc/acpi/tables", "count": 32, "first_line": 192}


@pytest.mark.parametrize("size", [100, 1000, 4096])
def test_blocks_of_lines_change_nothing(monkeypatch, size):
    log = (DATA / "qemu-postcopy_4k.qemutrace").read_bytes()
    whole, counted = load(log)
    monkeypatch.setattr(line_blocks, "BLOCK", size)
    trace, report = load(log)
    assert trace == whole
    assert report.to_dict() == counted.to_dict()


def test_the_recording_that_ships():
    trace = recordings.load(recordings.DEFAULT)
    placed = pieces(trace)
    assert len(placed) == 257_561 == len({offset for offset, *_ in placed})
    assert sum(urgent for *_, urgent in placed) == 579
    assert {thread for _, thread, *_ in placed} == {8742}
    assert placed[0] == (0x1000000, 8742, 1795369192_283007000, False)
    assert trace.header.files == [File("mem0", 1 << 30, 1)]
    names = [CODES[name] for name in ("file", "populate", "mmap", "split")]
    assert trace.operations["op"][:4].tolist() == names
    names = [CODES[name] for name in ("observe", "collapse", "observe")]
    assert trace.operations["op"][-3:].tolist() == names
    assert recordings.provenance(recordings.DEFAULT) == trace.header.provenance
    assert trace.header.provenance["source_sha256"].startswith("db6f6c92")
    assert trace.header.provenance["notes"] == (
        "urgent placements: 579; pages that accesses asked for: 579; "
        "steps back of the clock: 193; the order of lines is kept")
    assert "no memory contents" in trace.header.provenance["licence"]
    assert trace.name == "recording:qemu-postcopy_redis_4k"
    assert Trace.parse(trace.to_text()) == trace


def test_recordings_are_listed():
    files = {path.stem for path in Path(recordings.__file__).parent.glob("*.parquet")}
    assert files == set(recordings.NAMES)
    with pytest.raises(ValueError, match="unknown recording 'x' .known: qemu-postcopy_redis_4k"):
        recordings.load("x")


# What becomes of a line


def test_the_frame():
    trace, _ = small("".join(place(page) for page in range(6)), observations=2)
    assert trace.to_text().splitlines()[3:] == [
        "file mem0 2M 1", "populate mem0 0 1", "mmap qemu mem0 mem0 0 2M shared minor",
        "split qemu mem0 0 2M",
        *(f"@9:100000001000 continue qemu mem0 {offset} 4K" for offset in ("0", "4K", "8K")), "observe",
        *(f"@9:100000001000 continue qemu mem0 {offset} 4K" for offset in ("12K", "16K", "20K")), "observe",
        "collapse qemu mem0 0 2M", "observe"]


def test_urgent():
    body = (place(0) + request(1) + request(1) + place(1) + request(2) + place(3, kind="_zero") + request(0)
            + place(2, kind="_zero") + request(4, "pc.bios") + place(4) + request(9))
    trace, report = small(body)
    assert [(offset // 4096, urgent) for offset, _, _, urgent in pieces(trace)] == [
        (0, False), (1, True), (3, False), (2, True), (4, False)]
    assert report.used["requests by accesses"] == 5
    assert report.skipped == {"request in another RAM block": 1}
    assert report.notes == [
        "urgent placements: 2; pages that accesses asked for: 4, never placed: 1, placed before: 1",
        "steps back of the clock: 5; the order of lines is kept"]


def test_a_request_may_fall_within_a_larger_piece():
    log = HEAD + request(3) + place(0) + place(16)
    assert [urgent for *_, urgent in pieces(load(log, piece="64K")[0])] == [True, False]


@pytest.mark.parametrize("line, reason", [
    (place(0), "page placed already"),
    (place(512), "placement outside every RAM block"),
    (place(-1), "placement outside every RAM block"),
    ("9@100.000001:postcopy_place_page host=0x7f0000001800\n", "placement not at a multiple of 4K"),
    ("9@100.000001:postcopy_place_page host=0x\n", "malformed postcopy_place_page"),
    ("9@100.000001:postcopy_place_page host=0x7f0000001000 \n", "malformed postcopy_place_page"),
    ("9@100.000001:postcopy_place_page host=0x7f000000zzzz\n", "malformed postcopy_place_page"),
    ("9@100.000001:postcopy_place_page host=0x11112222333344445\n", "malformed postcopy_place_page"),
    ("9@100.000001:postcopy_place_page hos\n", "malformed postcopy_place_page"),
    ("9@100.000001:postcopy_place_page\n", "malformed postcopy_place_page"),
    ("9100.000001:postcopy_place_page host=0x7f0000009000\n", "malformed postcopy_place_page"),
    ("9@100000001:postcopy_place_page host=0x7f0000009000\n", "malformed postcopy_place_page"),
    ("9@100.00001:postcopy_place_page host=0x7f0000009000\n", "malformed postcopy_place_page"),
    ("9@99999999999.000001:postcopy_place_page host=0x7f0000009000\n", "malformed postcopy_place_page"),
    ("99999999999@100.000001:postcopy_place_page host=0x7f0000009000\n", "malformed postcopy_place_page"),
    ("9@100.000001:postcopy_ram_fault_thread_request Request for\n",
     "malformed postcopy_ram_fault_thread_request"),
    ("9@100.000001:postcopy_nhp_range mem1: 0x\n", "malformed postcopy_*_range"),
    ("9@100.000001:postcopy_nhp_range mem0: 0x1000 offset=0x0 length=0x1000\n",
     "RAM block described differently before"),
    ("9@100.000001:migrate_set_state new state active\n", "event migrate_set_state"),
    ("9@100.000001:loadvm_postcopy_handle_run \n", "event loadvm_postcopy_handle_run"),
    ("qemu-system-x86_64: warning: something\n", "not a line of a QEMU trace log"),
    ("migrate_set_state new state active\n", "not a line of a QEMU trace log"),
    ("\0\xff\n", "not a line of a QEMU trace log"),
    ("\n", "empty line"),
])
def test_a_line_that_is_skipped(line, reason):
    trace, report = load((HEAD + place(0) + line + place(1)).encode("latin-1"), page_size="2M")
    assert [offset for offset, *_ in pieces(trace)] == [0, 4096]
    assert report.skipped == {reason: 1} and report.first == {reason: 3}
    assert report.lines == 4


def test_a_line_without_end_and_lines_that_end_in_cr():
    trace, report = load((HEAD + place(0) + place(1)).replace("\n", "\r\n").encode()[:-2], page_size="2M")
    assert [offset for offset, *_ in pieces(trace)] == [0, 4096] and not report.skipped


def test_a_line_that_is_too_long():
    trace, report = load(HEAD + place(0) + "x" * (3 << 20) + "\n" + place(1) + "?\n", page_size="2M")
    assert [offset for offset, *_ in pieces(trace)] == [0, 4096]
    assert report.skipped == {"a line of more than 1048576 bytes": 1, "not a line of a QEMU trace log": 1}
    assert report.lines == 5 and report.first["not a line of a QEMU trace log"] == 5


def test_memory_is_bounded_however_long_a_line_is():
    class Endless(io.RawIOBase):
        left = 64 << 20

        def read(self, size):
            self.left -= size
            return b"x" * size if self.left >= 0 else b""

    tracemalloc.start()
    with pytest.raises(TraceError, match="not a QEMU trace log"):
        qemu.read(Endless(), "log")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


def test_lines_without_prefix():
    lines = (HEAD + request(1) + place(0) + place(1)).splitlines()
    log = "".join(line.split(":", 1)[1] + "\n" for line in lines)
    trace, report = load(log, page_size="2M")
    assert pieces(trace) == [(0, 0, -1, False), (4096, 0, -1, True)]
    assert trace.thread is None and trace.time is None
    assert report.notes[1].startswith("lines without TID@TIME: prefix: 4, ")


def test_the_clock_may_step_back():
    body = (place(0, "9@100.000005:") + "8@100.000004:migrate_set_state x\n" + place(1, "9@100.000006:")
            + place(2, "9@99.999999:"))
    trace, report = small(body)
    assert [time for _, _, time, _ in pieces(trace)] == [100_000005000, 100_000006000, 99_999999000]
    assert "steps back of the clock: 2; the order of lines is kept" in report.notes


def test_huge_pages_are_noticed():
    _, report = load(HEAD.replace("0x200000", "0x800000") + place(0) + place(1024))
    assert report.notes[-1] == (
        "every placement is at a multiple of 4M: if RAM is of such pages, give piece=4M")


def test_reasons_are_bounded():
    body = "".join(f"8@100.000001:event_{i} x\n" for i in range(1000))
    _, report = small(place(0) + body)
    assert len(report.skipped) <= 101 and report.skipped.total() == 1000
    assert len(str(report).splitlines()) < 30


@given(st.lists(st.tuples(st.sampled_from(["place", "zero", "ask", "other", "junk"]), st.integers(-2, 12),
                          st.integers(0, 10**7)), max_size=60))
def test_any_log_against_the_plain_reader(events):
    body = HEAD + place(0)
    for kind, page, micros in events:
        stamp = f"{page + 3}@{100 + micros // 10**6}.{micros % 10**6:06}:"
        body += {"place": place(page, stamp), "zero": place(page, stamp, "_zero"), "ask": request(abs(page)),
                 "other": f"{stamp}some_event {page}\n", "junk": place(page, stamp)[:30] + "\n"}[kind]
    trace, report = load(body, page_size="2M")
    assert pieces(trace) == simply(body.encode(), BASE, 0x200000, 4096)
    assert report.used.total() + report.skipped.total() == report.lines == body.count("\n")


# Options, and files that are no recording


def test_the_largest_block_is_taken_and_any_may_be_named():
    other = "8@100.000000:postcopy_init_range 0000:00:02.0/vga vram: 0x1000 offset=0x0 length=0x3000\n"
    log = other + HEAD + place(0) + "9@100.000001:postcopy_place_page host=0x2000\n"
    assert pieces(load(log)[0])[0][0] == 0 and load(log)[0].header.files[0].name == "mem0"
    trace, report = load(log, block="0000:00:02.0/vga vram", page_size="2M")
    assert pieces(trace) == [(4096, 9, 100_000001000, False)]
    assert trace.header.files == [File("_0000_00_02.0_vga_vram", 2 << 20, 1)]
    assert report.skipped == {"placement in another RAM block, mem0": 1}


def test_a_block_that_ends_within_a_piece():
    log = HEAD.replace("0x200000", "0x1800") + place(0) + place(1) + place(2)
    trace, report = load(log, page_size="2M")
    assert [offset for offset, *_ in pieces(trace)] == [0, 4096]
    assert report.skipped == {"placement outside every RAM block": 1}


def test_a_request_at_any_offset():
    log = HEAD + request(7).replace("offset=0x7000", "offset=0x" + 16 * "f") + place(0)
    assert load(log, page_size="2M")[1].notes == [
        "urgent placements: 0; pages that accesses asked for: 1, never placed: 1"]


def test_pages_round_up():
    log = HEAD.replace("0x200000", "0x600000") + place(0)
    assert load(log)[0].header.files == [File("mem0", 1 << 30, 1)]
    assert load(log, page_size="2M")[0].header.files == [File("mem0", 2 << 20, 3)]


@pytest.mark.parametrize("log, reason", [
    ("", "not a QEMU trace log: no line is of the form TID@SECONDS.MICROSECONDS:EVENT"),
    ("hgmcore-trace 1\nobserve\n",
     "not a QEMU trace log: no line is of the form TID@SECONDS.MICROSECONDS:EVENT"),
    (HEAD, "no postcopy placement and no discard in 1 lines: record the destination of a postcopy migration with "
           "the events postcopy_*, or a balloon with virtio_balloon_* and ram_block_discard_range"),
    (place(0), "no RAM block is described: record all events postcopy_* (postcopy_init_range and "
               "postcopy_nhp_range tell where RAM lies)"),
    (HEAD + place(999), "no placement lies in the RAM block 'mem0'"),
    (HEAD.replace("0x200000", "0x10000001000") + place(1),
     "RAM block 'mem0' has 268,435,457 pieces of 4K, more than 268,435,456"),
])
def test_a_log_without_a_migration(log, reason):
    with pytest.raises(TraceError) as caught:
        load(log, "a.log")
    assert str(caught.value) == f"a.log: {reason}"


@pytest.mark.parametrize("options, error, reason", [
    ({"block": "ram"}, TraceError, "log: no RAM block 'ram' (it has mem0 (2M))"),
    ({"piece": "3K"}, ValueError, "piece: 3K does not divide a page of 2M"),
    ({"piece": "0"}, ValueError, "piece: 0 does not divide a page of 2M"),
    ({"piece": "x"}, ValueError, "piece: 'x' is not a number (expected decimal or 0x, then K, M, G or T)"),
    ({"page_size": "4K"}, ValueError, "x86-64 has no hugetlb pages of 4K (it has 2M, 1G)"),
    ({"start": "full"}, ValueError, "start: 'full' is not one of empty, mapped"),
    ({"observations": "-1"}, ValueError,
     "observations: '-1' is negative (expected decimal or 0x, then K, M, G or T)"),
])
def test_a_bad_option(options, error, reason):
    with pytest.raises(error) as caught:
        load(HEAD + place(0), **{"page_size": "2M"} | options)
    assert str(caught.value) == reason


# What every importer shares


def packed_with_zstd(data):
    import pyarrow
    stream = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(stream, "zstd") as out:
        out.write(data)
    return stream.getvalue().to_pybytes()


PACKERS = {"plain": bytes, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress,
           "zst": packed_with_zstd}


@pytest.mark.parametrize("packer", PACKERS)
def test_packed_input_and_provenance(tmp_path, packer):
    plain = (DATA / "qemu-postcopy_4k.qemutrace").read_bytes()
    path = tmp_path / f"log.{packer}"
    path.write_bytes(PACKERS[packer](plain))
    trace, report = importers.read("qemu", path, {"guest": "redis"}, observations="3")
    assert pieces(trace) == pieces(load(plain)[0])
    assert trace.header.provenance == {
        "recording": "QEMU trace log, incoming postcopy", "ram_block": "mem0, 1G", "guest": "redis",
        "importer": "qemu", "options": "page_size=1G piece=4K observations=3 geometry=x86-64",
        "source": path.name, "source_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "counts": report.summary(), "notes": "; ".join(report.notes)}
    assert report.summary().startswith("273 lines: 12 descriptions of RAM blocks, ")
    assert Trace.parse(trace.to_text()) == trace


@pytest.mark.parametrize("packer", ["gz", "bz2", "xz", "zst"])
def test_packed_input_cut_off(tmp_path, packer):
    path = tmp_path / "log"
    path.write_bytes(PACKERS[packer]((DATA / "qemu-postcopy_4k.qemutrace").read_bytes())[:1500])
    with pytest.raises(TraceError) as caught:
        importers.read("qemu", path)
    assert str(caught.value).startswith(f"{path}: cannot be read: ")


def test_standard_input(monkeypatch):
    plain = (DATA / "qemu-postcopy_4k.qemutrace").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lzma.compress(plain))))
    trace, _ = importers.read("qemu", "-")
    assert trace.name == trace.header.provenance["source"] == "<stdin>"
    assert pieces(trace) == pieces(load(plain)[0])


def test_bad_calls(tmp_path):
    log = DATA / "qemu-postcopy_4k.qemutrace"
    for call, error, reason in [
            (lambda: importers.read("vax", log), ValueError,
             f"unknown format 'vax' (known: {', '.join(importers.NAMES)})"),
            (lambda: importers.read("qemu", log, colour=1), ValueError,
             "qemu: unknown option 'colour' (known: block, page_size, piece, start, observations, geometry)"),
            (lambda: importers.read("qemu", log, {"a b": "c"}), TraceError,
             f"{log}: provenance: 'a b' is not a word with a text"),
            (lambda: importers.read("qemu", tmp_path / "none"), TraceError,
             f"{tmp_path / 'none'}: cannot be read: No such file or directory"),
            (lambda: importers.read("qemu", tmp_path), TraceError,
             f"{tmp_path}: cannot be read: Is a directory")]:
        with pytest.raises(error) as caught:
            call()
        assert str(caught.value) == reason


@pytest.mark.parametrize("name", importers.NAMES)
def test_importers_explain_themselves(name):
    importer = importers.load(name)
    assert len(importer.explanation.strip().splitlines()[0]) < 100
    assert "hgmcore import " + name in importer.explanation
    assert all(option.help for option in importer.options)
