"""What may be wrong about one observation, by name: each a number that is 0 where the answers agree with the
recount."""

from __future__ import annotations

import difflib

import numpy as np

from hgmcore.analysis.errors import apart, smaps_shared
from hgmcore.runs import difference


def _folios(test):
    """The number of folios of an observation for which `test(folio, its truth)` holds."""
    return lambda observation: sum(bool(test(folio, folio["truth"])) for folio in observation["folios"])


def _outside(folio):
    return folio["page_cache_refs"] + folio["pins"]


def _wrong_pages(observation):
    return sum(difference(np.asarray(folio["page_mapcount"]), np.asarray(folio["truth"]["page_mapcount"]))[0]
               for folio in observation["folios"])


PROPERTIES = {
    "freed_while_mapped": (
        lambda observation: observation["freed_while_mapped"], "folios that were freed though a leaf maps them"),
    "leaked_folios": (
        _folios(lambda folio, truth: folio["refcount"] > 0 and not _outside(folio) and not truth["leaves"]),
        "folios that are referenced with no page cache, leaf or pin"),
    "mapped_but_reported_unmapped": (
        _folios(lambda folio, truth: truth["leaves"] and not folio["mapped"]),
        "folios called unmapped that at least one leaf maps"),
    "unmapped_but_reported_mapped": (
        _folios(lambda folio, truth: folio["mapped"] and not truth["leaves"]),
        "folios called mapped that no leaf maps"),
    "false_exclusive": (
        _folios(lambda folio, truth: truth["processes"] >= 2 and not folio["maybe_shared"]),
        "folios not called shared that two or more processes map"),
    "false_shared": (
        _folios(lambda folio, truth: folio["maybe_shared"] and truth["processes"] < 2),
        "folios called shared that fewer than two processes map"),
    "refs_not_explained": (
        lambda observation: sum(abs(folio["refcount"] - _outside(folio) - folio["mapcount"])
                                for folio in observation["folios"]),
        "references that neither page cache, pins nor the folio's mapcount explain"),
    "page_mapcount_wrong_pages": (
        _wrong_pages, "base pages whose page_mapcount is not the number of leaves that map them"),
    "smaps_shared_error_bytes": (
        lambda observation: sum(abs(smaps_shared(mapping) - mapping["truth"]["shared"])
                                for mapping in observation["mappings"]),
        "bytes that smaps calls shared or private wrongly, over all mappings"),
    "pss_error_bytes": (
        lambda observation: sum(apart(mapping["pss"], mapping["truth"]["pss"]) for mapping in observation["mappings"]),
        "bytes by which Pss is off, over all mappings"),
    "false_exclusive_hugetlb": (
        _folios(lambda folio, truth: truth["processes"] >= 2 and not folio["maybe_shared_hugetlb"]),
        "folios with mapcount 1 or less that two or more processes map"),
    "false_shared_hugetlb": (
        _folios(lambda folio, truth: folio["maybe_shared_hugetlb"] and truth["processes"] < 2),
        "folios with mapcount 2 or more that fewer than two processes map"),
}
"""name -> (function of an observation, what it counts), the gravest first."""


def checked(names) -> list[str]:
    """`names` if they are properties, all of them for None. ValueError names one that is not, and what is known."""
    for name in names or ():
        if name not in PROPERTIES:
            near = difflib.get_close_matches(name, PROPERTIES, 1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ValueError(f"unknown property '{name}'{hint} (known: {', '.join(PROPERTIES)})")
    return list(PROPERTIES) if names is None else list(names)


def wrong(observation, names=None) -> dict:
    """{property: its number} of what is wrong in an observation, the gravest first."""
    found = {name: PROPERTIES[name][0](observation) for name in checked(names)}
    return {name: value for name, value in found.items() if value}
