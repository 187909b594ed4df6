"""What a scheme got wrong: its observations against the recount of the page tables that stands beside them."""

from __future__ import annotations

import math

import numpy as np

from hgmcore.runs import difference, end_to_end


class Errors:
    """What a scheme got wrong, summed over the observations that this object is called with.

    The truth is each observation's recount of the page tables. A folio is one huge page.

    false_shared: folios called shared that fewer than two processes map.
    false_exclusive: folios not called shared that two or more processes map.
    false_shared_hugetlb, false_exclusive_hugetlb: the same by the kernel's rule for hugetlb, mapcount > 1,
        for schemes that have one of their own.
    mapped_but_reported_unmapped: folios called unmapped that at least one leaf maps.
    unmapped_but_reported_mapped: folios called mapped that no leaf maps.
    page_mapcount_max_error: the largest |page_mapcount - leaves that map the page| of any base page.
    page_mapcount_wrong_pages: base pages whose page_mapcount is not the number of leaves that map them.
    pss_error_bytes: |Pss - true Pss| of every mapping; a page's true share is its size / leaves that map it.
    smaps_shared_error_bytes: |Shared_Hugetlb - bytes of pages that two or more leaves map| of every mapping.
    refs_not_explained: |refcount - page-cache references - pins - folio mapcount| of every folio.
    leaked_folios: folios of the last observation that are referenced with no page cache, leaf or pin.
    freed_while_mapped: folios that were freed though a leaf maps them.
    counter_underflows, counter_overflows: counter updates that passed zero or the counter's limit.
    refused_operations: operations that ended in an errno.
    """

    def __init__(self):
        self._sums = dict.fromkeys(
            ("false_shared", "false_exclusive", "false_shared_hugetlb", "false_exclusive_hugetlb",
             "mapped_but_reported_unmapped", "unmapped_but_reported_mapped", "page_mapcount_max_error",
             "page_mapcount_wrong_pages", "pss_error_bytes", "smaps_shared_error_bytes",
             "refs_not_explained", "leaked_folios", "freed_while_mapped"), 0)

    def __call__(self, observation):
        sums = self._sums
        sums["leaked_folios"] = 0
        folios = observation["folios"]
        for folio in folios:
            self._add_folio(folio)
        wrong, largest = difference(end_to_end([folio["page_mapcount"] for folio in folios]),
                                    end_to_end([folio["truth"]["page_mapcount"] for folio in folios]))
        sums["page_mapcount_wrong_pages"] += wrong
        sums["page_mapcount_max_error"] = max(sums["page_mapcount_max_error"], largest)
        for mapping in observation["mappings"]:
            sums["pss_error_bytes"] += apart(mapping["pss"], mapping["truth"]["pss"])
            sums["smaps_shared_error_bytes"] += abs(smaps_shared(mapping) - mapping["truth"]["shared"])
        sums["freed_while_mapped"] += observation["freed_while_mapped"]

    def _add_folio(self, folio):
        sums, truth = self._sums, folio["truth"]
        shared, mapped = truth["processes"] >= 2, truth["leaves"] > 0
        for rule in ("", "_hugetlb"):
            said = folio[f"maybe_shared{rule}"]
            sums[f"false_shared{rule}"] += bool(said and not shared)
            sums[f"false_exclusive{rule}"] += bool(shared and not said)
        sums["mapped_but_reported_unmapped"] += bool(mapped and not folio["mapped"])
        sums["unmapped_but_reported_mapped"] += bool(folio["mapped"] and not mapped)

        outside = folio["page_cache_refs"] + folio["pins"]
        sums["refs_not_explained"] += abs(folio["refcount"] - outside - folio["mapcount"])
        sums["leaked_folios"] += bool(folio["refcount"] > 0 and not outside and not mapped)

    def result(self, replay_result):
        """The `error` dict of `hgmcore-compare 1`, in plain Python numbers."""
        sums = {name: float(value) if name == "pss_error_bytes" else int(value)
                for name, value in self._sums.items()}
        sums["counter_underflows"] = int(replay_result["counters"]["underflows"])
        sums["counter_overflows"] = int(replay_result["counters"]["overflows"])
        sums["refused_operations"] = int(np.count_nonzero(replay_result["operations"]["errno"]))
        return sums


def apart(pss, truth):
    """|pss - truth| in bytes; 0 if they differ no more than sums of the same fractions in another order do."""
    return 0.0 if math.isclose(pss, truth, rel_tol=1e-12, abs_tol=1e-4) else abs(pss - truth)


def smaps_shared(mapping):
    """Bytes that smaps calls shared: of hugetlb, or of other memory."""
    return mapping["shared_hugetlb"] if "shared_hugetlb" in mapping else mapping["shared"]
