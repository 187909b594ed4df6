"""Struct pages that memory needs, modelled: with and without HVO, the HugeTLB vmemmap optimisation."""

from __future__ import annotations

import numpy as np

from hgmcore.geometry import GEOMETRIES
from hgmcore.sizes import format_size

STRUCT_PAGE = 64
"""Bytes of the structure that the kernel has for each base page."""


def kept_by_hvo(pages, base_page):
    """Bytes of struct pages that HVO leaves to a huge page of `pages` base pages; arrays element by element.

    One base page of struct pages, or what there is if that is less.
    """
    return np.minimum(np.asarray(pages) * STRUCT_PAGE, base_page)


def struct_pages(engine, header, machine_size):
    """What struct pages of 64 bytes a machine of `machine_size` bytes needs under a scheme, modelled.

    For each size of the trace's HugeTLB pages, all the memory is in such pages. A scheme that writes only the
    first struct pages can live with HVO, and then needs what that keeps. Others, and memory that makes no whole
    huge page, need a struct page for every base page. Returns {"2M": bytes, ...}.
    """
    base = GEOMETRIES[header.geometry].base_page
    needed = {}
    for size in sorted({file.page_size for file in header.files if file.kind == "hugetlb"}):
        pages = size // base
        of_one = pages * STRUCT_PAGE if engine.writes_tails else int(kept_by_hvo(pages, base))
        rest = machine_size % size // base * STRUCT_PAGE
        needed[format_size(size)] = machine_size // size * of_one + rest
    return needed
