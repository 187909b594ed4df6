"""Tiny geometries: loops made for tables of 512 entries must not run on smaller ones; addresses must not run out."""

import random

import numpy as np
import pytest

import hgmcore as hgm
from hgmcore import geometry
from hgmcore.geometry import GEOMETRIES, TINY, Geometry, Leaf
from hgmcore.schemes import NAMES

SCHEMES = ("head_per_leaf", "logical_counter", "logical_scan", "special_bit", "subtree", "mm_id")


def larger(name):
    """The same geometry with base pages of 8K, for which no loop has constants."""
    g = GEOMETRIES[name]
    return Geometry(
        name,
        g.base_shift + 1,
        g.index_bits,
        g.levels,
        tuple(Leaf(leaf.shift + 1, leaf.level, leaf.entries) for leaf in g.leaves),
    )


def walk(seed, g, steps=60):
    """Random statements, in sizes of `g`: its numbers of base pages are the same whatever a base page has."""
    pick, base, huge = random.Random(seed), g.base_page, g.leaf_sizes[-1]
    lines = [f"geometry {g.name}", f"file F {huge} 2"]
    lines += [f"mmap {p} v F 0 {2 * huge} shared minor hgm" for p in "AB"]
    for _ in range(steps):
        kind = pick.choice(
            ["continue"] * 4 + ["touch", "dontneed", "collapse", "populate", "populate", "punch", "migrate", "mapping"]
        )
        p, h, size = pick.choice("AB"), pick.randrange(2), pick.choice(g.leaf_sizes)
        at = pick.randrange(0, 2 * huge, size)
        if kind in ("continue", "dontneed", "collapse"):
            lines += [
                f"{kind} {p} v {at + i * size} {size}"
                for i in range(pick.choice([1, 1, 3]))
                if at + i * size < 2 * huge
            ]
        elif kind == "touch":
            lines.append(f"touch {p} v {pick.randrange(0, 2 * huge, base)}")
        elif kind == "populate":
            lines.append(f"populate F {h} 1")
        elif kind == "punch":
            lines.append(f"punch F {h * huge} {huge}")
        elif kind == "migrate":
            lines.append(f"migrate {p} v {h * huge} {huge} all")
        else:
            lines += [f"munmap {p} v 0 {2 * huge}", f"mmap {p} v F 0 {2 * huge} shared minor hgm"]
    return "hgmcore-trace 1\n" + "\n".join(lines)


def outcome(monkeypatch, g, seed, scheme):
    monkeypatch.setitem(geometry.GEOMETRIES, g.name, g)
    trace = hgm.Trace.parse(walk(seed, g))
    machine = hgm.Machine(scheme, g.name, reserve="16M")
    machine.declare(trace.header)
    machine.run(trace.operations)
    results = [(int(r["index"]), int(r["done"]) // g.base_page, int(r["errno"])) for r in machine.results()]
    folios = machine.core.folios()
    counts = [tuple(map(tuple, machine.core.page_mapcount(machine.engine, i))) for i in range(len(folios))]
    return results, folios["refcount"].tolist(), counts


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_size_of_a_base_page_changes_nothing(monkeypatch, name, scheme):
    small, large = GEOMETRIES[name], larger(name)
    for seed in range(20):
        assert outcome(monkeypatch, small, seed, scheme) == outcome(monkeypatch, large, seed, scheme)


@pytest.mark.parametrize("scheme", [NAMES[0], "head_per_leaf"])
def test_a_process_that_maps_nothing_gets_its_addresses_back(scheme):
    lines = ["mmap A v F 0 16K shared hgm", "touch A v 0", "munmap A v 0 16K"] * 20
    trace = hgm.Trace.parse("hgmcore-trace 1\ngeometry tiny-2x2\nfile F 16K 1\n" + "\n".join(lines))
    machine = hgm.Machine(scheme, "tiny-2x2", reserve="16M")
    machine.declare(trace.header)
    machine.run(trace.operations)
    assert not len(machine.results())
    assert int(machine.core.folios()["refcount"][0]) == 1


def test_addresses_run_out_where_something_is_mapped():
    lines = ["mmap A w F 0 16K shared", *["mmap A v F 0 16K shared", "munmap A v 0 16K"] * 4]
    trace = hgm.Trace.parse("hgmcore-trace 1\ngeometry tiny-2x2\nfile F 16K 1\n" + "\n".join(lines))
    machine = hgm.Machine("head_per_leaf", "tiny-2x2", reserve="16M")
    machine.declare(trace.header)
    machine.run(trace.operations)
    assert np.count_nonzero(machine.results()["errno"] == 12) == 1
