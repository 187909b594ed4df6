"""Discards and balloons in QEMU logs, against a reader that does one line and one page at a time."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgmcore import importers, replay
from hgmcore.importers import qemu
from hgmcore.importers.parsers import lines as line_blocks
from hgmcore.trace import TraceError
from hgmcore.trace.statements import CODES
from hgmcore.workloads import guest

DATA = Path(__file__).parent / "data"
BALLOON = (DATA / "qemu-balloon_4k.qemutrace").read_bytes()
DISCARDS = (DATA / "qemu-postcopy_4k_discards.qemutrace").read_bytes()
BASE = 0x7F0000001000  # not at a multiple of a huge page, as QEMU's may be
HEAD = f"8@100.000000:postcopy_nhp_range mem0: {BASE:#x} offset=0x0 length=0x200000\n"


def load(log, name="log", **options):
    return qemu.read(io.BytesIO(log if isinstance(log, bytes) else log.encode()), name, **options)


def operations(trace):
    """(name, first piece, pieces) of what stands between the start and the collapse."""
    out = []
    for op, offset, length in zip(*(trace.operations[key].tolist() for key in ("op", "offset", "length"))):
        name = {code: name for name, code in CODES.items()}[op]
        if name in ("continue", "dontneed", "touch"):
            out.append((name, offset >> 12, length >> 12))
    return out


def simply(log, base, pages, mapped):
    """The same, the plain way: pages mapped at first are `mapped`."""
    there, out = set(mapped), []
    lines = log.decode().splitlines()
    for line, after in zip(lines, [*lines[1:], ""]):
        if match := re.search(r":postcopy_place_page(?:_zero)? host=0x(\w+)$", line):
            page = (int(match[1], 16) - base) >> 12
            if 0 <= page < pages and page not in there:
                there.add(page)
                out.append(("continue", page, 1))
        elif match := re.search(r"_range mem0@0x(\w+) \+ 0x(\w+): madvise: \d fallocate: \d ret: 0$", line):
            first, count = (int(match[1], 16) - base) >> 12, int(match[2], 16) >> 12
            if there & set(range(first, first + count)):
                there -= set(range(first, first + count))
                out.append(("dontneed", first, count))
        elif "_discard_range mem0@" in after:
            continue  # inflated
        elif match := re.search(r"section name: mem0 gpa: 0x(\w+)$", line):
            page = int(match[1], 16) >> 12
            if page not in there:
                there.add(page)
                out.append(("touch", page, 0))
    return out


def place(page):
    return f"9@100.000001:postcopy_place_page host={BASE + page * 4096:#x}\n"


def discard(page, count=1, block="mem0", base=BASE, ret=0):
    return (f"9@100.000002:ram_block_discard_range {block}@{base + page * 4096:#x} + {count * 4096:#x}: "
            f"madvise: 1 fallocate: 1 ret: {ret}\n")


def balloon(page, block="mem0"):
    return f"9@100.000003:virtio_balloon_handle_output section name: {block} gpa: {page * 4096:#x}\n"


TARGET = "8@100.000000:virtio_balloon_to_target balloon target: 0x100000 num_pages: 256\n"  # 2M in all


def test_a_slice_of_a_balloon():
    trace, report = load(BALLOON)
    found = operations(trace)
    assert found[:1 << 18] == [("continue", page, 1) for page in range(1 << 18)]
    expected = simply(BALLOON, 0x7fc827fff000, 1 << 18, range(1 << 18))
    assert found[1 << 18:] == expected
    assert {name for name, *_ in expected} == {"dontneed", "touch"}
    assert report.used == {"balloon targets": 4, "pages given to the balloon": 39, "discards": 40,
                           "pages that the balloon gave back": 31}
    assert report.skipped["page of the balloon that is mapped"] == 28  # inflated where the slice has no lines
    assert report.used.total() + report.skipped.total() == report.lines == BALLOON.count(b"\n")
    assert trace.header.provenance["ram_block"] == "mem0, 1G"


def test_every_operation_of_a_balloon_is_done():
    trace, _ = load(TARGET + "".join(balloon(page) + discard(page) for page in (3, 4)) + balloon(4), page_size="2M")
    result = replay(trace, "head_per_leaf", operations="all")
    assert not result["operations"]["errno"].any() and not result["operations"]["event"].any()
    assert [o["folios"][0]["truth"]["pages_mapped"] for o in result["observations"]] == [511, 510, 511, 512]


def test_a_slice_with_discards():
    base = 0x7ff34bfff000
    trace, report = load(DISCARDS)
    assert operations(trace) == simply(DISCARDS, base, 1 << 18, ())
    assert report.skipped["discard of what is not mapped"] == 48
    trace, report = load(DISCARDS, start="mapped")
    without_first = DISCARDS.replace(b"+ 0x40000000: madvise", b"")
    assert operations(trace)[1 << 18:] == simply(without_first, base, 1 << 18, range(1 << 18))
    assert report.skipped["discard of the whole block before it is filled"] == 1
    assert report.used["discards"] == 47


@pytest.mark.parametrize("size", [100, 1000])
def test_blocks_of_lines_change_nothing(monkeypatch, size):
    whole, counted = load(BALLOON)
    monkeypatch.setattr(line_blocks, "BLOCK", size)
    trace, report = load(BALLOON)
    assert trace == whole and report.to_dict() == counted.to_dict()


def test_a_page_may_be_placed_again_after_a_discard():
    log = HEAD + discard(0, 512) + place(1) + place(2) + place(1) + discard(0, 3) + place(1) + discard(2)
    trace, report = load(log, page_size="2M")
    assert operations(trace) == [("continue", 1, 1), ("continue", 2, 1), ("dontneed", 0, 3), ("continue", 1, 1)]
    assert report.skipped == {"discard of what is not mapped": 2, "page placed already": 1}


def test_memory_above_a_hole_in_guest_addresses():
    # Pages 0 to 255 lie at guest address 0, pages from 256 on at 1G.
    high = (1 << 30) // 4096
    log = (TARGET + balloon(high) + discard(256) + balloon(5) + discard(5) + balloon(high + 1) + discard(257)
           + balloon(high) + balloon(5))
    trace, _ = load(log, page_size="2M")
    assert operations(trace)[512:] == [("dontneed", 256, 1), ("dontneed", 5, 1), ("dontneed", 257, 1),
                                       ("touch", 256, 0), ("touch", 5, 0)]


def test_memory_is_as_large_as_the_log_tells():
    log = balloon(700) + discard(700)
    assert load(log, page_size="2M")[0].header.files[0].pages == 2
    assert load(TARGET.replace("256", "2048") + log, page_size="2M")[0].header.files[0].pages == 5


@pytest.mark.parametrize("line, reason", [
    (discard(1, ret=-1), "malformed ram_block_discard_range"),
    (discard(1)[:-3] + "\n", "malformed ram_block_discard_range"),
    (discard(1)[:60] + "\n", "malformed ram_block_discard_range"),
    (discard(1).replace(":ram", "ram"), "not a line of a QEMU trace log"),
    (discard(1, block="x" * 100), "malformed ram_block_discard_range"),
    (discard(0, 1, base=BASE + 8), "discard not at multiples of 4K"),
    (discard(1000), "address outside the RAM block"),
    (discard(511, 2), "discard not at multiples of 4K"),
    (discard(1, block="pc.bios"), "event of another RAM block, pc.bios"),
    (discard(1, block="/rom@etc/acpi"), "event of another RAM block, /rom@etc/acpi"),
    (balloon(1).replace("gpa: 0x", "gpa: "), "malformed virtio_balloon_handle_output"),
    (balloon(1)[:-6] + "\n", "malformed virtio_balloon_handle_output"),
    (balloon(1), "page of a balloon whose host address no discard tells"),
    (TARGET.replace("num_pages", "x"), "malformed virtio_balloon_to_target"),
])
def test_a_line_that_is_skipped(line, reason):
    trace, report = load(HEAD + place(0) + line + place(1), page_size="2M")
    assert operations(trace) == [("continue", 0, 1), ("continue", 1, 1)]
    assert report.skipped == {reason: 1} and report.first == {reason: 3}


def test_a_balloon_that_never_inflates():
    with pytest.raises(TraceError, match="no RAM block is described"):
        load(TARGET + balloon(1))
    with pytest.raises(TraceError, match="log: no discard lies in the RAM block 'mem0'"):
        load(HEAD + discard(0, 512))


def test_a_discard_of_nothing_is_none():
    nothing = discard(0, 512).replace(f"{512 * 4096:#x}:", "0x0:")
    assert load(HEAD + place(0) + nothing, page_size="2M")[1].skipped == {"malformed ram_block_discard_range": 1}


def test_other_names_of_blocks_are_bounded():
    log = HEAD + place(0) + "".join(discard(1, block=f"b{i}") for i in range(200))
    _, report = load(log, page_size="2M")
    assert report.skipped["malformed ram_block_discard_range"] == 200 - 64
    assert report.skipped.total() == 200


def test_options_say_what_is_mapped_first():
    options = {option.name: option for option in importers.load("qemu").options}
    assert options["start"].default is None
    log = HEAD + place(3) + discard(3) + place(3)
    assert operations(load(log, page_size="2M")[0]) == [("continue", 3, 1), ("dontneed", 3, 1), ("continue", 3, 1)]
    full = operations(load(log, page_size="2M", start="mapped")[0])
    assert full[512:] == [("dontneed", 3, 1), ("continue", 3, 1)]
    trace, _ = load(TARGET + balloon(3) + discard(3) + balloon(3), page_size="2M", start="empty")
    assert operations(trace) == [("touch", 3, 0)]


@given(st.lists(st.tuples(st.sampled_from(["place", "discard", "balloon", "inflate"]), st.integers(0, 11),
                          st.sampled_from([1, 2, 3, 40])), max_size=60),
       st.sampled_from(["empty", "mapped"]), st.sampled_from([1, 5, 1000]))
def test_any_log_against_the_plain_reader(events, start, chunk):
    body = HEAD + place(20) + balloon(20) + discard(20)  # which tells where guest addresses begin
    for kind, page, count in events:
        body += {"place": place(page), "discard": discard(page, count), "balloon": balloon(page) + "other\n",
                 "inflate": balloon(page) + discard(page)}[kind]
    with pytest.MonkeyPatch.context() as patch:  # what is read, and written, at once
        patch.setattr(guest, "_CHUNK", chunk)
        patch.setattr(line_blocks, "BLOCK", 100 * chunk)
        trace, report = load(body, page_size="2M", start=start)
    found = operations(trace)[512 if start == "mapped" else 0:]
    assert found == simply(body.encode(), BASE, 512, range(512) if start == "mapped" else ())
    assert report.used.total() + report.skipped.total() == report.lines
    assert np.count_nonzero(trace.operations["op"] == CODES["unregister"]) == 0
