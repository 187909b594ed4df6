"""Hugetlb where a kernel's rule or a scheme's own is easily got wrong: worked out by hand, in core and model."""
import pytest
from comparing import replay_in_core, replay_in_model
from model import SCHEMES

K, M = 2**10, 2**20
F = "file F 2M 1\npopulate F 0 1\nmmap A v F 0 2M shared minor hgm\n"
G = "file G 1G 1\npopulate G 0 1\nmmap A v G 0 1G shared minor hgm\n"
PER_LEAF = ["head_per_leaf", "per_page_posted", "nr_pages_mapped", "large_mapcount", "mm_id", "no_page_mapcount",
            "total_mapped_pages", "double_map"]
LOGICAL = ["logical_scan", "logical_table", "logical_counter", "special_bit"]


def seen(text, scheme, **options):
    """(results, first observation's folio or None and mapping, cost) of core and model, which agree."""
    core, model = (run(text + "observe\n", scheme, **options) for run in (replay_in_core, replay_in_model))
    assert core.operations == model.operations
    folio = next(iter(core.observations[-1]["folios"]), None)
    for key in ("refcount", "mapcount"):
        assert not folio or folio[key] == model.observations[-1]["folios"][0][key]
    for key in ("atomics", "table_frees", "leaf_installs", "entries_scanned"):
        assert core.cost[key] == model.cost[key], key
    return core.operations, folio, core.observations[-1]["mappings"][0], core.cost


EMPTY = F + "continue A v 0 4K\ndontneed A v 0 4K\ncollapse A v 0 2M\n"


@pytest.mark.parametrize("scheme", PER_LEAF + LOGICAL + ["subtree", "leaf_and_vma", "per_vma"])
def test_collapse_makes_a_leaf_of_an_empty_table(scheme):
    """__hugetlb_collapse() of HGM v2 asks whether the entry is a table, not what is in it."""
    results, folio, row, _ = seen(EMPTY, scheme)
    assert results[-2] == (None, 2 * M, None) and row["levels"]["pmd"] == 2 * M
    assert (folio["refcount"], folio["mapcount"]) == (2, 1)
    gone = seen(EMPTY + "munmap A v 0 2M\nmmap A w F 0 2M shared\n", scheme)[1]
    assert (gone["refcount"], gone["mapcount"]) == (1, 0)


@pytest.mark.parametrize("scheme", ["head_per_leaf", "logical_counter", "logical_scan", "special_bit"])
def test_collapse_of_a_part_whose_table_is_empty(scheme):
    """2M of a 1G page: the first leaf of the subtree where there is no other."""
    text = G + "continue A v 0 4K\ndontneed A v 0 4K\n"
    alone = seen(text + "collapse A v 0 2M\n", scheme)
    assert alone[2]["levels"] == {"pte": 0, "pmd": 2 * M, "pud": 0} and alone[1]["mapcount"] == 1
    beside = seen(text + "continue A v 4M 4K\ncollapse A v 0 2M\n", scheme)
    assert beside[2]["rss"] == 2 * M + 4 * K
    assert beside[1]["mapcount"] == (2 if scheme == "head_per_leaf" else 1)


def test_collapse_leaves_what_is_none_alone():
    """An entry that is none, and one that is a leaf."""
    assert seen(F + "collapse A v 0 2M\n", "mm_id")[2]["rss"] == 0
    results, folio, row, cost = seen(F + "continue A v 0 2M\ncollapse A v 0 2M\n", "mm_id")
    assert cost["leaf_installs"] == 1 and results[-2] == (None, 2 * M, None)


def test_collapse_without_a_page_clears_the_entry():
    """What a truncate left, an empty table, goes; logical_table gives the page back that it had counted."""
    text = F + "continue A v 0 4K\npunch F 0 2M\ncollapse A v 0 2M\n"
    for scheme in ("head_per_leaf", "logical_counter", "subtree", "logical_table"):
        _, folio, row, cost = seen(text, scheme)
        assert row["rss"] == 0 and cost["table_frees"] == 1 and folio is None, scheme


@pytest.mark.parametrize("scheme", PER_LEAF + LOGICAL)
def test_collapse_looks_the_page_up_once_for_each_table(scheme):
    """The look-up's reference becomes the leaf's; where pieces have none it is put back."""
    before = seen(F + "continue A v 0 8K\n", scheme)[3]["atomics"]["transient"]
    after = seen(F + "continue A v 0 8K\ncollapse A v 0 2M\n", scheme)[3]["atomics"]["transient"]
    assert after - before == (2 if scheme in LOGICAL else 0)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("frees", ["yes", "no"])
@pytest.mark.parametrize("end", ["punch F 0 2M", "truncate F 0"])
def test_punch_and_truncate_free_no_tables(scheme, frees, end):
    """They hold no mmap_lock, whatever the option says."""
    if scheme == "hugetlb":
        return
    text = F + f"continue A v 0 4K\n{end}\n"
    assert seen(text, scheme, zap_frees_tables=frees)[3]["table_frees"] == 0
    zap = seen(F + "continue A v 0 4K\ndontneed A v 0 2M\n", scheme, zap_frees_tables=frees)
    assert zap[3]["table_frees"] == (frees == "yes")


def test_subtree_is_uncounted_by_a_truncate():
    """Its table stays without its count: what is mapped there next is not counted."""
    text = F + "continue A v 0 4K\npin F 0\npunch F 0 2M\n"
    assert seen(text, "subtree")[1]["mapcount"] == 0
    again = seen(F + "continue A v 0 4K\npunch F 0 2M\npopulate F 0 1\ncontinue A v 0 4K\n", "subtree")[1]
    assert (again["mapcount"], again["truth"]["leaves"]) == (0, 1)


@pytest.mark.parametrize("pieces, migrates", [("0 8K", True), ("4K 8K", True)])
def test_posted_subtree_migrates_as_by_a_zap_and_a_fork(pieces, migrates):
    """The leaf of base page 0 takes the count along; without it the old page stays mapped by its count."""
    text = F + f"continue A v {pieces}\nmigrate A v 0 2M all\n"
    results, folio, _, _ = seen(text, "subtree_posted")
    if pieces.startswith("0"):
        assert results[-2] == (None, 2 * M, None) and folio["mapcount"] == 1
    else:
        assert results[-2][0] == "EAGAIN" and folio["mapcount"] == 1


def test_smaps_takes_failed_memory_for_shared():
    """smaps_hugetlb_range(): an entry that is not present is as good as shared; it is no Rss."""
    text = F + "continue A v 0 2M\nhwpoison A v 4K\n"
    for scheme in ("head_per_leaf", "logical_counter", "mm_id"):
        _, _, row, _ = seen(text, scheme)
        assert row["rss"] == 2 * M - 4 * K
        assert row["shared_hugetlb"] + row["private_hugetlb"] == 2 * M
    model = replay_in_model(text + "observe\n", "logical_counter").observations[0]["mappings"][0]
    assert model["shared_hugetlb"] == row["truth"]["shared"] == 4 * K


@pytest.mark.parametrize("scheme", ["head_per_leaf", "mm_id", "logical_counter"])
@pytest.mark.parametrize("batch", ["no", "yes"])
def test_a_split_pmd_adds_its_references_in_one_step(scheme, batch):
    """__split_huge_pmd_locked(): page_ref_add() of all pieces; the leaf's own goes with it."""
    text = "mmap A a anon:2M 0 2M private\ntouch A a 0 write\n"
    before, after = (seen(text + more, scheme, batch=batch)[3]["atomics"]["ref"]
                     for more in ("", "mprotect A a 0 4K r\n"))
    assert after - before == (0 if scheme == "logical_counter" else 2)


@pytest.mark.parametrize("scheme", ["logical_counter", "special_bit", "logical_scan", "head_per_leaf", "mm_id"])
def test_memory_failure_in_a_leaf_of_2m_in_a_page_of_1g(scheme):
    """The leaf is cut below the hstate-level entry: its children, and that the subtree is counted, come out right."""
    text = G + "continue A v 0 2M\nhwpoison A v 4K\n"
    leaves = 511
    mapped = seen(text, scheme)[1]
    assert mapped["truth"]["leaves"] == leaves
    assert mapped["mapcount"] == (1 if scheme in LOGICAL else leaves)
    text += "dontneed A v 0 4K\ndontneed A v 8K 1M\n"
    assert seen(text, scheme)[1]["mapcount"] == (1 if scheme in LOGICAL else leaves - 1 - 256)
    text += f"dontneed A v {M + 8 * K} {M - 8 * K}\n"
    gone = seen(text, scheme)[1]
    assert (gone["mapcount"], gone["truth"]["leaves"], gone["refcount"]) == (0, 0, 2), "cache, and memory failure"
    text += "punch G 0 1G\npopulate G 0 1\ncontinue A v 2M 4K\nobserve\n"
    held, again = replay_in_core(text, scheme).observations[0]["folios"]
    assert (held["mapcount"], held["refcount"]) == (0, 1)
    assert (again["mapcount"], again["refcount"]) == (1, 2)


def outcomes(text, **options):
    return [(error, done) for error, done, _ in replay_in_core(text, "mm_id", **options).operations]


HUNDRED = "file F 1G 102400\nmmap A v F 0 100T shared\nmmap A w F 0 100T shared\ntouch A v 0\ntouch A w 0\n"


def test_address_spaces_end_where_the_hardware_says():
    """128T of user addresses with 4 levels, 64P with 5."""
    assert outcomes(HUNDRED)[1:] == [(None, 100 << 40), ("ENOMEM", 0), (None, 4096), ("EFAULT", 0)]
    assert outcomes(HUNDRED, geometry="x86-64-5level")[1:] == [(None, 100 << 40)] * 2 + [(None, 4096)] * 2


@pytest.mark.parametrize("length", [(1 << 47) + 4096, 1 << 48, 1 << 57, (1 << 63) - 4096])
def test_lengths_beyond_the_address_space(length):
    """mmap finds no room; other calls stop at what is mapped."""
    anon = f"mmap A v anon:2M 0 {length} private\n"
    assert outcomes(anon)[0] == ("ENOMEM", 0)
    for kind in ("anon:2M 0 4M private", "F 0 4M shared"):
        text = f"file F 2M 2 shmem\nmmap A v {kind}\nmmap A w {kind}\ntouch A w 0 write\n"
        assert outcomes(text + f"munmap A v 0 {length}\n")[-1] == (None, 4 * M)
        assert outcomes(text + f"mprotect A v 0 {length} r\n")[-1][0] == "ENOMEM"
        assert outcomes(text + f"dontneed A v 0 {length}\n")[-1] == ("ENOMEM", 4 * M)
        assert outcomes(text + f"mremap A v {length}\n")[-1] == ("ENOMEM", 0)
        rows = replay_in_core(text + f"munmap A v 0 {length}\nobserve\n", "mm_id").observations[0]["mappings"]
        assert [(row["mapping"], row["rss"]) for row in rows] == [("w", 2 * M)]


@pytest.mark.parametrize("scheme", ["mm_id", "head_per_leaf", "logical_counter"])
def test_counts_at_a_border_of_65536_frames(scheme):
    """The folios before and behind frame 65,536, and runs of leaves that go across it."""
    text = "file F 2M 127\npopulate F 0 127\nfile S 2M 3 shmem\npopulate S 0 3\n"
    text += "mmap A s S 0 6M shared minor\nmmap B s S 0 6M shared\ncontinue A s 0 6M\ntouch B s 2M\n"
    options = {"batch": "yes", "fault_around": "folio"}
    core, model = (run(text + "observe\n", scheme, **options) for run in (replay_in_core, replay_in_model))
    for seen_by in (core, model):
        assert [folio["truth"]["page_mapcount"] for folio in seen_by.observations[0]["folios"][127:]] == [
            [(0, 512, 1)], [(0, 512, 2)], [(0, 512, 1)]]
    assert [f["mapcount"] for f in core.observations[0]["folios"]] == [
        f["mapcount"] for f in model.observations[0]["folios"]]
