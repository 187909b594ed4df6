"""After how many complete mappings of a huge page a count overflows, from a run."""

from __future__ import annotations

import functools

import numpy as np

from hgmcore import counting
from hgmcore.api import Machine
from hgmcore.geometry import GEOMETRIES
from hgmcore.sizes import format_size
from hgmcore.trace.statements import CODES, OPERATION

WORDS = ("_refcount", "_mapcount", "_large_mapcount", "_nr_pages_mapped", "_entire_mapcount", "_mm_id_mapcount")
"""The 32-bit counts of a struct page."""

FIRST, SLOTS = 2, 32
"""Struct pages that every scheme may write, and those behind them that have slots."""

LARGEST = (1 << 31) - 1  # INT_MAX


def maps_of(engine, header, **options) -> dict:
    """{"2M": n, "1G": n}: the n-th mapping of such a page, in base pages, is the first that makes a count overflow.

    The sizes are those of which one page-table entry maps a page, or of shmem the one, if the trace (its `header`) has
    no hugetlb; a scheme that maps huge pages whole alone maps them so. A page is mapped twice by VMAs of one process;
    each count of its struct pages grows by as much with every further mapping as it did with the second. A size is
    left out where a mapping was refused, or no count grows.
    """
    geometry = GEOMETRIES[header.geometry]
    on_hugetlb = any(file.kind == "hugetlb" for file in header.files) or not header.files
    kind = "hugetlb" if on_hugetlb else "shmem"
    sizes = [leaf.size for leaf in geometry.leaves[1:] if leaf.entries == 1 and leaf.size in geometry.page_sizes(kind)]
    found = {format_size(size): _first_to_overflow(engine, geometry.name, size, kind, tuple(options.items()))
             for size in sizes}
    return {size: number for size, number in found.items() if number is not None}


@functools.lru_cache(1024)
def _first_to_overflow(engine, geometry, page_size, kind, options):
    machine = Machine(counting.without_atomics(engine), geometry,
                      **{**dict(options), "transient": "counted", "overflow_check": "none"})
    file, process = machine.file("F", page_size, populate=True, kind=kind), machine.process("A")
    mappings = [process.mmap(file, name, minor=True, hgm=kind == "hugetlb" and not engine.whole_only)
                for name in ("v", "w")]
    piece = page_size if engine.whole_only else GEOMETRIES[geometry].base_page
    records, counts = np.zeros(page_size // piece, OPERATION), []
    records["op"], records["length"], records["offset"] = CODES["continue"], piece, np.arange(len(records)) * piece
    for mapping in mappings:
        records["target"] = mapping.number
        machine.run(records)
        counts.append(_counts(machine))
    growth = counts[1] - counts[0]
    if len(machine.results()) or growth.max() <= 0:
        return None
    grows = growth > 0
    return len(mappings) + 1 + int(((LARGEST - counts[1][grows]) // growth[grows]).min())


def _counts(machine):
    """The 32-bit counts of all struct pages of the only folio, an array of int64."""
    folio, engine = machine.core.folios()[0], machine.engine
    written = int(folio["nr_pages"]) if engine.writes_tails else FIRST + SLOTS if engine.has_slots else FIRST
    pages = machine.core.pages(int(folio["pfn"]), min(written, int(folio["nr_pages"])))
    return np.concatenate([pages[word].astype(np.int64).ravel() for word in WORDS])
