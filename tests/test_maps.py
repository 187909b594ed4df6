"""After how many mappings a count overflows: the numbers of the discussion, and the overflow itself just there."""

import pytest
from worked import cells

import hgmcore as hgm
from hgmcore import Trace, schemes
from hgmcore.analysis.maps import LARGEST, maps_of

HEADER = Trace.parse("hgmcore-trace 1\nfile F 2M 1\n").header

# Rules 4.0: one reference for each leaf of 4K, 2^31 / 512 and 2^31 / 262,144 mappings; one for each mapping, of which
# that of the page cache takes one away.
TABLE = """
head_per_leaf per_page_posted nr_pages_mapped subtree_posted subtree double_map     | 4194304    8192
large_mapcount mm_id no_page_mapcount total_mapped_pages leaf_and_vma per_vma       | 4194304    8192
pmd_pud_mapcount rmap_id percpu_counter sloppy_counter percpu_ref snzi              | 4194304    8192
logical_scan logical_table logical_counter special_bit hugetlb                      | 2147483647 2147483647
"""
ROWS = [(scheme, *map(int, row.split())) for names, row in cells(TABLE) for scheme in names.split()]


def test_the_table_has_every_scheme():
    assert sorted(row[0] for row in ROWS) == sorted(schemes.NAMES)


@pytest.mark.parametrize("scheme, of_2m, of_1g", ROWS)
def test_the_numbers_of_the_discussion(scheme, of_2m, of_1g):
    assert maps_of(schemes.load(scheme), HEADER) == {"2M": of_2m, "1G": of_1g}


def test_references_of_the_page_cache_take_one_mapping_away():
    assert maps_of(schemes.load("head_per_leaf"), HEADER, cache_refs="folio") == {"2M": 4194303, "1G": 8191}


def test_sizes_are_those_of_the_geometry_and_the_kind():
    def sizes(line, scheme="no_page_mapcount"):
        return list(maps_of(schemes.load(scheme), Trace.parse(f"hgmcore-trace 1\n{line}\n").header))
    assert sizes("geometry arm64-64k\nfile F 2M 1") == ["512M"]
    assert sizes("file F 2M 1 shmem") == ["2M"]


@pytest.mark.parametrize("scheme, limit", [row[:2] for row in ROWS
                                           if row[0] not in ("hugetlb", "percpu_ref", "snzi")])    # no reference a leaf
def test_the_count_overflows_with_that_mapping_and_not_before(scheme, limit):
    """Pins stand for the references of all mappings but the last three."""
    machine = hgm.Machine(scheme, policy="base_only")
    file, process = machine.file("F", "2M", 1, populate=True), machine.process("A")
    each = 512 if limit < LARGEST else 1
    file.pin(0, each * (limit - 3))
    seen = []
    for nth in range(3):
        process.mmap(file, f"v{nth}", minor=True, hgm=True).uffd_continue(0, "2M")
        seen.append(machine.core.cost()["overflows"] > 0)
    assert seen == [False, False, True]
