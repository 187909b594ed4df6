"""Private mappings: they have copies of pages; an operation on a copy leaves the page cache's page as it is."""
import pytest
from worked import ALL, HGM

START = """file F 2M 1; populate F 0 1; mmap A p F 0 2M private; mmap B v F 0 2M shared minor hgm
    continue B v 0 4K; continue B v 28K 8K; touch A p 0 write; observe"""
UNDONE = "exit A; exit B; observe"


def run(replay, scheme, *parts, **options):
    return replay(";".join(parts).replace("\n", ";").replace(";", "\n"), scheme, **options)


def by_cache(observation):
    """(the page cache's page, the copy), with None for a page that is gone."""
    pages = {folio.get("in_page_cache", True): folio for folio in observation["folios"]}
    return pages.get(True), pages.get(False)


@pytest.mark.parametrize("scheme", HGM.split())
def test_a_copy_migrates_alone(replay, scheme):
    ran = run(replay, scheme, START, "migrate A p 0 2M all; observe", UNDONE)
    before, after, end = ran.observations
    assert ran.operations[-5][:2] == (None, 2 << 20)
    assert before["folios"] == after["folios"]
    (left,) = end["folios"]
    assert (left["refcount"], left["truth"]["leaves"]) == (1, 0)
    assert ran.counters == {"underflows": 0, "overflows": 0}


@pytest.mark.parametrize("scheme", HGM.split())
def test_memory_failure_of_a_copy_is_nobody_elses(replay, scheme):
    ran = run(replay, scheme, START, "hwpoison A p 28K; observe", UNDONE)
    before, after, end = (by_cache(seen) for seen in ran.observations)
    assert before[0] == after[0] and before[1]["truth"]["leaves"] == 1
    assert (after[1]["refcount"], after[1]["truth"]["leaves"]) == (1, 0)
    assert [folio["refcount"] for folio in end] == [1, 1]
    assert ran.counters == {"underflows": 0, "overflows": 0}


@pytest.mark.parametrize("access", ["", " write"])
@pytest.mark.parametrize("scheme", ["head_per_leaf", "hugetlb", "logical_counter"])
def test_what_failed_is_not_copied(replay, scheme, access):
    """A private mapping maps whole huge pages: one bad base page keeps it from all."""
    text = "file F 2M 1; populate F 0 1; mmap A p F 0 2M private; touch A p 0; hwpoison A p 28K"
    ran = run(replay, scheme, text, f"touch A p 0{access}; observe")
    assert ran.operations[-2][0] == "EHWPOISON"
    assert len(ran.observations[0]["folios"]) == 1
    assert ran.cost["atomics"]["transient"] == 2


@pytest.mark.parametrize("scheme", ALL.split())
def test_a_write_looks_the_page_up_that_it_copies(replay, scheme):
    text = "file F 2M 2; populate F 0 1; mmap A p F 0 4M private"
    assert run(replay, scheme, text, "touch A p 0 write").cost["atomics"]["transient"] == 2
    assert run(replay, scheme, text, "touch A p 2M write").cost["atomics"]["transient"] == 0
    assert run(replay, scheme, text, "touch A p 0; touch A p 0 write").cost["atomics"]["transient"] == 0
