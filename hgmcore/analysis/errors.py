"""What a scheme got wrong: its observations against the recount of the page tables that stands beside them.

Three things are kept apart. `own`: the scheme breaks what its file promises. `per_page`: it differs from the truth of
single base pages, which some schemes define otherwise. `consequences`: what a kernel does with the scheme's answers.
"""

from __future__ import annotations

import math

import numpy as np

from hgmcore.folios import Folios, of_rows
from hgmcore.runs import difference

OWN = {
    "false_shared": "never_false_shared", "false_exclusive": "never_false_exclusive",
    "mapped_but_reported_unmapped": "mapped_if_leaf", "unmapped_but_reported_mapped": "leaf_if_mapped",
    "refs_not_explained": "refs_explained", "leaked_folios": "no_leak_at_end",
    "freed_while_mapped": "never_freed_while_mapped", "counter_underflows": "no_underflow",
    "counter_overflows": "overflow_safe",
}
"""Keys of errors against a promise, and the property that a scheme promises or, in `Engine.exceptions`, does not."""

PER_PAGE = ("page_mapcount_wrong_pages", "page_mapcount_max_error", "false_shared_hugetlb", "false_exclusive_hugetlb")
CONSEQUENCES = ("pss_error_bytes", "smaps_shared_error_bytes", "pages_not_freed", "bytes_not_moved",
                "migrations_refused", "copies_made")
EVENTS = ("counter_underflows", "counter_overflows", "bytes_not_moved", "migrations_refused", "copies_made")
"""Keys that count events over the whole trace, in "observations"; all others look at the sampled observations one by
one."""


def of_observation(observation) -> dict:
    """{key: value} of one observation of `Machine.observe`; a folio is one huge page. 0 means that nothing is wrong.

    false_shared: folios called shared that fewer than two processes map. false_exclusive: folios not called shared that
    two or more map. *_hugetlb: the same by the kernel's rule for hugetlb, mapcount > 1. mapped_but_reported_unmapped,
    unmapped_but_reported_mapped: folios whose folio_mapped() is not whether a leaf maps them.
    page_mapcount_wrong_pages: base pages whose page_mapcount() is not the number of leaves over them;
    page_mapcount_max_error: the largest difference of one. refs_not_explained: the sum over folios of
    |refcount - page cache - pins - mapcount|. leaked_folios: folios with references though no page cache, leaf or pin
    has them; pages_not_freed: base pages in them. freed_while_mapped: folios that were freed though a leaf maps them.
    pss_error_bytes, smaps_shared_error_bytes: |error| of Pss and of shared memory, summed over mappings.
    """
    found = dict.fromkeys((*OWN, *PER_PAGE, "pss_error_bytes", "smaps_shared_error_bytes", "pages_not_freed"), 0)
    for piece in pieces_of(observation["folios"]):
        for key, value in of_piece(piece).items():
            found[key] = max(found[key], value) if key == "page_mapcount_max_error" else found[key] + value
    for mapping in observation["mappings"]:
        found["pss_error_bytes"] += apart(mapping["pss"], mapping["truth"]["pss"])
        found["smaps_shared_error_bytes"] += abs(smaps_shared(mapping) - mapping["truth"]["shared"])
    found["freed_while_mapped"] += observation["freed_while_mapped"]
    return found


def of_piece(piece) -> dict:
    """The part of of_observation() that a folios.Piece has, worked out once for all observations that share it."""
    if "errors" in piece.found:
        return piece.found["errors"]
    found, value = {}, piece.columns
    shared, mapped = value["truth.processes"] >= 2, value["truth.leaves"] > 0
    for rule in ("", "_hugetlb"):
        said = value[f"maybe_shared{rule}"]
        found[f"false_shared{rule}"] = count(said & ~shared)
        found[f"false_exclusive{rule}"] = count(shared & ~said)
    found["mapped_but_reported_unmapped"] = count(mapped & ~value["mapped"])
    found["unmapped_but_reported_mapped"] = count(value["mapped"] & ~mapped)
    outside = value["page_cache_refs"] + value["pins"]
    found["refs_not_explained"] = int(np.abs(value["refcount"] - outside - value["mapcount"]).sum())
    leaked = (value["refcount"] > 0) & (outside == 0) & ~mapped
    found["leaked_folios"], found["pages_not_freed"] = count(leaked), int(value["pages"][leaked].sum())
    if not piece.said.same_as(piece.true):
        wrong, largest = difference(piece.said.end_to_end(), piece.true.end_to_end())
        found["page_mapcount_wrong_pages"], found["page_mapcount_max_error"] = wrong, largest
    piece.found["errors"] = found
    return found


class Errors:
    """Errors over a number of observations: for each key in how many it is not 0, the worst one, and the last one.

    exceptions: of the scheme (`Engine.exceptions`): property -> "definition" or "fault".
    """

    def __init__(self, exceptions):
        self.exceptions, self.observations, self.most_processes = exceptions, 0, 0
        self.counts: dict[str, dict] = {}
        self.at: list[tuple[int, dict]] = []

    def __call__(self, observation) -> None:
        """Take an observation into account."""
        found = of_observation(observation)
        self.observations += 1
        for piece in pieces_of(observation["folios"]):
            if "processes" not in piece.found:
                piece.found["processes"] = int(piece.columns["truth.processes"].max(initial=0))
            self.most_processes = max(self.most_processes, piece.found["processes"])
        self.at.append((observation["index"], {key: value for key, value in found.items() if value}))
        for key, value in found.items():
            self._note(key, value, bool(value))

    def events(self, key, each) -> None:
        """Note `key`, one of EVENTS, from what each operation that could show the error shows of it, 0 if nothing.

        "observations" is then the number of operations that show it.
        """
        self.counts[key] = {"observations": sum(one > 0 for one in each), "worst": int(max(each, default=0)),
                            "last": int(each[-1]) if each else 0}

    def grew(self, key, totals) -> None:
        """Note `key`, one of EVENTS, from how many events there had been up to each observation.

        "observations" is then the number of events, "worst" the most between two observations, "last" those before the
        last.
        """
        each = [int(total) - int(before) for before, total in zip([0, *totals], totals)]
        self.counts[key] = {"observations": sum(each), "worst": max(each, default=0), "last": each[-1] if each else 0}

    def _note(self, key, value, wrong):
        kind = float if key == "pss_error_bytes" else int
        count = self.counts.get(key)
        if count is None:
            count = self.counts[key] = {"observations": 0, "worst": kind(0), "last": kind(0)}
        value = kind(value)
        count["last"] = value
        if wrong:
            count["observations"] += 1
            count["worst"] = max(count["worst"], value)

    def result(self) -> dict:
        """{"own": {key: {"observations", "worst", "last"}}, "per_page": ..., "consequences": ...}, of what was not 0.

        An error against a property that the scheme defines otherwise is in `per_page`; one that its own file states as
        a fault is in `own` with "known": true.
        """
        groups = {"own": {}, "per_page": {}, "consequences": {}}
        for key, count in self.counts.items():
            if not count["observations"]:
                continue
            exception = self.exceptions.get(OWN.get(key))
            group = "own" if key in OWN else "per_page" if key in PER_PAGE else "consequences"
            if group == "own" and exception == "definition":
                group = "per_page"
            groups[group][key] = {**count, "known": True} if exception == "fault" else count
        return groups


def count(marks) -> int:
    """How many of an array of bools are true."""
    return int(np.count_nonzero(marks))


def pieces_of(folios) -> list:
    """The folios of an observation by columns (folios.Piece), also of one that was read from JSON."""
    return (folios if isinstance(folios, Folios) else of_rows(folios)).pieces


def pages_of(folio) -> int:
    """Base pages of a folio of an observation."""
    return int(folio["page_mapcount"][-1, 1]) if len(folio["page_mapcount"]) else 0


def apart(pss, truth):
    """|pss - truth| in bytes; 0 if they differ no more than sums of the same fractions in another order do."""
    return 0.0 if math.isclose(pss, truth, rel_tol=1e-12, abs_tol=1e-4) else abs(pss - truth)


def smaps_shared(mapping):
    """Bytes that smaps calls shared: of hugetlb, or of other memory."""
    return mapping["shared_hugetlb"] if "shared_hugetlb" in mapping else mapping["shared"]
