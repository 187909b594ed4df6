"""Counterexamples of a tiny geometry, rewritten for x86-64 and tried there.

Base page i of tiny-2, tiny-4 and tiny-8 becomes the 4K piece i of a 2M page; base page j of table m of tiny-2x2 becomes
the piece at 2M * m + 4K * j of a 1G page. A trace that needs all base pages of a huge page mapped one by one does not
carry over, nor do averages; so each is run, and only one that breaks the same property is kept.
"""

from __future__ import annotations

import re

from hgmcore.explore.observed import JUDGED, Ground, judged
from hgmcore.sizes import format_size

K, M, G = 2**10, 2**20, 2**30
HUGE = {"tiny-2": 2 * M, "tiny-4": 2 * M, "tiny-8": 2 * M, "tiny-2x2": 1 * G}


def on_x86_64(checked, name: str, steps) -> list[str] | None:
    """The statements of a trace on x86-64, or None if it cannot be rewritten or does not break `name` there.

    checked: the search that found it. steps: of a trace in the user's names.
    """
    scope = checked.scope
    if name not in JUDGED or scope.geometry not in HUGE:
        return None
    lines = rewritten(scope, steps)
    ground = Ground("x86-64", "x86-64", (("F", HUGE[scope.geometry], scope.pages, ""),), (), ())
    found = [names for _, names in judged(checked.engine, ground, lines[1:], checked.given)]
    return ["hgmcore-trace 1", *lines] if found and name in found[-1] else None


def rewritten(scope, steps) -> list[str]:
    """The statements of a trace with the sizes and places of x86-64; the scope's geometry is one of HUGE."""
    lines = [*scope.preamble(), *(line for step in steps for line in step.lines())]
    return [re.sub(r"\b\d+K\b", lambda found: _place(scope, int(found[0][:-1]) * K), line) for line in lines]


def _place(scope, value):
    """An offset or a length in bytes: the two are rewritten alike."""
    page, rest = divmod(value, scope.huge)
    piece = rest // scope.base
    at = 2 * M * (piece // 2) + 4 * K * (piece % 2) if scope.geometry == "tiny-2x2" else 4 * K * piece
    return format_size(page * HUGE[scope.geometry] + at)
