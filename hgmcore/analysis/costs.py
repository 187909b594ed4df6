"""What one operation costs under each scheme, counted: small traces, before and after.

The huge page may have any size. Every piece is a base page and every operation handles one piece, so nothing is
batched.
"""

from __future__ import annotations

from hgmcore import schemes
from hgmcore.api import Machine
from hgmcore.geometry import GEOMETRIES
from hgmcore.sizes import parse_size
from hgmcore.trace import Trace

START = """hgmcore-trace 1
geometry {geometry}
file F {page} 1
populate F 0 1
mmap A v F 0 {page} shared minor wp hgm
mmap B w F 0 {page} shared minor hgm
"""


def pieces(pages, base, process="A", mapping="v", first=0):
    """`continue` of one base page after the other."""
    return "\n".join(f"continue {process} {mapping} {i * base} {base}" for i in range(first, pages))


ACTIONS = {
    "map the first piece": ("", "continue A v 0 {base}"),
    "map another piece": ("continue A v 0 {base}", "continue A v {far} {base}"),
    "map it whole": ("", "continue A v 0 {page}"),
    "map all pieces, one by one": ("", "{all}"),
    "unmap a piece, not the last": ("continue A v 0 {base}\ncontinue A v {far} {base}", "dontneed A v {far} {base}"),
    "unmap the last piece": ("continue A v {far} {base}", "dontneed A v {far} {base}"),
    "unmap all pieces at once": ("{all}", "dontneed A v 0 {page}"),
    "fork, copying all pieces": ("{all}", "fork A C"),
    "collapse all pieces": ("{all}", "collapse A v 0 {page}"),
    "punch a hole, all pieces mapped": ("{all}", "punch F 0 {page}"),
    "migrate, all pieces mapped": ("{all}", "migrate A v 0 {page} all"),
    "4K memory failure, mapped whole": ("continue A v 0 {page}", "hwpoison A v {far}"),
}
"""Name of each action: the statements that prepare it, and those that are counted."""


def action_cost(scheme: str, action: str, geometry: str = "x86-64", page_size="2M", **options) -> dict:
    """Cost of one action: ref, map, transient (atomics), lines, entries_scanned; and errors, names of refusals, also
    of what prepares it.

    lines: distinct struct pages on which the action executed persistent atomics.
    """
    base = GEOMETRIES[geometry].base_page
    page = parse_size(page_size)
    names = {"geometry": geometry, "page": page, "base": base, "far": page - base, "all": pieces(page // base, base)}
    prepare, counted = (part.format(**names) for part in ACTIONS[action])
    start = START.format(**names) + prepare
    trace = Trace.parse(f"{start}\n{counted}\n", name=action)
    first = len(Trace.parse(start, name=action))
    machine = Machine(scheme, geometry, **options)
    machine.declare(trace.header)
    machine.run(trace.records[:first])
    machine.core.lines_since()
    before = machine.cost()
    machine.run(trace.records[first:])
    after = machine.cost()
    cost = {word: after["atomics"][word] - before["atomics"][word] for word in ("ref", "map", "transient")}
    return {**cost, "lines": machine.core.lines_since(),
            "entries_scanned": after["entries_scanned"] - before["entries_scanned"],
            "errors": sorted({machine.error_name(row) for row in machine.results() if row["errno"]})}


def cost_table(names="all", geometry: str = "x86-64", page_size="2M", **options) -> dict:
    """{action: {scheme: action_cost(...)}} for schemes by name, or all."""
    names = schemes.names() if names == "all" else names
    return {action: {name: action_cost(name, action, geometry, page_size, **options) for name in names}
            for action in ACTIONS}
