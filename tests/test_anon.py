"""Anonymous memory in huge folios: split PMDs, fork, copy on write, collapse.

What mm_id has to answer is what Linux 6.18.44 did, from recordings of it (x86-64, official interfaces only): c01, c02,
and k, a sequence of forks and writes. Counts are those of kpagecount, sizes those of smaps.
"""
import pytest
from test_shmem import K, M, errors, last, run

HUGE = "mmap A v anon:2M 0 2M private\n"
WRITTEN = HUGE + "touch A v 0 write\n"


def sizes(rows, process="A"):
    row = rows[process, "v"]
    return row["rss"] // K, row["shared"] // K, row["private"] // K, row["levels"]["pmd"] // K


def first_folio(text, scheme="mm_id", **options):
    """Map counts of the first folio that was allocated."""
    return next((f["kpagecount"] for f in last(text, scheme, **options)[0] if f["page"] == 0), None)


def tables(text, process="A"):
    rows = {row["process"]: row["page_tables"] for row in run(text + "\nobserve").observations[0]["processes"]}
    return sum(rows[process].values()) // 4096


def test_a_part_of_a_pmd_splits_it():
    """c01: 511 PTEs stay; the hole is filled by a base page; collapse copies all to a new folio."""
    text = WRITTEN
    folios, rows = last(text)
    assert sizes(rows) == (2048, 0, 2048, 2048) and tables(text) == 3, "one table is in deposit"
    assert [(f["file"], f["pages"], f["refcount"]) for f in folios] == [("anon:2M", 512, 1)]
    text += "dontneed A v 40K 4K\n"
    folios, rows = last(text)
    assert folios[0]["kpagecount"] == [(0, 10, 1), (10, 11, 0), (11, 512, 1)] and folios[0]["refcount"] == 511
    assert sizes(rows) == (2044, 0, 2044, 0) and tables(text) == 3
    text += "dontneed A v 1M 1M\ntouch A v 40K write\n"
    folios, rows = last(text)
    assert [(f["pages"], f["mapcount"]) for f in folios] == [(512, 255), (1, 1)]
    assert rows["A", "v"]["exclusive"] == [(0, 256, 1)]
    text += "collapse A v 0 2M\n"
    folios, rows = last(text)
    assert [(f["pages"], f["mapcount"], f["refcount"]) for f in folios] == [(512, 1, 1)]
    assert sizes(rows) == (2048, 0, 2048, 2048)
    assert sizes(last(text + "munmap A v 0 4K\n")[1]) == (2044, 0, 2044, 0)
    assert last(text + "exit A\n")[0] == []


def test_pieces_and_copy_on_write():
    """c02: mprotect of a part splits; fork copies PTEs; who writes gets a base page of its own."""
    text = WRITTEN + "mprotect A v 0 16K r\nfork A B\n"
    folios, rows = last(text)
    assert folios[0]["kpagecount"] == [(0, 512, 2)] and sizes(rows) == sizes(rows, "B") == (2048, 2048, 0, 0)
    text += "touch B v 32K write\ntouch B v 36K write\n"
    folios, rows = last(text)
    assert folios[0]["kpagecount"] == [(0, 8, 2), (8, 10, 1), (10, 512, 2)]
    assert sizes(rows) == sizes(rows, "B") == (2048, 2040, 8, 0)
    text += "touch A v 32K write\n"
    folios, rows = last(text)
    assert folios[0]["kpagecount"] == [(0, 8, 2), (8, 9, 0), (9, 10, 1), (10, 512, 2)], "B has the folio still: copied"
    text += "touch A v 80K write\ndontneed B v 400K 400K\nmprotect A v 0 16K rw\ncollapse A v 0 2M\n"
    folios, rows = last(text)
    assert sizes(rows) == (2048, 0, 2048, 2048) and sizes(rows, "B") == (1648, 0, 1648, 0)
    folios, rows = last(text + "exit B\ncollapse A v 0 2M\n")
    assert [(f["pages"], f["mapcount"]) for f in folios] == [(512, 1)]


def test_forks_and_writes():
    """k: a PMD is copied as a PMD; a write to it splits the writer's; then munmap, a third process, exits, collapse."""
    text = WRITTEN + "fork A B\n"
    folios, rows = last(text)
    assert folios[0]["mapcount"] == 2 and sizes(rows) == sizes(rows, "B") == (2048, 2048, 0, 2048)
    text += "touch B v 12K write\ntouch B v 20K write\ntouch B v 28K write\n"
    folios, rows = last(text)
    holes = [(0, 3, 2), (3, 4, 1), (4, 5, 2), (5, 6, 1), (6, 7, 2), (7, 8, 1)]
    assert folios[0]["kpagecount"] == [*holes, (8, 512, 2)]
    assert sizes(rows) == (2048, 2036, 12, 2048) and sizes(rows, "B") == (2048, 2036, 12, 0)
    text += "dontneed A v 64K 64K\nmunmap B v 1M 1M\nfork A C\n"
    folios, rows = last(text)
    assert folios[0]["kpagecount"] == [(0, 3, 3), (3, 4, 2), (4, 5, 3), (5, 6, 2), (6, 7, 3), (7, 8, 2), (8, 16, 3),
                                       (16, 32, 1), (32, 256, 3), (256, 512, 2)]
    assert sizes(rows) == sizes(rows, "C") == (1984, 1984, 0, 0) and sizes(rows, "B") == (1024, 948, 76, 0)
    assert first_folio(text + "mprotect C v 400K 4K r\nexit B\n") == [(0, 16, 2), (16, 32, 0), (32, 512, 2)]
    folios, rows = last(text + "exit B\nexit C\ncollapse A v 0 2M\n")
    assert [(f["pages"], f["mapcount"], f["page"]) for f in folios] == [(512, 1, 4)], "the fifth that was allocated"


# Seen on 6.18, which gave a PTE to each: the two VMAs of these look alike and are not merged.
APART = {
    "a fork child's VMA with an anon_vma": """mmap A v anon:2M 0 4M private
        mprotect A v 0 4K r
        touch A v 4092K
        fork A B
        mprotect B v 0 4K rw
        touch B v 0 write""",
    "one that was never written is not accounted": """mmap A v anon:2M 0 2M private
        touch A v 0 write
        fork A C
        mmap B v anon:2M 0 4M private
        mprotect B v 2M 2M r
        touch B v 3M
        mprotect B v 0 2M r
        mprotect B v 4092K 4K rw
        touch B v 0""",
}


@pytest.mark.parametrize("text", APART.values(), ids=APART)
def test_vmas_that_look_alike_are_kept_apart(text):
    assert sizes(last(text)[1], "B")[3] == 0


def test_vmas_merge_again():
    """Where both have no anon_vma, or one of them, or both the same: the second access gets a huge folio."""
    for before in ("", "touch A v 2M write\n", "touch A v 0 write\ndontneed A v 0 2M\n"):
        text = "mmap A v anon:2M 0 4M private\n" + before + "mprotect A v 0 4K r\nmprotect A v 0 4K rw\n"
        assert sizes(last(text + "touch A v 0 write\n")[1])[3] >= 2048, before
    child = "mmap A v anon:2M 0 4M private\ntouch A v 2M write\nfork A B\nmprotect B v 0 4K r\nmprotect B v 0 4K rw\n"
    assert sizes(last(child + "touch B v 0 write\n")[1], "B")[3] == 4096, "two halves of one VMA have one anon_vma"


def test_a_page_that_nobody_else_has_is_reused():
    """Of a PMD: a single reference. Of PTEs of a huge folio, from 6.15: all of its mappings are this process's."""
    forked = WRITTEN + "fork A B\nexit B\n"
    folios, rows = last(forked + "touch A v 0 write\n")
    assert [f["pages"] for f in folios] == [512] and sizes(rows)[3] == 2048
    pieces = WRITTEN + "fork A B\ndontneed A v 2044K 4K\nexit B\ntouch A v 0 write\n"
    assert [f["pages"] for f in last(pieces)[0]] == [512]
    assert [f["pages"] for f in last(pieces, era="6.3")[0]] == [512, 1], "511 references are too many"
    one_left = WRITTEN + "fork A B\ndontneed A v 4K 2044K\nexit B\ntouch A v 0 write\n"
    assert [f["pages"] for f in last(one_left)[0]] == [1], "the last page is given up for a copy"
    assert [f["pages"] for f in last(one_left, era="6.3")[0]] == [512]
    small = "mmap A v anon:4K 0 64K private\ntouch A v 0 write\nfork A B\n"
    assert len(last(small + "touch A v 0 write\n")[0]) == 2 and len(last(small + "exit B\ntouch A v 0 write\n")[0]) == 1


def test_reads_map_the_zero_page():
    """The zero page is no folio: nothing is counted and smaps leaves it out, but its page table is there."""
    folios, rows = last(HUGE + "touch A v 0\n")
    assert folios == [] and sizes(rows) == (0, 0, 0, 0) and tables(HUGE + "touch A v 0\n") == 3
    assert sizes(last(HUGE + "touch A v 0\ntouch A v 4K write\n")[1]) == (2048, 0, 2048, 2048), "from 6.13 all at once"
    assert sizes(last(HUGE + "touch A v 0\ntouch A v 4K write\n", era="6.3")[1]) == (4, 0, 4, 0)
    assert sizes(last(HUGE + "touch A v 0\ndontneed A v 0 4K\ntouch A v 4K write\n")[1]) == (4, 0, 4, 0)
    assert errors(HUGE + "collapse A v 0 2M\ntouch A v 0\ncollapse A v 0 2M\n") == [("EINVAL", 0)], "nothing was there"


def test_what_does_not_fit_is_base_pages():
    unaligned = "mmap A v anon:2M 0 3M private\ntouch A v 2560K write\n"
    assert sizes(last(unaligned)[1]) == (4, 0, 4, 0)
    assert sizes(last(WRITTEN + "dontneed A v 0 2M\nmunmap A v 0 4K\ntouch A v 4K write\n")[1]) == (4, 0, 4, 0)
    small = "mmap A v anon:4K 0 2M private\ntouch A v 4K write\n"
    assert sizes(last(small)[1]) == (4, 0, 4, 0)
    assert sizes(last(small + "collapse A v 0 2M\n")[1]) == (2048, 0, 2048, 2048)
    rights = WRITTEN + "mprotect A v 0 1M r\nmprotect A v 0 1M rw\ndontneed A v 0 2M\ntouch A v 0 write\n"
    assert sizes(last(rights)[1]) == (2048, 0, 2048, 2048), "VMAs of equal rights become one again"


def test_without_memory():
    """Without memory for a huge folio the fault takes a base page; without memory fork fails as a whole."""
    assert sizes(last(HUGE + "fail 1\ntouch A v 0 write\n")[1]) == (4, 0, 4, 0)
    assert errors(HUGE + "touch A v 0 write\ndontneed A v 4K 4K\nfail 1\ntouch A v 4K write\n") == [("ENOMEM", 0)]
    folios, rows = last(WRITTEN + "fail 1\nfork A B\n")
    assert errors(WRITTEN + "fail 1\nfork A B\n") == [("ENOMEM", 0)]
    assert folios[0]["mapcount"] == 1 and ("B", "v") not in rows
    assert errors(WRITTEN + "dontneed A v 0 4K\nfail 1\ncollapse A v 0 2M\n") == [("ENOMEM", 0)]


def test_mremap_moves_folios():
    folios, rows = last(WRITTEN + "mremap A v 0 2M w\n")
    assert folios[0]["mapcount"] == 1 and rows["A", "w"]["levels"]["pmd"] == 2 * M
    text = WRITTEN + "mremap A v 1M 1M w\n"
    folios, rows = last(text)
    assert folios[0]["mapcount"] == 512 and rows["A", "w"]["rss"] == rows["A", "v"]["rss"] == 1 * M
    assert rows["A", "w"]["exclusive"] == [(0, 256, 1)]
    assert last(text + "munmap A w 0 1M\nmunmap A v 0 1M\n")[0] == []
    assert sizes(last(WRITTEN + "mremap A v 4M\ntouch A v 2M write\n")[1])[3] == 4096


def test_what_is_refused():
    for statement in ("register A v minor", "split A v 0 2M", "migrate A v 0 2M", "hwpoison A v 0"):
        assert errors(HUGE + statement) == [("EINVAL", 0)], statement
    assert errors(HUGE + "register A v wp\ncontinue A v 0 4K") == [("EINVAL", 0)]
    assert errors("mmap A v anon:2M 0 2M private minor") == [("EINVAL", 0)]


def test_the_api():
    from hgmcore import Machine

    process = Machine("mm_id").process("A")
    mapping = process.mmap(anon="2M", length="4M", name="v")
    assert mapping.touch(0, write=True) == 4096
    child = process.fork("B").mapping("v")
    child.touch("8K", write=True)
    seen = process.machine.observe()
    assert [(f["file"], f["page"], f["pages"]) for f in seen["folios"]] == [("anon:2M", 0, 512), ("anon:2M", 1, 1)]
    for wrong in ({}, {"anon": "2M"}, {"anon": "2M", "length": "2M", "shared": True}, {"anon": "3M", "length": "3M"}):
        with pytest.raises(ValueError):
            process.mmap(**wrong)


@pytest.mark.parametrize("scheme", ["head_per_leaf", "logical_counter", "logical_table", "special_bit", "subtree",
                                    "per_vma", "no_page_mapcount", "pmd_pud_mapcount", "total_mapped_pages",
                                    "double_map"])
def test_every_scheme_counts_anonymous_memory(scheme):
    """One page table maps pieces of two huge folios, and base pages; each folio is counted by itself."""
    text = WRITTEN + "fork A B\ntouch B v 0 write\nfork B C\ntouch C v 4K write\n"
    text += "dontneed C v 8K 8K\nmremap C v 1M 1M w\n"
    folios, _ = last(text, scheme)
    huge = folios[0]
    assert huge["mapped"] and huge["maybe_shared"] and huge["truth"]["processes"] == 3
    assert all(f["mapcount"] == f["truth"]["leaves"] == f["refcount"] for f in folios[1:]), "base pages"
    ran = run(text + "exit A\nexit B\nmunmap C v 0 1M\nobserve\nexit C\nobserve", scheme)
    assert ran.observations[0]["folios"][0]["mapped"] and ran.observations[1]["folios"] == []
    assert ran.counters == {"underflows": 0, "overflows": 0}
