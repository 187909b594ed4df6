"""hgmcore.testing finds what a scheme does wrong, names it by operation and record, and finds nothing in good ones."""

import ctypes

import own_schemes
import pytest
from test_own_python import variant

import hgmcore as hgm
from hgmcore import testing
from hgmcore.own.tables import Table
from hgmcore.testing import check_scheme, faults

INSTALLS = "\thgm_ref_add(cost, leaf->folio, (int32_t)leaf->count);\n\thgm_map_add"
REMOVES = "\thgm_map_add(cost, page, &page->_entire_mapcount, -(int32_t)leaf->count);"
TRACE = [
    "file F 2M 2",
    "populate F 0 2",
    "mmap A v F 0 4M shared minor hgm",
    "continue A v 0 4K",
    "continue A v 4K 4K",
    "dontneed A v 0 4K",
    "dontneed A v 4K 4K",
    "munmap A v 0 4M",
]


def in_c(folder, **body):
    library = own_schemes.library(
        folder, own_schemes.c_head("faulty", body={key: value for key, value in body.values()})
    )
    return Table.in_dll(ctypes.CDLL(library), "faulty")


@pytest.mark.parametrize("name", hgm.schemes.NAMES)
def test_the_schemes_of_the_package_have_no_fault(name):
    check_scheme(name, sequences=5)


def test_good_schemes_through_the_other_doors_have_none(tmp_path):
    check_scheme(own_schemes.HeadPerLeaf, sequences=5)
    check_scheme(own_schemes.NrPagesMapped, sequences=3, batch="6.12")
    check_scheme(in_c(tmp_path), sequences=5)


BAD = {
    "crashes": (REMOVES, "\t*(volatile int *)8 = 1;", "crashed", 5, "dontneed A v 0 4K", "SIGSEGV"),
    "hangs": (REMOVES, "\tfor (;;) ;", "hung", 5, "dontneed A v 0 4K", "no answer for 3 s"),
    "stops": (
        REMOVES,
        '\thgm_fail(options, "enough"); return;',
        "misbehaved",
        5,
        "dontneed A v 0 4K",
        "leaf_remove: enough",
    ),
    "writes a pin count": (
        INSTALLS,
        "\tpage->_pincount = 7;\n" + INSTALLS,
        "wrote",
        3,
        "continue A v 0 4K",
        "_pincount of struct page 1 of page 0 of F: 0 to 7; that is no scheme's",
    ),
    "writes a flag": (
        INSTALLS,
        "\tpage->flags |= 1ull << 40;\n" + INSTALLS,
        "wrote",
        3,
        "continue A v 0 4K",
        "flags of struct page 1 of page 0 of F",
    ),
    "writes an undeclared word": (
        INSTALLS,
        "\tpage->_large_mapcount = 1;\n" + INSTALLS,
        "wrote",
        3,
        "continue A v 0 4K",
        "_large_mapcount of struct page 1 of page 0 of F: 0 to 1; its state does not name",
    ),
    "writes a tail": (
        INSTALLS,
        "\tpage[99].private_ = 1;\n" + INSTALLS,
        "wrote",
        3,
        "continue A v 0 4K",
        'private of struct page 100 of page 0 of F: 0 to 1; it does not need "tails"',
    ),
    "writes another folio": (
        INSTALLS,
        "\tpage[512]._entire_mapcount = 1;\n" + INSTALLS,
        "wrote",
        3,
        "continue A v 0 4K",
        "_entire_mapcount of struct page 1 of page 1 of F: 0 to 1; nothing mapped that folio",
    ),
    "forgets": (REMOVES, "", "leaf_if_mapped", 6, "dontneed A v 4K 4K", "a folio that is mapped has a leaf"),
    "forgets, unbalanced": (
        REMOVES,
        "",
        "unbalanced",
        6,
        "dontneed A v 4K 4K",
        "_entire_mapcount is 2, and nothing maps page 0 of F",
    ),
    "drops twice": (REMOVES, REMOVES * 2, "no_underflow", 6, "dontneed A v 4K 4K", "no count falls below 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_fault_in_c_is_named(name, tmp_path, monkeypatch):
    monkeypatch.setattr(testing, "SECONDS", 3)
    old, new, what, index, statement, text = BAD[name]
    found = {fault.what: fault for fault in faults(in_c(tmp_path, change=(old, new)), [TRACE])}
    assert what in found, list(map(str, found.values()))
    fault = found[what]
    assert (fault.scheme, fault.index, fault.statement) == ("faulty", index, statement) and text in fault.text
    with pytest.raises(AssertionError, match=f"scheme 'faulty': {what}, at record {index} \\({statement}\\) of .*: "):
        check_scheme(in_c(tmp_path, change=(old, new)), [TRACE])


def test_a_fault_in_python_is_named():
    found = faults(variant(leaf_remove=lambda self, leaf: leaf.ref_add(-1)), [TRACE])
    assert {fault.what for fault in found} >= {"unbalanced", "leaf_if_mapped"}
    found = faults(variant(leaf_remove=lambda self, leaf: 1 / 0), [TRACE])
    assert [str(fault).partition(" of ")[0] for fault in found] == [
        "scheme 'mine': raised, at record 5 (dontneed A v 0 4K)"
    ]
    assert found[0].text == "leaf_remove: ZeroDivisionError: division by zero"


def test_random_traces_find_it_too():
    assert {fault.what for fault in faults(variant(leaf_remove=lambda self, leaf: leaf.ref_add(-1)), sequences=3)} >= {
        "unbalanced",
        "leaf_if_mapped",
    }


def test_a_trace_that_is_none_is_an_error_not_a_fault(tmp_path):
    with pytest.raises(ValueError, match="unknown"):
        check_scheme("no_such_scheme")
    with pytest.raises(hgm.TraceError):
        check_scheme(in_c(tmp_path), [["nonsense"]])
    with pytest.raises(ValueError, match="batch"):
        check_scheme(in_c(tmp_path), [TRACE], batch="7")
