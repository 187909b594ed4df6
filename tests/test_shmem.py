"""Files of kind shmem: folios mapped by a PMD, by PTEs, or by both.

What mm_id has to answer is what Linux 6.18.44 did, from recordings of it (x86-64, official interfaces only); the steps
are named by their recording, as a01. Counts are those of kpagecount, sizes those of smaps.
"""
import pytest
from comparing import replay_in_core

K, M = 2**10, 2**20
LINUX = {"era": "6.15", "cache_refs": "folio", "fault_around": "folio"}  # 6.18


def run(text, scheme="mm_id", **options):
    return replay_in_core(text, scheme, **{**LINUX, **options})


def last(text, scheme="mm_id", **options):
    """(folios, {(process, mapping): row}) at the end."""
    seen = run(text + "\nobserve", scheme, **options).observations[-1]
    return seen["folios"], {(row["process"], row["mapping"]): row for row in seen["mappings"]}


def errors(text, scheme="mm_id", **options):
    """(errno, bytes done) of what did not do all."""
    return [(error, done) for error, done, _ in run(text, scheme, **options).operations if error]


def counts(folios, name="F"):
    """Map counts of a file's pages, as runs (first, last, count) by its base pages, neighbours apart by folio."""
    return [(first + folio["page"] * 512 + folio["first"], end + folio["page"] * 512 + folio["first"], count)
            for folio in folios if folio["file"] == name for first, end, count in folio["kpagecount"]]


ONE = "file F 2M 1 shmem\npopulate F 0 1\nmmap A v F 0 2M shared\n"
MINOR = ONE.replace("shared", "shared minor")


def test_a_part_of_a_pmd_drops_all_of_it():
    """a01: DONTNEED or mprotect of one page unmaps 512; mapped again where the VMA allows."""
    text = ONE + "touch A v 0\n"
    (folio,), rows = last(text)
    assert folio["kpagecount"] == [(0, 512, 1)] and rows["A", "v"]["levels"] == {"pte": 0, "pmd": 2 * M, "pud": 0}
    text += "dontneed A v 20K 4K\n"
    assert last(text)[1]["A", "v"]["rss"] == 0
    text += "touch A v 36K\nmprotect A v 32K 4K r\n"
    assert last(text)[1]["A", "v"]["rss"] == 0
    text += "touch A v 0\n"
    assert counts(last(text)[0]) == [(0, 8, 1), (8, 512, 0)], "PTEs of its own VMA, which ends at page 8"
    text += "munmap A v 2044K 4K\ntouch A v 64K\n"
    assert counts(last(text)[0]) == [(0, 8, 1), (8, 16, 0), (16, 32, 1), (32, 512, 0)]
    text += "dontneed A v 64K 4K\n"
    assert last(text)[1]["A", "v"]["exclusive"] == [(0, 8, 1), (17, 32, 1)]


def test_pieces_and_a_pmd_of_two_processes():
    """a02: counts are of mappings page by page; smaps goes by each, pagemap's bit of a PMD by its first page."""
    text = MINOR + """
        mmap B v F 0 2M shared
        continue A v 0 8K
        continue A v 28K 36K
        continue A v 2044K 4K
        touch B v 0
    """
    (folio,), rows = last(text)
    assert folio["kpagecount"] == [(0, 2, 2), (2, 7, 1), (7, 16, 2), (16, 511, 1), (511, 512, 2)]
    assert folio["state"] == {"entire": 1, "nr_pages_mapped": "0x80000c", "large": 13,
                              "slots": [[1, 12], [2, 1]], "shared_bit": True}
    a, b = rows["A", "v"], rows["B", "v"]
    assert (a["rss"], a["pss"], a["shared"], a["private"]) == (48 * K, 24 * K, 48 * K, 0)
    assert (b["rss"], b["pss"], b["shared"], b["private"]) == (2 * M, 2024 * K, 48 * K, 2000 * K)
    assert b["exclusive"] == [(0, 512, 0)] and a["exclusive"] == [(0, 2, 0), (7, 16, 0), (511, 512, 0)]
    rows = last(text + "dontneed B v 400K 4K\n")[1]
    assert rows["A", "v"]["private"] == 48 * K and rows["B", "v"]["rss"] == 0


def test_what_continue_answers():
    """a02, a04, f01: PTEs only; errno and bytes done."""
    text = MINOR + """
        mmap B v F 0 2M shared minor
        touch B v 0
        continue A v 0 4K
        continue A v 0 2M
        continue A v 16K 4K
        continue A v 4K 64K
        continue A v 5 4K
        continue A v 0 0
        continue A v 2044K 8K
        unregister A v
        continue A v 0 4K
        punch F 400K 4K
        register A v minor
        continue A v 400K 4K
        truncate F 1M
        continue A v 1M 4K
        touch A v 1200K
    """
    assert errors(text) == [("EEXIST", 0), ("EAGAIN", 12 * K), ("EINVAL", 0), ("EINVAL", 0), ("ENOENT", 0),
                            ("ENOENT", 0), ("EFAULT", 0), ("EINVAL", 0), ("EFAULT", 0)]
    under_a_pmd = MINOR.replace(" minor", "") + "touch A v 0\nregister A v minor\ncontinue A v 16K 4K\n"
    assert errors(under_a_pmd) == [("EEXIST", 0)]


def test_a_fault_on_a_registered_page_raises_an_event():
    """a11: the pages of a registered mapping come one by one; one that the file has not is allocated."""
    ran = run(MINOR + "file H 4K 512 shmem\nmmap A w H 0 2M shared minor\ntouch A v 148K\ncontinue A v 148K 4K\n"
              "touch A v 148K\ncontinue A w 0 4K\ntouch A w 0 write\nobserve")
    assert [row for row in ran.operations[5:10]] == [
        (None, 0, "minor"), (None, 4096, None), (None, 4096, None), ("EFAULT", 0, None), (None, 4096, None)]
    assert counts(ran.observations[0]["folios"]) == [(0, 37, 0), (37, 38, 1), (38, 512, 0)]
    small = ran.observations[0]["folios"][-1]
    assert (small["file"], small["pages"], small["kpagecount"], small["refcount"]) == ("H", 1, [(0, 1, 1)], 2)


def test_a_hole_splits_the_folio():
    """a04: everybody loses it; its halves, and the halves of the half with the hole, are folios from then on."""
    text = MINOR + "mmap B v F 0 2M shared\ncontinue A v 0 2M\ntouch B v 0\npunch F 400K 4K\n"
    folios, rows = last(text)
    assert {row["rss"] for row in rows.values()} == {0}
    assert [(f["first"], f["pages"]) for f in folios] == [
        (0, 64), (64, 32), (96, 4), (101, 1), (102, 2), (104, 8), (112, 16), (128, 128), (256, 256)]
    assert all(f["refcount"] == f["pages"] for f in folios)
    text += "touch B v 200K\n"
    assert last(text)[1]["B", "v"]["exclusive"] == [(0, 64, 1)], "the whole of a smaller folio"
    text += "touch B v 400K\n"
    folios, rows = last(text)
    assert rows["B", "v"]["exclusive"] == [(0, 64, 1), (96, 112, 1)]
    assert (100, 1) in [(f["first"], f["pages"]) for f in folios], "the hole is filled by a base page"
    text += "punch F 819300 69632\ncontinue A v 400K 4K\n"
    folios, rows = last(text)
    present = sorted((f["first"], f["first"] + f["pages"]) for f in folios)
    assert max(end for _, end in present if end <= 216) == 201
    assert min(first for first, _ in present if first > 200) == 217
    assert rows["A", "v"]["shared"] == 4 * K
    assert rows["B", "v"]["exclusive"] == [(0, 64, 1), (96, 100, 1), (100, 101, 0), (101, 112, 1)]
    folios, rows = last(text + "punch F 0 2M\n")
    assert folios == [] and {row["rss"] for row in rows.values()} == {0}


def test_a_pinned_folio_is_not_split():
    """Its bytes are zeroed, but the mapping that covered the hole is gone all the same."""
    folios, rows = last(ONE + "touch A v 0\npin F 0 2\npunch F 400K 4K\n")
    assert [(f["pages"], f["refcount"]) for f in folios] == [(512, 514)] and rows["A", "v"]["rss"] == 0


def test_collapse():
    """a08: PTEs become a PMD, holes are filled; the page table goes."""
    text = MINOR + "mmap B v F 0 2M shared minor\ncontinue A v 0 2M\ncontinue B v 0 12K\ncollapse A v 0 2M\n"
    (folio,), rows = last(text)
    assert folio["kpagecount"] == [(0, 3, 2), (3, 512, 1)] and folio["refcount"] == 512 + 4
    assert rows["A", "v"]["levels"]["pmd"] == 2 * M
    seen = run(text + "collapse B v 0 2M\nobserve").observations[0]
    assert seen["folios"][0]["kpagecount"] == [(0, 512, 2)]
    assert seen["processes"] == [{"process": p, "page_tables": {"pte": 0, "pmd": 4096, "pud": 4096}} for p in "AB"]


def test_collapse_puts_one_folio_in_place_of_small_ones():
    """Whoever had them mapped has to fault again; a pin on one of them is in the way."""
    text = ("file F 4K 512 shmem\npopulate F 0 100\nmmap A v F 0 2M shared\nmmap B v F 0 2M shared\n"
            "touch A v 0\ntouch B v 0\n")
    assert errors(text + "pin F 5 1\ncollapse A v 0 2M") == [("EAGAIN", 0)]
    folios, rows = last(text + "collapse A v 0 2M")
    assert [(f["pages"], f["kpagecount"]) for f in folios] == [(512, [(0, 512, 1)])]
    assert rows["A", "v"]["levels"]["pmd"] == 2 * M and rows["B", "v"]["rss"] == 0
    assert errors("file F 4K 512 shmem\nmmap A v F 0 2M shared\ncollapse A v 0 2M") == [("EINVAL", 0)]
    assert errors(ONE + "collapse A v 0 4K\ncollapse A v 8K 4K") == [("EINVAL", 0)]    # f01: nothing to do; no range


def test_one_process_maps_it_twice():
    """a16: a count is of mappings, not of processes."""
    text = MINOR + "mmap A w F 0 2M shared\ntouch A w 0\ncontinue A v 0 12K\n"
    (folio,), rows = last(text)
    assert folio["kpagecount"] == [(0, 3, 2), (3, 512, 1)] and not folio["maybe_shared"]
    assert rows["A", "v"]["shared"] == 12 * K
    assert last(text + "munmap A w 0 2M")[1]["A", "v"]["private"] == 12 * K


def test_fork_copies_nothing_of_a_shared_mapping():
    """a07; but with write-protect events the PTEs, not the PMD."""
    text = MINOR + "continue A v 0 256K\nfork A B\n"
    folios, rows = last(text)
    assert counts(folios) == [(0, 64, 1), (64, 512, 0)] and rows["B", "v"]["rss"] == 0
    assert counts(last(text + "touch B v 0\n")[0]) == [(0, 64, 2), (64, 512, 1)]
    watched = MINOR.replace("minor", "minor wp")
    assert counts(last(watched + "continue A v 0 256K\nfork A B\n")[0]) == [(0, 64, 2), (64, 512, 0)]
    assert counts(last(ONE + "touch A v 0\nregister A v wp\nfork A B\n")[0]) == [(0, 512, 1)]


@pytest.mark.parametrize("around, read, write", [
    ("none", [(65, 66, 1)], [(65, 66, 1)]),
    ("16", [(64, 80, 1)], [(64, 96, 1)]),
    ("folio", [(64, 96, 1)], [(64, 96, 1)])])
def test_fault_around(around, read, write):
    """A fault in a folio of 32 pages: what a read and what a write map."""
    text = ONE + "punch F 400K 4K\n"
    assert last(text + "touch A v 260K\n", fault_around=around)[1]["A", "v"]["exclusive"] == read
    assert last(text + "touch A v 260K write\n", fault_around=around)[1]["A", "v"]["exclusive"] == write


def test_fault_around_asks_for_addresses():
    """Seen on 6.18: whether a folio lies in one page table is a matter of addresses, wherever the mapping begins."""
    text = "file F 2M 3 shmem\npopulate F 0 3\npunch F 2M 4K\nmmap A v F 1132K 5012K shared\ntouch A v 2M\n"
    assert last(text)[1]["A", "v"]["rss"] == M
    assert last(text, fault_around="16")[1]["A", "v"]["rss"] == 64 * K


@pytest.mark.parametrize("geometry, file", [("arm64-16k", "32M"), ("arm64-64k", "512M")])
def test_fault_around_is_64k(geometry, file):
    """fault_around_bytes does not depend on the size of a base page; a fault around one page is none."""
    text = f"file F {file} 1 shmem\npopulate F 0 1\nmmap A v F 0 16M shared\ntouch A v 1M\nobserve\n"
    for around in ("16", "folio"):
        row = run(text, geometry=geometry, fault_around=around).observations[0]["mappings"][0]
        assert row["rss"] == 64 * K, around


def test_a_fault_allocates_what_fits():
    """A folio of the file's size if nothing of it is there and it fits the VMA; else a base page."""
    empty = "file F 2M 2 shmem\nmmap A v F 0 2M shared\nmmap A w F 4K 1M shared\n"
    assert [f["pages"] for f in last(empty + "touch A v 0\n")[0]] == [512]
    assert [f["pages"] for f in last(empty + "touch A w 0\n")[0]] == [1]
    assert [f["pages"] for f in last(empty + "fail 1\ntouch A v 0\n")[0]] == [1]
    assert errors(empty + "fail 1\ntouch A w 0\n") == [("ENOMEM", 0)]
    assert errors(ONE + "munmap A v 0 4K\nfail 1\ntouch A v 4K\n") == [("ENOMEM", 0)], "of the page table"


def test_page_tables():
    """a01, a02, a16: VmPTE counts tables of PTEs, PMDs and PUDs; munmap frees what no VMA needs."""
    def tables(text):
        (row, *_) = run(MINOR + text + "\nobserve").observations[0]["processes"]
        return sum(row["page_tables"].values()) // 4096

    assert tables("") == 0
    assert tables("continue A v 0 4K") == 3
    assert tables("continue A v 0 4K\ncontinue A v 4K 4K\ndontneed A v 0 1M\nmunmap A v 0 1M") == 3
    assert tables("continue A v 0 4K\nmunmap A v 0 1M\nmunmap A v 1M 1M") == 0
    assert tables("continue A v 0 4K\nmmap A w F 0 2M shared\ntouch A w 0\nmunmap A v 0 2M") == 2
    assert tables("continue A v 0 4K\ndontneed A v 0 2M") == 2, "an emptied table goes, from 6.14"
    assert tables("punch F 0 4K\ncontinue A v 0 4K") == 3, "made before the page is found missing"


def test_mremap():
    text = MINOR + "continue A v 0 2M\nmremap A v 1M 1M w\n"
    (folio,), rows = last(text)
    assert rows["A", "v"]["rss"] == rows["A", "w"]["rss"] == 1 * M and folio["kpagecount"] == [(0, 512, 1)]
    (folio,), rows = last(ONE + "touch A v 0\nmremap A v 0 2M w\n")
    assert rows["A", "w"]["levels"]["pmd"] == 2 * M and ("A", "v") not in rows
    resized = "mremap A v 6M\ntouch A v 4M\nmmap A w F 0 2M shared\nmremap A v 2G\nmremap A v 1M\ntouch A v 1M"
    assert errors(ONE + resized) == [("EFAULT", 0), ("ENOMEM", 0), ("EFAULT", 0)]


def test_what_is_refused():
    for statement in ("split A v 0 2M", "migrate A v 0 2M all", "hwpoison A v 0", "munmap A v 1 4K", "munmap A v 0 0",
                      "mmap A w F 0 2M shared hgm", "dontneed A v 1 4K"):
        assert errors(ONE + statement) == [("EINVAL", 0)], statement
    gap = "munmap A v 4K 4K\ndontneed A v 0 2M\nmprotect A v 0 2M r\ntouch A v 4K\ntouch A v 0 write"
    assert errors(ONE + gap) == [
        ("ENOMEM", 2 * M - 4 * K), ("ENOMEM", 4 * K), ("EFAULT", 0), ("EFAULT", 0)]


# One PMD and three PTEs of one folio, in two processes: mapcount, references of mappings, and each page's count.
SCHEMES = {
    "head_per_leaf": (4, 4, [(0, 512, 4)]), "hugetlb": (4, 4, [(0, 512, 4)]),
    "nr_pages_mapped": (4, 4, [(0, 3, 2), (3, 512, 1)]),
    "per_page_posted": (1, 4, [(0, 3, 2), (3, 512, 1)]), "double_map": (4, 4, [(0, 3, 2), (3, 512, 1)]),
    "subtree": (2, 4, [(0, 512, 2)]), "logical_scan": (2, 2, [(0, 512, 2)]), "logical_table": (2, 2, [(0, 512, 2)]),
    "logical_counter": (2, 2, [(0, 512, 2)]), "special_bit": (2, 2, [(0, 512, 2)]), "per_vma": (2, 4, [(0, 512, 2)]),
    "leaf_and_vma": (4, 4, [(0, 512, 4)]), "subtree_posted": (2, 4, [(0, 512, 2)]),
    "large_mapcount": (4, 4, [(0, 3, 2), (3, 512, 1)]), "mm_id": (4, 4, [(0, 3, 2), (3, 512, 1)]),
    "no_page_mapcount": (4, 4, [(0, 512, 1)]), "pmd_pud_mapcount": (4, 4, [(0, 512, 1)]),
    "total_mapped_pages": (4, 4, [(0, 512, 1)]),
    "rmap_id": (4, 4, [(0, 3, 2), (3, 512, 1)]), "percpu_counter": (4, 4, [(0, 512, 4)]),
    "sloppy_counter": (4, 4, [(0, 512, 4)]), "percpu_ref": (4, 1, [(0, 512, 4)]), "snzi": (2, 2, [(0, 512, 2)])}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_counts_these_folios(scheme):
    mapcount, references, pages = SCHEMES[scheme]
    text = MINOR + "mmap B v F 0 2M shared\ntouch B v 0\ncontinue A v 0 12K\n"
    (folio,), _ = last(text, scheme)
    assert (folio["mapcount"], folio["refcount"] - 512, folio["page_mapcount"]) == (mapcount, references, pages)
    (folio,), _ = last(text + "dontneed A v 0 8K\ndontneed A v 8K 4K\nexit B\n", scheme)
    if scheme in ("sloppy_counter", "percpu_ref"):  # what CPUs have left of it stays until it leaves the page cache
        assert folio["mapcount"] == 0
    elif scheme != "subtree_posted":  # it takes a whole zap to count down
        assert (folio["mapcount"], folio["refcount"]) == (0, 512)


def test_declarations():
    """Folios are base pages or what one PMD maps."""
    from hgmcore import Machine
    from hgmcore.trace import Trace, TraceError

    for line in ("file F 1G 1 shmem", "file F 8K 1 shmem", "mmap A v anon:1G 0 1G private"):
        with pytest.raises(TraceError, match="has no (shmem|anon) pages"):
            Trace.parse(f"hgmcore-trace 1\ngeometry arm64-4k\n{line}\n")
    machine = Machine("mm_id", geometry="arm64-64k")
    file = machine.file("F", "512M", 1, populate=True, kind="shmem")
    mapping = machine.process("A").mmap(file, minor=True)
    assert mapping.uffd_continue(0, "128K") == 128 * K and mapping.collapse(0, "512M") == 512 * M
    (row,) = machine.observe()["mappings"]
    assert row["levels"]["pmd"] == 512 * M
    with pytest.raises(ValueError, match="shmem pages"):
        machine.file("G", "128K", 1, kind="shmem")    # two base pages
    with pytest.raises(ValueError, match="kind"):
        machine.file("G", "512M", 1, kind="anon")
