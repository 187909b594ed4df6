"""The Python API: a call for an operation, arrays in one crossing, views of memory, errors with names."""

import gc
import weakref

import numpy as np
import pytest

import hgmcore as hgm
from hgmcore.core.machine import PAGE
from hgmcore.trace import Header
from hgmcore.trace.names import Mapping as MappingName
from hgmcore.trace.statements import CODES, NO_ARG, OPERATION


@pytest.fixture
def mapped():
    m = hgm.Machine("head_per_leaf")
    f = m.file("F", page_size="2M", pages=2, populate=True)
    v = m.process("A").mmap(f, name="v", minor=True)
    v.split()
    return m, f, v


def test_a_refusal_is_an_exception_with_its_number(mapped):
    _, _, v = mapped
    assert v.uffd_continue(0, "4K") == 4096
    with pytest.raises(hgm.OperationError) as refused:
        v.uffd_continue(0)
    assert (refused.value.errno, refused.value.error, refused.value.done) == (17, "EEXIST", 0)
    with pytest.raises(hgm.OperationError) as refused:
        v.uffd_continue("2044K", "8K")    # two folios, and the second is there: both fit
        v.uffd_continue(4096 * 9, 4096 * 3)
        v.uffd_continue(4096 * 8, 8192)
    assert (refused.value.error, refused.value.done) == ("EAGAIN", 4096)
    v.hwpoison(0)
    with pytest.raises(hgm.OperationError, match="EHWPOISON"):
        v.hwpoison(0)


def test_an_array_of_offsets_gives_arrays(mapped):
    m, _, v = mapped
    v.uffd_continue(8192)
    out = v.uffd_continue(np.array([0, 4096, 8192, 100]))
    assert out["done"].tolist() == [4096, 4096, 0, 0]
    assert out["errno"].tolist() == [0, 0, 17, 22]
    assert m.observe()["folios"][0]["mapcount"] == 3


def test_every_operation_has_a_method(mapped):
    m, f, v = mapped
    v.uffd_continue(0, "2M")
    v.unregister()
    assert v.touch("2M") == 4096
    assert v.migrate(everything=True) == 4 << 20
    assert v.mprotect(0, "2M", "r") == 2 << 20
    with pytest.raises(hgm.OperationError, match="EFAULT"):
        v.touch(0, write=True)
    f.pin(0, 3)
    assert m.observe()["folios"][0]["pins"] == 3
    f.unpin(0, 3)
    v.register(wp=True)
    child = m.process("X")
    child.exit()
    b = hgm.api.Process(m, v.machine.header.mappings[v.number].process).fork("B")
    assert b.mapping("v").dontneed() == 4 << 20
    w = v.mremap("2M", to="w")
    assert w.mremap("2M") == 2 << 20
    assert f.punch(0, "2M") == 2 << 20
    f.truncate(0)
    m.fail(1)
    with pytest.raises(hgm.OperationError, match="ENOMEM"):
        f.populate(0, 1)
    b.exit()
    with pytest.raises(hgm.OperationError, match="ESRCH"):
        b.exit()
    assert v.munmap() == 2 << 20
    assert m.observe()["folios"] == []


def test_struct_pages_and_page_tables_are_views(mapped):
    m, f, v = mapped
    pages, root = f.struct_pages(0), m.page_table(hgm.api.Process(m, 0))
    assert pages.dtype == PAGE and pages.shape == (512,) and root.shape == (512,)
    before = int(pages[1]["_entire_mapcount"])
    v.uffd_continue(0, "12K")
    assert (before, int(pages[1]["_entire_mapcount"]), int(pages[0]["_refcount"])) == (0, 3, 4)
    entry, table = int(root[root != 0][0]), root
    while entry & 0x80 == 0:
        table = m.page_table(hgm.api.Process(m, 0), entry >> 12)
        entry = int(table[table != 0][0])
    assert np.count_nonzero(table) == 3
    with pytest.raises(IndexError, match="no page table"):
        m.page_table(hgm.api.Process(m, 0), 12345)


def test_a_view_keeps_its_memory_and_cannot_be_written():
    m = hgm.Machine("head_per_leaf")
    f = m.file("F", "2M", 1, populate=True)
    a = m.process("A")
    v = a.mmap(f, minor=True, hgm=True)
    pages, root, core = f.struct_pages(0), m.page_table(a), weakref.ref(m.core)
    v.uffd_continue(0, "12K")
    del m, f, a, v
    gc.collect()
    assert (int(pages[0]["_refcount"]), np.count_nonzero(root)) == (4, 1)
    for view in (pages, root):
        with pytest.raises(ValueError, match="read-only"):
            view[0] = view[1]
    del pages, root, view
    gc.collect()
    assert core() is None


def test_struct_pages_of_shmem_are_found_by_huge_page():
    m = hgm.Machine("mm_id")
    f = m.file("F", "2M", 2, kind="shmem")
    with pytest.raises(ValueError, match="not in the page cache"):
        f.struct_pages(1)
    f.populate(1, 1)
    assert len(f.struct_pages(1)) == 512


@pytest.mark.parametrize(("given", "reason"), [
    ({"scheme": "per_leaf"}, "unknown scheme 'per_leaf'"),
    ({"scheme": "subtree", "geometry": "vax"}, "unknown geometry"),
    ({"scheme": "subtree", "transient": "maybe"}, "is not one of"),
    ({"scheme": "subtree", "colour": 1}, "unknown option"),
    ({"scheme": "mm_id", "hvo": "on"}, "hvo=on takes away")])
def test_what_a_machine_cannot_be(given, reason):
    with pytest.raises(ValueError, match=reason):
        hgm.Machine(**given)


def test_hvo_is_reported_where_the_scheme_can_live_with_it():
    m = hgm.Machine("total_mapped_pages", hvo="on")
    m.file("F", "2M", 1, populate=True)
    assert m.observe()["folios"][0]["hvo"] is True


def test_records_out_of_range_do_not_reach_the_core(mapped):
    m, _, _ = mapped
    for record in ((0, 4096, 99, 0, 6, 0), (0, 0, 9, 0, 14, 0), (0, 1, 7, 0, 1, 0), (0, 4096, 0, 9, 2, 1),
                   (0, 0, 0, 0, 77, 0), (5, 0, 0, 0, 19, 0), (0, 9, 0, 0, 1, 0)):
        with pytest.raises(ValueError, match="record .* not declared"):
            m.run(np.array([record], OPERATION))


@pytest.mark.parametrize("op", ["continue", "touch", "dontneed", "munmap", "mprotect", "mremap", "migrate", "collapse",
                                "split", "hwpoison", "register", "unregister", "exit"])
def test_a_mapping_that_never_was_in_a_machine_without_files(op):
    m = hgm.Machine("logical_counter")
    m.declare(Header(files=[], processes=["A"], mappings=[MappingName(0, "v")]))
    record = np.zeros(1, OPERATION)
    record["op"], record["length"], record["arg"] = CODES[op], 4096, NO_ARG if op == "mremap" else 0
    m.run(record)
    assert m.results()["done"].tolist() == [0]
    assert (m.results()["errno"] > 0).all() == (op not in ("munmap", "exit"))    # to unmap nothing is no error


def test_a_machine_takes_only_its_own_objects_and_new_words(mapped):
    m, f, v = mapped
    with pytest.raises(ValueError, match="another machine"):
        hgm.Machine("subtree").process("A").mmap(f)
    with pytest.raises(ValueError, match="taken"):
        m.process("A")
    with pytest.raises(ValueError, match="no name"):
        m.file("a b")
    with pytest.raises(TypeError):
        m.run(np.zeros(3))
    with pytest.raises(TypeError):
        v.uffd_continue(1.5)
    with pytest.raises(ValueError, match="integers"):
        v.uffd_continue(np.array([-4096, 0]))


def test_a_private_mapping_has_no_pieces():
    m = hgm.Machine("head_per_leaf")
    f = m.file("F", "2M", 1, populate=True)
    with pytest.raises(hgm.OperationError, match="EINVAL"):
        m.process("A").mmap(f, shared=False, hgm=True)
    v = m.process("B").mmap(f, shared=False)
    assert v.touch(0) == v.touch(0, write=True) == 4096
    rows = m.observe()["folios"]
    seen = [(row["refcount"], row["mapcount"], row.get("in_page_cache", True)) for row in rows]
    assert seen == [(1, 0, True), (1, 1, False)]
