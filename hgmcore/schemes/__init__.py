"""The accounting schemes: one file each, and the list of their names."""

from __future__ import annotations

import difflib
import importlib

NAMES = (
    "hugetlb", "head_per_leaf", "per_page_posted", "nr_pages_mapped", "subtree_posted", "subtree",
    "logical_scan", "logical_table", "logical_counter", "double_map", "large_mapcount", "mm_id",
    "no_page_mapcount", "total_mapped_pages", "leaf_and_vma", "per_vma", "special_bit",
)
"""Public names of all schemes, in the order in which tables show them. setup.py builds these."""


class UnknownScheme(ValueError):
    """A name that no scheme has."""

    def __init__(self, name: str):
        near = difflib.get_close_matches(name, NAMES, 1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        super().__init__(f"unknown scheme '{name}'{hint} (known: {', '.join(NAMES)})")


def load(name: str):
    """The compiled engine of a scheme: .name, .explanation, .state, .defaults. UnknownScheme if there is none."""
    if name not in NAMES:
        raise UnknownScheme(name)
    return importlib.import_module(f"hgmcore.schemes.{name}").engine
