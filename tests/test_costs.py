"""The cost table of the program against numbers worked out by hand: atomics and lines of a 2M page."""

import pytest
from test_invariants import sequence

from hgmcore import Machine, Trace, schemes
from hgmcore.analysis.costs import ACTIONS, action_cost, cost_table
from hgmcore.report.costs import cost_text

# action: {scheme: (atomics, lines)}
TABLE = {
    "map another piece": {
        "head_per_leaf": (2, 2), "per_page_posted": (2, 2), "nr_pages_mapped": (3, 3), "subtree": (1, 1),
        "logical_scan": (0, 0), "logical_counter": (0, 0), "large_mapcount": (4, 3), "mm_id": (4, 3),
        "no_page_mapcount": (2, 2), "pmd_pud_mapcount": (2, 2), "total_mapped_pages": (2, 2)},
    "map all pieces, one by one": {
        "head_per_leaf": (1024, 2), "per_page_posted": (1024, 512), "nr_pages_mapped": (1536, 512),
        "subtree": (513, 2), "logical_scan": (2, 2), "logical_counter": (2, 2), "large_mapcount": (2048, 512),
        "mm_id": (2048, 512), "no_page_mapcount": (1024, 2), "pmd_pud_mapcount": (1024, 2),
        "total_mapped_pages": (1024, 2)},
    "fork, copying all pieces": {
        "head_per_leaf": (1024, 2), "per_page_posted": (1024, 512), "nr_pages_mapped": (1024, 512),
        "subtree": (513, 2), "logical_scan": (2, 2), "logical_counter": (2, 2), "large_mapcount": (1536, 512),
        "mm_id": (1536, 512), "no_page_mapcount": (1024, 2), "pmd_pud_mapcount": (1024, 2),
        "total_mapped_pages": (1024, 2)},
}

# The collapse of a 1G page from 4K leaves: atomics on (references, map words).
COLLAPSE_1G = {"head_per_leaf": (262145, 262145), "subtree": (262145, 0), "logical_scan": (0, 0)}


@pytest.mark.parametrize("action", TABLE)
def test_section_4_14(action):
    for scheme, expected in TABLE[action].items():
        cost = action_cost(scheme, action)
        assert (cost["ref"] + cost["map"], cost["lines"]) == expected, scheme
        assert cost["errors"] == []


@pytest.mark.parametrize("scheme", COLLAPSE_1G)
def test_collapse_of_a_gigabyte(scheme):
    cost = action_cost(scheme, "collapse all pieces", page_size="1G")
    assert (cost["ref"], cost["map"]) == COLLAPSE_1G[scheme]


def test_a_lookup_that_is_put_back_is_two_atomics_more():
    assert action_cost("logical_counter", "map another piece")["transient"] == 2
    assert action_cost("head_per_leaf", "map another piece")["transient"] == 0


def test_the_text_fits_a_mail_and_says_what_is_refused():
    table = cost_table(("hugetlb", "subtree"))
    text = cost_text(table)
    assert text.isascii() and max(map(len, text.splitlines())) <= 80
    assert all(action in text for action in ACTIONS)
    assert "refused: EINVAL" in text and "refused: EAGAIN" in text


def test_the_command_prints_it(capfd):
    pytest.importorskip("click")
    from hgmcore.cli import run

    assert run(["schemes", "subtree", "--costs"]) == 0
    assert "collapse all pieces" in capfd.readouterr().out


@pytest.mark.parametrize("scheme", schemes.NAMES)
def test_costs_of_each_operation_add_up(scheme):
    """Record by record or at once, the counts, results and scanned entries are the same."""
    lines, undo = sequence(3, scheme)
    trace = Trace.parse("\n".join(["hgmcore-trace 1", *lines, *undo, ""]))
    at_once, one_by_one = (Machine(scheme) for _ in range(2))
    for machine in (at_once, one_by_one):
        machine.declare(trace.header)
    at_once.run(trace.operations)
    each = one_by_one.run_each(trace.operations)
    assert one_by_one.cost() == at_once.cost() and (one_by_one.results() == at_once.results()).all()
    cost = at_once.cost()
    assert {name: int(each[name].sum()) for name in each.dtype.names} == {
        "ref": cost["atomics"]["ref"], "map": cost["atomics"]["map"], "transient": cost["atomics"]["transient"],
        "scanned": cost["entries_scanned"], "leaves": cost["leaf_installs"] + cost["leaf_removes"]}
