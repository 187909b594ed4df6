"""The columns of the comparison, one row each: what every face of the report shows of a scheme's costs and errors.

A new column is one new row here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hgmcore.report.table import Column


@dataclass(frozen=True)
class Measure:
    """One column.

    value: function of a scheme's dict "cost" or "error" in `hgmcore-compare 1`. title, kind, group: as of table.Column;
    the kind says the unit. term, legend: the line of the legend; a term of "" belongs to the line of an earlier column.
    """

    value: Callable[[dict], float]
    title: str
    kind: str
    group: str = ""
    term: str = ""
    legend: str = ""

    @property
    def column(self) -> Column:
        return Column(self.title, self.kind, self.group)


def _of(key):
    return lambda numbers: numbers[key]


def _atomics(key):
    return lambda cost: cost["atomics"][key]


COSTS = (
    Measure(_atomics("ref"), "ref", "count", "atomics", "ref, map",
            "atomic read-modify-writes of references and map counts that stay"),
    Measure(_atomics("map"), "map", "count", "atomics"),
    Measure(_atomics("transient"), "temp", "count", "atomics", "temp",
            "atomics of look-ups that are put back, {executed} when timed"),
    Measure(_of("lines"), "struct\npages", "count", "", "struct pages",
            "distinct struct pages (64 bytes) that ref and map write"),
    Measure(_of("entries_scanned"), "entries\nscanned", "count", "", "scanned",
            "page-table entries read to decide a count"),
    Measure(lambda cost: cost["table_bytes_peak"] + cost["struct_page_bytes"], "memory\nkB", "kB", "", "memory",
            "page tables at their peak + host memory that struct pages take"),
)
"""Counted costs. {executed} in a legend: whether the replay executes the atomics of look-ups."""

ERRORS = (
    Measure(_of("false_shared"), "false", "errors", "sharing", "sharing",
            "huge pages called shared that fewer than two processes map (false), or not shared that two or more map "
            "(missed)"),
    Measure(_of("false_exclusive"), "missed", "errors", "sharing"),
    Measure(_of("page_mapcount_wrong_pages"), "pages", "errors", "page_mapcount", "page_mapcount",
            "base pages with a wrong count, and the largest error of any"),
    Measure(_of("page_mapcount_max_error"), "max", "errors", "page_mapcount"),
    Measure(_of("pss_error_bytes"), "Pss", "errors kB", "smaps kB", "smaps",
            "|error| of Pss and of Shared_Hugetlb over all mappings"),
    Measure(_of("smaps_shared_error_bytes"), "Shared", "errors kB", "smaps kB"),
    Measure(_of("refs_not_explained"), "refs\nunexpl.", "errors", "", "refs unexpl.",
            "|refcount - page cache - pins - mapcount| over all huge pages"),
    Measure(_of("leaked_folios"), "leaks", "errors", "", "leaks",
            "huge pages that only lost references hold at the end"),
    Measure(_of("counter_underflows"), "under-\nflows", "errors", "", "underflows",
            "counter updates that went below zero"),
)
"""Errors, against a recount of the page tables."""


def legend(measures, **words) -> list[tuple[str, str]]:
    """(term, meaning) pairs of the columns. words: what stands in braces in a legend."""
    return [(one.term, one.legend.format(**words)) for one in measures if one.term]
