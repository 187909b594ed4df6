"""Contiguous groups are one leaf; huge pages of a contiguous size have no table of their own."""

import pytest

import hgmcore as hgm
from hgmcore.geometry import GEOMETRIES, TINY

SIZES = [(name, size) for name, geometry in GEOMETRIES.items() if name not in TINY for size in geometry.hugetlb_sizes
         if size <= 1 << 30]
PIECES = [name for name in hgm.schemes.NAMES if name != "hugetlb"]


def machine(scheme, geometry, size):
    m = hgm.Machine(scheme, geometry)
    f = m.file("F", size, 1, populate=True)
    v = m.process("A").mmap(f, "v", minor=True, hgm=True)
    return m, f, v


def truth(m):
    row = m.observe()["folios"][0]
    return row["truth"]["leaves"], row["truth"]["pages_mapped"]


@pytest.mark.parametrize(("geometry", "leaves"), [
    ("arm64-4k", {"64K": 1, "128K": 2, "2M": 1, "32M": 1, "68K": 2, "34M": 2}),
    ("arm64-16k", {"16K": 1, "2M": 1, "4M": 2, "32M": 1, "34M": 2}),
    ("arm64-64k", {"64K": 1, "2M": 1, "512M": 1}),
])
def test_a_continue_takes_the_largest_leaves_that_fit(geometry, leaves):
    for length, expected in leaves.items():
        m, _, v = machine("head_per_leaf", geometry, "1G" if geometry != "arm64-64k" else "16G")
        assert v.uffd_continue(0, length) == hgm.sizes.parse_size(length)
        assert truth(m)[0] == expected, length


@pytest.mark.parametrize("scheme", PIECES)
@pytest.mark.parametrize(("geometry", "size"), SIZES)
def test_pieces_collapse_failure_and_back_to_nothing(scheme, geometry, size):
    base = GEOMETRIES[geometry].base_page
    m, f, v = machine(scheme, geometry, size)
    for page in (0, 1, 3):
        v.uffd_continue(page * base, base)
    assert truth(m) == (3, 3)
    v.dontneed(base, base)
    assert truth(m) == (2, 2)
    v.collapse()
    assert truth(m) == ((2, 2) if scheme == "subtree_posted" else (1, size // base))
    v.dontneed()
    assert truth(m) == (0, 0)
    v.munmap()
    row, cost = m.observe()["folios"][0], m.cost()
    if scheme not in ("subtree_posted", "sloppy_counter", "percpu_ref"):    # of the last two, spares and slots stay
        assert (row["refcount"], row["mapcount"], row["mapped"]) == (1, 0, False)
    if scheme != "subtree_posted":
        assert (cost["underflows"], cost["leaf_installs"]) == (0, cost["leaf_removes"])
    assert cost["table_allocs"] == cost["table_frees"]


@pytest.mark.parametrize(("geometry", "size", "pieces"), [
    ("x86-64", "2M", 511), ("x86-64", "1G", 1022), ("arm64-4k", "64K", 15), ("arm64-4k", "2M", 31 + 15),
    ("arm64-4k", "32M", 15 + 31 + 15), ("arm64-4k", "1G", 31 + 15 + 31 + 15), ("arm64-16k", "2M", 127),
    ("arm64-16k", "32M", 15 + 127), ("arm64-64k", "512M", 255 + 31)])
@pytest.mark.parametrize("bad", ["12K", "2M", "30M", "last"])
def test_memory_failure_cuts_by_the_largest_legal_leaves(geometry, size, pieces, bad):
    """The bad page may be anywhere, also directly behind a large leaf."""
    m, f, v = machine("head_per_leaf", geometry, size)
    v.uffd_continue(0, size)
    v.hwpoison(f.page_size - 1 if bad == "last" else hgm.sizes.parse_size(bad) % f.page_size)
    pages = f.page_size // GEOMETRIES[geometry].base_page
    assert truth(m) == (pieces, pages - 1)
    assert m.observe()["folios"][0]["refcount"] == 1 + pieces + 1


@pytest.mark.parametrize("lookup_first", ["yes", "no"])
@pytest.mark.parametrize("scheme", ["subtree", "logical_table"])
def test_a_contiguous_page_is_counted_whatever_an_emptied_one_left(replay, scheme, lookup_first):
    """The first piece counts the group, the last one uncounts it; the empty table that stays has no effect."""
    text = """file F 32M 1; populate F 0 1; mmap A v F 0 32M shared minor hgm; continue A v 0 4K; observe
        dontneed A v 0 4K; observe; continue A v 4K 4K; observe; munmap A v 0 32M; observe"""
    ran = replay(text.replace(";", "\n"), scheme, geometry="arm64-4k", lookup_first=lookup_first)
    folios = [seen["folios"][0] for seen in ran.observations]
    assert [(f["refcount"], f["mapcount"]) for f in folios] == [(2, 1), (1, 0), (2, 1), (1, 0)]
    assert (ran.cost["atomics"]["map"], ran.cost["atomics"]["transient"]) == (4, 0)
    assert (ran.cost["table_allocs"], ran.cost["table_frees"], ran.counters["underflows"]) == (1, 1, 0)


@pytest.mark.parametrize("size", ["64K", "2M"])
def test_a_run_of_base_pages_is_one_step_in_fork_and_zap(replay, size):
    text = f"""file F {size} 1; populate F 0 1; mmap A v F 0 {size} shared minor wp hgm
        continue A v 4K 4K; continue A v 8K 4K; continue A v 12K 4K; fork A B; dontneed A v 0 {size}"""
    cost = replay(text.replace(";", "\n"), "head_per_leaf", geometry="arm64-4k", batch="yes").cost
    assert (cost["leaf_installs"], cost["leaf_removes"]) == (6, 3)
    assert (cost["atomics"]["ref"], cost["atomics"]["map"]) == (5, 5)


@pytest.mark.parametrize("scheme", ["logical_counter", "logical_scan", "special_bit"])
@pytest.mark.parametrize("geometry, huge, leaf", [("arm64-4k", "2M", 64 << 10), ("arm64-16k", "32M", 2 << 20),
                                                  ("arm64-64k", "512M", 2 << 20), ("arm64-4k", "1G", 32 << 20)])
def test_what_collapse_makes_a_group_counts_as_one(scheme, geometry, huge, leaf):
    """When a group is zapped no count of its former leaves is left."""
    m, _, v = machine(scheme, geometry, huge)
    below = max(size for size in m.geometry.leaf_sizes if size < leaf)
    for offset in range(0, leaf, below):
        v.uffd_continue(offset, below)
    counts = [truth(m)[0]]
    for step in v.collapse, v.dontneed:
        step(0, leaf)
        counts += [m.observe()["folios"][0][key] for key in ("mapcount", "refcount")]
    assert counts == [leaf // below, 1, 2, 0, 1]


@pytest.mark.parametrize(("geometry", "size"), [("arm64-4k", "64K"), ("arm64-4k", "32M"), ("arm64-16k", "1G")])
def test_a_fault_beside_a_piece_of_a_contiguous_page_fills_one_entry(geometry, size):
    m, f, v = machine("head_per_leaf", geometry, size)
    entry = f.page_size // GEOMETRIES[geometry].leaf(f.page_size).entries
    v.uffd_continue(0, entry)
    v.unregister()
    v.touch(2 * entry)
    assert truth(m) == (2, 2 * entry // GEOMETRIES[geometry].base_page)
