"""A rule of the core, mutated: some property fails, with a trace of exactly the shortest length."""

import pytest
from broken_engines import built, news

MIGRATE, FOLIO = "operations/hugetlb/migrate.pxd", "core/folio.pxd"
ZAP, COLLAPSE = "operations/hugetlb/zap.pxd", "operations/hugetlb/collapse.pxd"

# What is changed, (file, text, other text), and what comes of it: property -> length.
MUTATED = {
    "the page cache keeps its reference of a page that leaves it": (
        FOLIO,
        "    folio_put(folio, cache_refs(m, folio))\n",
        "    folio_put(folio, 0)\n",
        {"LK": 2, "TC": 2},
    ),
    "migration waits for one reference too few": (
        MIGRATE,
        "folio.page._refcount == refs + 1:",
        "folio.page._refcount == refs:",
        {"MS": 2},
    ),
    "a page that was moved keeps the reference of its allocation": (
        MIGRATE,
        "    new.page._refcount = refs\n",
        "    new.page._refcount = refs + 1\n",
        {"RE": 2, "LK": 3, "MS": 3, "TC": 3, "CB": 10},
    ),
    "a zap of a whole leaf is not told to the scheme": (
        ZAP,
        "            hgm_leaf_remove(&m.context.cost, &m.config.options, &leaf)\n",
        "            if not leaf.whole:\n                hgm_leaf_remove(&m.context.cost, &m.config.options, &leaf)\n",
        {"LK": 2, "ML": 2, "FS": 2, "MS": 2, "TC": 2, "RC": 2, "CB": 2},
    ),
    "collapse counts its leaf twice": (
        COLLAPSE,
        "    leaf.count = 1\n",
        "    leaf.count = 2\n",
        {"LK": 4, "ML": 4, "MS": 4, "TC": 4, "CB": 12},
    ),
}


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    return built(tmp_path_factory.mktemp("mutated"), MUTATED)


@pytest.mark.parametrize("rule", MUTATED)
def test_a_mutated_rule_makes_a_property_fail(engines, rule):
    assert MUTATED[rule][3] and news(engines[rule]) == MUTATED[rule][3]
