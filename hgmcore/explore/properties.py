"""What a search judges: properties of a folio's counts, by name.

L, T and W are counted from the page tables alone: present leaves (a contiguous group is one), leaves over a base page,
and processes with a leaf. C are the page cache's references, p pins, b failed base pages. FATAL properties are
those behind which everything else is noise: a step that breaks one is counted apart and not followed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Property:
    """key: two letters for a table. premise: when it says anything. families: a scope that asks has one of these."""

    key: str
    name: str
    text: str
    premise: str
    of_step: bool = False
    fatal: bool = False
    families: tuple[str, ...] = ()
    processes: int = 1


MIGRATE, DROPS = ("migrate",), ("punch", "truncate")
REFUSABLE = ("continue", "touch", "fork", "populate", "migrate", "collapse", "dontneed")

PROPERTIES = (
    Property("FM", "never_freed_while_mapped", "no folio whose references fell to 0 is mapped", "L > 0", fatal=True),
    Property(
        "FH",
        "never_freed_while_held",
        "no folio whose references fell to 0 is cached or pinned",
        "cached or pinned",
        fatal=True,
    ),
    Property(
        "LK",
        "no_leak_at_end",
        "a folio that nothing reaches any more has at most the references p + b",
        "a folio stops being reachable",
        of_step=True,
    ),
    Property("MU", "mapped_if_leaf", "a folio with a leaf is mapped", "L > 0"),
    Property("ML", "leaf_if_mapped", "a folio that is mapped has a leaf", "mapped"),
    Property("FE", "never_false_exclusive", "a folio that two processes map may be shared", "W >= 2", processes=2),
    Property(
        "FS", "never_false_shared", "a folio that may be shared is mapped by two processes", "maybe_shared", processes=2
    ),
    Property("PC", "page_counts_equal_truth", "the count of each base page is the number of leaves over it", "L > 0"),
    Property("RE", "refs_explained", "references - C - p - b are the map count", "L > 0"),
    Property("UF", "no_underflow", "no count falls below 0", "a decrement", of_step=True, fatal=True),
    Property(
        "CB",
        "counts_bounded",
        "no map count exceeds processes x base pages, no reference count that + C + p + b",
        "always",
        fatal=True,
    ),
    Property(
        "MS",
        "migration_succeeds_when_unpinned",
        "migrate .. all moves a huge page that only mappings hold",
        "p = b = 0, the caller maps it",
        of_step=True,
        families=MIGRATE,
    ),
    Property(
        "MP",
        "moved_when_private",
        "a plain migrate does not skip a huge page that one process maps",
        "p = b = 0, W = 1",
        of_step=True,
        families=MIGRATE,
    ),
    Property(
        "NM",
        "never_moved_when_shared",
        "a plain migrate skips a huge page that two processes map",
        "p = b = 0, W >= 2",
        of_step=True,
        families=MIGRATE,
        processes=2,
    ),
    Property(
        "TC",
        "truncate_completes",
        "a page that a hole punch or truncate takes out of the cache has no reference left",
        "such a page, p = b = 0",
        of_step=True,
        families=DROPS,
    ),
    Property(
        "RC",
        "refusal_changes_no_count",
        "an operation that is refused with nothing done changes no count",
        "such a refusal",
        of_step=True,
        families=REFUSABLE,
    ),
    Property("OS", "overflow_safe", "no count passes 2^31 - 1", "an increment", of_step=True, fatal=True),
)
"""In the order of their numbers in search.pyx."""

BY_NAME = {p.name: p for p in PROPERTIES}
NUMBER = {p.name: i for i, p in enumerate(PROPERTIES)}


def promise(engine, name: str) -> str:
    """ "promised", or what the scheme says of a property that it does not promise: "definition" or "fault"."""
    return engine.exceptions.get(name, "promised")


def asked(prop: Property, scope) -> bool:
    """Can the premise hold in a scope at all?"""
    return scope.processes >= prop.processes and (not prop.families or bool(set(prop.families) & set(scope.ops)))
