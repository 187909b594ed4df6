"""Schemes that are broken on purpose: a search finds each fault, with a trace of exactly the shortest length."""

import pytest
from broken_engines import SCHEME, built, news

CONTINUE = "operations/hugetlb/uffd_continue.pxd"
MAP, REF = (
    "    compound_add(cost, leaf.folio, -<int32_t>leaf.count)\n",
    "    hgm_ref_add(cost, leaf.folio, -<int32_t>leaf.count)\n",
)
INSTALL = "    compound_add(cost, leaf.folio, <int32_t>leaf.count)\n"
PUT = "        look_up_and_put(m, &m.context.cost, h.folio)\n        return EIO if"

# What is changed, (file, text, other text), and what comes of it: property -> length.
BROKEN = {
    "collapse does not take back what pieces counted": (
        SCHEME,
        MAP,
        "    if leaf.origin != HGM_BY_COLLAPSE:\n    " + MAP,
        {"RE": 3, "ML": 4, "MS": 4, "CB": 10},
    ),
    "a fault counts twice": (
        SCHEME,
        INSTALL,
        "    if leaf.origin == HGM_BY_FAULT:\n    " + INSTALL + INSTALL,
        {"RE": 1, "PC": 1, "FS": 1, "ML": 2, "MS": 2, "MP": 2, "CB": 9},
    ),
    "a continue that finds its page mapped keeps the reference of its look-up": (
        CONTINUE,
        PUT,
        "        hgm_plain_add(h.folio, 1)\n        return EIO if",
        {"RC": 2, "RE": 2, "LK": 3, "TC": 3, "MS": 3, "CB": 9},
    ),
    "truncate forgets the reference of a whole leaf": (
        SCHEME,
        REF,
        "    if not (leaf.whole and leaf.origin == HGM_BY_TRUNCATE):\n    " + REF,
        {"LK": 2, "TC": 2},
    ),
}


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    return built(tmp_path_factory.mktemp("broken"), BROKEN)


@pytest.mark.parametrize("fault", BROKEN)
def test_a_fault_is_found_by_its_shortest_trace(engines, fault):
    assert news(engines[fault]) == BROKEN[fault][3]
