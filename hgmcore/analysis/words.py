"""Words for numbers, names and errors, of which the sentences of a verdict are made."""

from __future__ import annotations

import math

from hgmcore.analysis.errors import EVENTS

NAMED = 3
"""The most schemes or phases that a sentence names one by one."""

WORDS = {
    "false_shared": "pages of one process are called shared",
    "false_exclusive": "pages of several processes are called exclusive",
    "mapped_but_reported_unmapped": "mapped pages are reported as unmapped",
    "unmapped_but_reported_mapped": "unmapped pages are reported as mapped",
    "refs_not_explained": "references are not what the map count explains",
    "leaked_folios": "pages keep references that nobody has", "freed_while_mapped": "pages are freed in use",
    "counter_underflows": "counts go below zero", "counter_overflows": "counts overflow",
    "page_mapcount_wrong_pages": "page_mapcount() is not the number of leaves over a page",
    "page_mapcount_max_error": "page_mapcount() is not the number of leaves over a page",
    "false_shared_hugetlb": "hugetlb's rule (mapcount > 1) calls pages of one process shared",
    "false_exclusive_hugetlb": "hugetlb's rule (mapcount > 1) calls pages of several processes exclusive",
    "pss_error_bytes": "smaps has a wrong Pss", "smaps_shared_error_bytes": "smaps has a wrong amount of shared memory",
    "pages_not_freed": "memory is not freed", "bytes_not_moved": "mbind silently leaves memory where it is",
    "migrations_refused": "migration is refused", "copies_made": "writes copy more than they must",
}
"""What each error means, as a sentence."""


def listed(names, most=NAMED):
    """"a", "a and b", "a, b and c", "a, b, c, d and 3 more"."""
    names = list(names)
    if len(names) > most:
        names = [*names[:most], f"{len(names) - most} more"]
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def who(names, among, sort=False):
    """Up to three names; "all 15"; "all but" up to three; or "5 of 15". among: all of whom one speaks, or their number.

    sort: in the order of the alphabet, where the order of the table could be taken for a ranking.
    """
    names, total = sorted(names) if sort else list(names), among if isinstance(among, int) else len(among)
    if len(names) <= NAMED:
        return listed(names)
    if len(names) == total:
        return f"all {total}"
    if not isinstance(among, int) and total - len(names) <= NAMED:
        return f"all but {listed(name for name in among if name not in names)}"
    return f"{len(names)} of {total}"


def how(key, counts, observations):
    """How often and how much, in words, over one or several schemes. counts: {"observations", "worst"} of each.

    Events happen once or several times, whenever; all others are seen at so many of the observations.
    """
    counts = list(counts)
    often = from_to([count["observations"] for count in counts])
    worst = max(count["worst"] for count in counts)
    size = amount(worst) if "bytes" in key else f"{worst:,.0f}"
    if key not in EVENTS:
        return f"{often} of {observations:,} observations, {size} at worst"
    often = times(often)
    one = often == "once" and len({count["worst"] for count in counts}) == 1
    return often if "bytes" not in key else f"{often}, {size}{'' if one else ' at worst'}"


def times(often) -> str:
    """"once", or "3 times"."""
    return "once" if often == "1" else f"{often} times"


def from_to(numbers) -> str:
    """"3", or "1 to 3" of several numbers that differ."""
    return " to ".join(f"{end:,}" for end in sorted({min(numbers), max(numbers)}))


def amount(size) -> str:
    """Bytes in three digits and a unit: 512, 4.00K, 1.46M."""
    unit = 0
    while size >= 1000 and unit < 4:
        size, unit = size / 1024, unit + 1
    return f"{size:.{0 if not unit else 2 if size < 9.995 else 1 if size < 99.95 else 0}f}{' KMGT'[unit].strip()}"


def power(number) -> str:
    """2147483647 -> "2^31", 8192 -> "8,192": the nearest power of two of a number from a million on."""
    return f"2^{round(math.log2(number))}" if number >= 10**6 else f"{number:,}"
