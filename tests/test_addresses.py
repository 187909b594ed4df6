"""Where mappings lie: at the address that a trace says, or that Linux would choose; and what mremap moves there."""

import pytest

import hgmcore as hgm
from hgmcore import TraceError
from hgmcore.trace import Trace

K, M, G = 2**10, 2**20, 2**30
LINUX = {"era": "6.15", "fault_around": "folio", "cache_refs": "folio"}


def machine(*lines, scheme="mm_id", **options):
    """A machine after a trace of which nothing is refused."""
    m = hgm.Machine(scheme, **{**LINUX, **options})
    m.run(["hgmcore-trace 1", *lines])
    return m


def levels(m):
    """Bytes that PTEs and that PMDs map, of the mappings where something is."""
    rows = [row for row in m.observe()["mappings"] if row["rss"]]
    return {row["mapping"]: (row["levels"]["pte"], row["levels"]["pmd"]) for row in rows}


def errors(m):
    return {int(row["index"]): m.error_name(row) for row in m.results() if row["errno"]}


def addresses(m):
    return {mapping.name: int(address) for mapping, address in zip(m.header.mappings, m.core.mappings()[:, 2])}


def test_a_file_that_disagrees_with_the_address_is_mapped_by_ptes():
    m = machine("file F 2M 2 shmem", "populate F 0 2", "mmap A v F 0 4M shared at 0x10000200000",
                "mmap A w F 0 4M shared at 0x20000100000", "touch A v 0", "touch A w 0", "touch A w 1M")
    assert levels(m) == {"v": (0, 2 * M), "w": (128 * K, 0)}  # no folio of w lies in one table: 64K around each


def test_anonymous_memory_is_aligned_by_address():
    m = machine("mmap A z anon:2M 0 4M private at 0x10000100000", "touch A z 0 write", "touch A z 1M write")
    assert levels(m) == {"z": (4 * K, 2 * M)}


def test_what_is_there_refuses_another():
    m = machine("file F 2M 2 shmem", "mmap A v F 0 4M shared at 0x10000000000",
                "mmap A w F 0 4K shared at 0x10000300000", "mmap A x F 0 4K shared at 0x10000400001",
                "mmap A y F 0 4K shared at 0x7fffffffffff000", "munmap A v 3M 1M",
                "mmap A w F 0 4K shared at 0x10000300000", "touch A w 0 write", "touch A v 0 write")
    assert errors(m) == {2: "EEXIST", 3: "EINVAL", 4: "ENOMEM"}
    assert levels(m) == {"v": (4 * K, 0), "w": (4 * K, 0)}  # where w has its page, there is no room for a huge one


def test_a_name_has_one_address():
    begin = "hgmcore-trace 1\nfile F 2M 1\nmmap A v F 0 2M shared at"
    with pytest.raises(TraceError, match="mapping 'v' was given another address before, 0x10000000000"):
        Trace.parse(f"{begin} 0x10000000000\nmunmap A v 0 2M\nmmap A v F 0 2M shared at 0x20000000000\n")
    with pytest.raises(TraceError, match="ADDRESS is missing behind 'at'"):
        Trace.parse(f"{begin}\n")


def test_both_forms_keep_addresses(tmp_path):
    text = ("hgmcore-trace 1\nfile F 2M 1\nmmap A v F 0 2M shared minor at 0x10000000000\n"
            "mremap A v 0 2M w 4M at 0x20000000000 keep\nmremap A v 4M move\n")
    trace = Trace.parse(text)
    trace.save(tmp_path / "t.parquet")
    assert Trace.load(tmp_path / "t.parquet").to_text() == trace.to_text() == text


def test_hugetlb_shares_no_table_where_addresses_disagree():
    def shared(at):
        m = machine("file F 2M 512", "populate F 0 1", "mmap A v F 0 1G shared", f"mmap B v F 0 1G shared {at}",
                    "touch A v 0", "touch B v 0", scheme="hugetlb")
        return m.observe()["folios"][0]["mapcount"]

    assert (shared(""), shared("at 0x40000000"), shared("at 0x40200000")) == (1, 1, 2)


def test_mremap_of_two_lengths():
    begin = ["mmap A v anon:2M 0 4M private", "touch A v 0 write", "touch A v 2M write"]
    m = machine(*begin, "mremap A v 0 4M short 2M")
    assert levels(m) == {"short": (0, 2 * M)}
    m = machine(*begin, "mremap A v 0 2M long 4M", "touch A long 2M write")
    assert levels(m) == {"v": (0, 2 * M), "long": (0, 4 * M)}
    m = machine("file F 2M 1 shmem", "mmap A v F 0 2M shared", "touch A v 0 write", "mremap A v 0 0 again 2M",
                "touch A again 0", "mmap A p F 0 2M private", "mremap A p 0 0 other 2M")
    assert levels(m)["again"] == levels(m)["v"] == (0, 2 * M) and errors(m) == {6: "EINVAL"}


def test_mremap_to_an_address():
    m = machine("mmap A v anon:2M 0 4M private at 0x10000000000", "mmap A w anon:2M 0 4M private at 0x20000000000",
                "touch A v 0 write", "touch A w 0 write", "mremap A v 0 2M x at 0x20000000000",
                "mremap A v 2M 2M y at 0x10000300000", "mremap A v 2M 2M z at 0x30000100000")
    assert errors(m) == {5: "EINVAL"}  # over itself
    assert levels(m) == {"x": (0, 2 * M)}
    m = machine("mmap A v anon:2M 0 2M private", "touch A v 0 write", "mremap A v 0 2M x at 0x30000100000")
    assert levels(m) == {"x": (2 * M, 0)}  # a leaf cannot stand across two entries


def test_mremap_that_keeps_the_vma():
    m = machine("mmap A v anon:2M 0 2M private", "touch A v 0 write", "mremap A v 0 2M w keep", "touch A v 0 write",
                "file G 2M 1", "mmap A g G 0 2M shared", "mremap A g 0 2M h keep", "mremap A v 0 2M x 4M keep")
    assert levels(m) == {"v": (0, 2 * M), "w": (0, 2 * M)}
    assert errors(m) == {6: "EINVAL", 7: "EINVAL"}


def test_mremap_that_may_move():
    begin = ["mmap A v anon:2M 0 2M private at 0x10000000000", "mmap A w anon:2M 0 2M private at 0x10000200000",
             "touch A v 0 write"]
    assert errors(machine(*begin, "mremap A v 4M")) == {3: "ENOMEM"}
    m = machine(*begin, "mremap A v 4M move", "touch A v 2M write", "mremap A w 4M move")
    assert errors(m) == {} and levels(m)["v"] == (0, 4 * M)
    assert addresses(m)["v"] != 0x10000000000 and addresses(m)["w"] == 0x10000200000


def test_linux_chooses_from_the_top():
    m = machine("file F 2M 4 shmem", "file G 2M 4", "mmap A a anon:4K 0 12K private", "mmap A b anon:2M 0 4M private",
                "mmap A c F 2M 2M shared", "mmap A d F 4K 4M shared", "mmap A g G 0 2M shared",
                "mmap A e anon:4K 0 4K private", addresses="kernel")
    top = 0x7FFFF7FFF000
    place = addresses(m)
    assert place["a"] == top - 12 * K
    assert place["b"] == (place["a"] - 4 * M) & -2 * M and place["c"] == place["b"] - 2 * M
    assert place["d"] % (2 * M) == 4 * K and place["d"] + 4 * M <= place["c"] and place["g"] % (2 * M) == 0
    assert place["e"] == place["a"] - 4 * K  # the highest gap that is large enough


def test_private_mappings_of_shmem():
    m = machine("file F 2M 1 shmem", "populate F 0 1", "mmap A p F 0 2M private", "mmap A s F 0 2M shared",
                "touch A p 0", "touch A s 0", "touch A p 4K write", "fork A B", "touch B p 4K")
    assert levels(m) == {"s": (0, 2 * M), "p": (4 * K, 0)}  # p of A and of B: the write took the PMD leaf of p away
    folio, copy = m.observe()["folios"]
    assert (folio["mapcount"], folio["refcount"]) == (1, 512 + 1)
    assert (copy["pages"], copy["mapcount"], copy["in_page_cache"]) == (1, 2, False)


@pytest.mark.parametrize("end, left", [("punch F 0 2M", 4 * K), ("truncate F 0", 0)])
def test_copies_outlive_a_hole_and_no_truncate(end, left):
    m = machine("file F 2M 1 shmem", "populate F 0 1", "mmap A p F 0 2M private", "touch A p 4K write", "touch A p 8K",
                end)
    assert levels(m) == ({"p": (left, 0)} if left else {})


def test_a_fork_makes_the_upper_tables_that_the_parent_has():
    m = machine("mmap A v anon:2M 0 2M private", "touch A v 0", "dontneed A v 0 2M", "mremap A v 0 2M w keep",
                "fork A B")
    assert m.observe()["processes"][1]["page_tables"] == {"pte": 0, "pmd": 0, "pud": 4 * K}
