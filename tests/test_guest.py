"""From touched pages to the trace of a guest, against a reader that does one touch at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hgmcore import replay
from hgmcore.trace import TraceError
from hgmcore.workloads import guest
from hgmcore.workloads.guest import Guest

SMALL = {"page_size": "2M", "observations": 0}
PER_PAGE = 512


def parts(trace):
    """The operations between the split and the collapse, as text."""
    return [line for line in trace.to_text().splitlines() if not line.startswith(("#", "hgmcore-trace"))][4:-2]


def simply(touches, background=0.0, later=False):
    """[(thread, "continue" or "touch", piece of the file, urgent or written)], the plain way."""
    windows = []
    for page, *_ in touches:
        if page // PER_PAGE not in windows:
            windows.append(page // PER_PAGE)
    stream = iter(range(len(windows) * PER_PAGE))
    out, there, asked, owed = [], set(), set(), 0.0
    for page, write, thread in touches:
        piece = windows.index(page // PER_PAGE) * PER_PAGE + page % PER_PAGE
        if piece not in there:
            there.add(piece)
            out.append((2, "continue", piece, True))
        elif later:
            out.append((thread, "touch", piece, write))
        if piece not in asked:
            asked.add(piece)
            owed += background
            while owed >= 1:
                owed -= 1
                lacking = next((piece for piece in stream if piece not in there), None)
                if lacking is not None:
                    there.add(lacking)
                    out.append((1, "continue", lacking, False))
    if background:
        out += [(1, "continue", piece, False) for piece in stream if piece not in there]
    return out


def found(trace):
    out = []
    for line in parts(trace):
        words = line.split()
        thread = int(words.pop(0)[1:]) if line.startswith("@") else 0
        size = {"K": 1, "M": 1024}
        offset = 0 if words[3] == "0" else int(words[3][:-1]) * size[words[3][-1]] // 4
        out.append((thread, words[0], offset, words[-1] in ("urgent", "write")))
    return out


def made(touches, batch=7, **options):
    program = Guest(**SMALL | options)
    for start in range(0, len(touches), batch):
        pages, write, thread = map(np.array, zip(*touches[start:start + batch]))
        program.touch(pages.astype(np.uint64), write, thread.astype(np.uint32))
    return program


# Pages of four windows, sparse: two near each other, one far, one at the top of a user's addresses.
PAGE = st.one_of(st.integers(0, 20), st.integers(510, 530), st.integers(0x7F0000000, 0x7F0000004),
                 st.just((1 << 47) // 4096 - 1))


@settings(max_examples=60)
@given(st.lists(st.tuples(PAGE, st.booleans(), st.integers(3, 9)), min_size=1, max_size=60),
       st.sampled_from([0, 0.25, 1, 3.5, 100]), st.booleans(), st.integers(1, 70))
def test_any_touches_against_the_plain_reader(touches, background, later, batch):
    trace = made(touches, batch, background=background, later="touch" if later else "drop").trace("t")
    assert found(trace) == simply(touches, background, later)


def test_the_frame_and_the_packing():
    program = Guest(page_size="2M", later="touch", observations=2)
    program.touch([0x7F0000001, 3, 0x7F0000001, 4], [False, False, True, False], thread=9, time=[5, 6, 7, 8])
    trace = program.trace("t", "guest", provenance={"recording": "none"})
    assert trace.to_text().splitlines()[2:] == [
        "file ram 2M 2", "populate ram 0 2", "mmap guest ram ram 0 4M shared minor", "split guest ram 0 4M",
        "@2:5 continue guest ram 4K 4K urgent", "@2:6 continue guest ram 2060K 4K urgent", "observe",
        "@9:7 touch guest ram 4K write", "@2:8 continue guest ram 2064K 4K urgent", "observe",
        "collapse guest ram 0 4M", "observe"]
    assert program.notes() == ["touched 3 pieces of 4K in 2 windows of 2M, each a huge page of the file: "
                               "0x7f0000000000, 0x0"]


def test_larger_pieces():
    program = Guest(page_size="2M", piece="64K", observations=0)
    program.touch([15, 16, 0, 31, 600])
    assert parts(program.trace("t")) == [
        f"@2 continue vmm ram {offset} 64K urgent" for offset in ("0", "64K", "2368K")]


def test_every_operation_is_done():
    program = made([(page * 37 % 1024, True, 5) for page in range(600)], background=0.5, later="touch")
    result = replay(program.trace("t"), "subtree", operations="all")
    assert not result["operations"]["errno"].any() and not result["operations"]["event"].any()
    assert result["observations"][-1]["folios"][1]["truth"]["pages_mapped"] == 512


def test_no_times_and_no_threads_unless_given():
    program = Guest(**SMALL, later="touch")
    program.touch([1, 1, 2])
    trace = program.trace("t")
    assert trace.time is None and set(trace.thread.tolist()) == {0, 2}


def test_later_touches_take_disk_and_not_memory():
    program = Guest(**SMALL)
    for _ in range(1000):
        program.touch(np.arange(100, dtype=np.uint64))
    assert len(program._log) == 100 and program.touches == 100_000


@pytest.mark.parametrize("options, reason", [
    ({"piece": "3K"}, "piece: 3K is not a multiple of 4K that divides a page of 1G"),
    ({"piece": "0"}, "piece: 0 is not a multiple of 4K that divides a page of 1G"),
    ({"piece": "4K", "geometry": "arm64-64k", "page_size": "512M"},
     "piece: 4K is not a multiple of 64K that divides a page of 512M"),
    ({"page_size": "4M"}, "x86-64 has no hugetlb pages of 4M (it has 2M, 1G)"),
    ({"geometry": "vax"}, "unknown geometry 'vax' (known: x86-64, x86-64-5level, arm64-4k, arm64-16k, arm64-64k)"),
    ({"background": "x"}, "background: 'x' is not a number"),
    ({"background": "nan"}, "background: nan is not between 0 and 268435456"),
    ({"background": "-1"}, "background: -1 is not between 0 and 268435456"),
    ({"later": "keep"}, "later: 'keep' is not one of drop, touch"),
    ({"observations": "-1"}, "observations: '-1' is negative (expected decimal or 0x, then K, M, G or T)"),
])
def test_a_bad_option(options, reason):
    with pytest.raises(ValueError) as caught:
        program = Guest(**options)
        program.touch([1])
        program.trace("t")
    assert str(caught.value) == reason


def test_what_cannot_become_a_trace(monkeypatch):
    with pytest.raises(TraceError, match="t: nothing is touched: it has no page fault, no"):
        Guest().trace("t")
    monkeypatch.setattr(guest, "MOST_PIECES", 1000)
    program = Guest(**SMALL, background="1")
    program.touch([0, 10_000])
    with pytest.raises(TraceError, match="would bring 1,024 pieces of 2 pages of 2M for 2 touches: choose a smaller "
                                         "page_size"):
        program.trace("t")
