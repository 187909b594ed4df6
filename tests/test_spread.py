"""Counts that each CPU or process keeps for itself, and sums of process numbers: by hand, slot by slot."""

import itertools

import pytest

import hgmcore as hgm
from hgmcore import Trace, schemes
from hgmcore.model.events import count_events

BY_CPU = ("percpu_counter", "sloppy_counter", "percpu_ref")
START = """hgmcore-trace 1
file F 2M 1
populate F 0 1
mmap A v F 0 2M shared minor hgm
mmap B v F 0 2M shared minor hgm
"""


def ran(text, scheme, start=START, **options):
    """A machine on which the lines ran, each thread on a CPU of its own, and its only folio."""
    trace = Trace.parse(start + text.replace("; ", "\n") + "\n")
    machine = hgm.Machine(scheme, **options)
    machine.run(trace)
    return machine, machine.observe()["folios"][0]


def slots(machine, n=4):
    """The slots of the first folio, which has at least 34 base pages: one in each page from page 2 on."""
    return machine.core.pages(0, 2 + n)["_mm_id_mapcount"][2:, 0].tolist()


@pytest.mark.parametrize("scheme, text, expected, refs, maps", [
    ("percpu_counter", "@1 continue A v 0 8K; @2 continue B v 0 4K", [0, 2, 1, 0], 4, 3),
    ("percpu_counter", "@1 continue A v 0 8K; @2 dontneed A v 0 8K", [0, 2, -2, 0], 1, 0),
    ("percpu_counter", "@33 continue A v 0 4K", [0, 1, 0, 0], 2, 1),    # of 32 slots
    ("sloppy_counter", "@1 continue A v 0 8K; @2 dontneed A v 0 4K", [0, 0, 1, 0], 3, 1),
    ("sloppy_counter", "@1 continue A v 0 8K; @2 dontneed A v 0 4K; @2 continue B v 0 8K", [0, 0, 0, 0], 4, 3),
    ("sloppy_counter", "@1 continue A v 0 32K; @1 dontneed A v 0 32K", [0, 8, 0, 0], 9, 0),
    ("sloppy_counter", "@1 continue A v 0 36K; @1 dontneed A v 0 36K", [0, 0, 0, 0], 1, 0),
    ("sloppy_counter", "@1 continue A v 0 8K; dontneed A v 0 4K; @2 migrate A v 0 2M all", [0, 0, 0, 0], 1, 0),
    ("percpu_ref", "@1 continue A v 0 8K; @2 dontneed A v 0 4K", [0, 2, -1, 0], 2, 1),
    ("percpu_ref", "@1 continue A v 0 8K; pin F 0 1; @2 migrate A v 0 2M all", [0, 0, 2, 0], 3, 2),    # begins anew
    ("snzi", "@1 continue A v 0 8K; @1 continue B v 0 4K", [2, 1, 0, 0], 3, 2),
    ("snzi", "@1 continue A v 0 8K; @2 dontneed A v 0 4K; dontneed A v 4K 4K", [0, 0, 0, 0], 1, 0),
])
def test_slots(scheme, text, expected, refs, maps):
    machine, folio = ran(text, scheme)
    if "migrate" in text and "pin" not in text:
        return    # the old folio is gone; what is left of it shows below
    assert (slots(machine), folio["refcount"], folio["mapcount"]) == (expected, refs, maps)


@pytest.mark.parametrize("scheme", [*BY_CPU, "snzi"])
@pytest.mark.parametrize("last", ["truncate F 0", "punch F 0 2M"])
def test_who_keeps_counts_for_himself_frees_the_page_when_it_goes(scheme, last):
    """Whatever each CPU had left of it."""
    text = "@1 continue A v 0 64K; @2 continue B v 0 2M; @3 dontneed A v 0 40K; @1 dontneed B v 0 8K; "
    machine, folio = ran(text + "pin F 0 1; " + last + "; observe", scheme)
    assert (folio["refcount"], folio["mapcount"], folio["mapped"]) == (1, 0, False)


@pytest.mark.parametrize("scheme", [*BY_CPU, "snzi"])
def test_a_page_that_was_mapped_by_several_cpus_can_be_moved(scheme):
    text = "@1 continue A v 0 64K; @2 continue B v 0 2M; @3 dontneed A v 0 40K; @2 migrate A v 0 2M all"
    machine, folio = ran(text, scheme)
    assert len(machine.results()) == 0 and folio["mapcount"] in (6 + 1, 2)


@pytest.mark.parametrize("scheme", [*BY_CPU, "snzi", "rmap_id"])
def test_native_threads_change_no_count(scheme):
    lines = "".join(f"@{i % 4} continue {'AB'[i % 4 // 2]} v {i * 4}K 4K\n" for i in range(512))
    trace = Trace.parse(START + lines)
    one, two = (hgm.replay(trace, scheme, observe_end=True, threads=threads) for threads in (1, 2))
    assert one["cost"]["atomics"] == two["cost"]["atomics"] and one["counters"] == two["counters"]
    assert [folio["mapcount"] for folio in one["observations"][-1]["folios"]] == [
        folio["mapcount"] for folio in two["observations"][-1]["folios"]]


def test_a_line_of_ones_own_never_moves():
    """Two CPUs by turns: the head's line moves each time, the slots' never do."""
    lines = START + "".join(f"@{i % 2} continue {'AB'[i % 2]} v {i * 4}K 4K\n" for i in range(64))
    trace = Trace.parse(lines)
    moved = {scheme: sum(count_events(trace, scheme, 1 << 20).total()[name] for name in ("moved_blind", "moved_read"))
             for scheme in ("head_per_leaf", "percpu_counter", "percpu_ref")}
    assert moved["head_per_leaf"] == 2 * moved["percpu_counter"] > 100
    events = count_events(trace, "percpu_ref", 1 << 20).total()
    assert (events["atomic"], events["plain"]) == (1 + 2 * 63, 64 + 1)    # look-ups that do not stay; the mode


NAMES = "ABCDEFGH"


@pytest.mark.parametrize("values", ["4", "3"])
@pytest.mark.parametrize("size, digits", [("2M", 6), ("1G", 3)])
def test_sums_tell_one_owner_from_several(values, size, digits):
    """Of any two or three of eight processes, also where one's number is made of the bits of the others."""
    start = f"hgmcore-trace 1\nfile F {size} 1\npopulate F 0 1\n" + "".join(
        f"mmap {name} v F 0 {size} shared minor hgm\n" for name in NAMES)
    for names in (*itertools.combinations(NAMES, 2), *itertools.combinations(NAMES, 3)):
        maps = "; ".join(f"continue {name} v {8 * i}K 8K" for i, name in enumerate(names))
        goes = [f"dontneed {name} v {8 * i}K 8K" for i, name in enumerate(names)]
        assert ran(maps, "rmap_id", start, rmap_values=values)[1]["maybe_shared"], names
        for i in range(len(names)):
            others = "; ".join(goes[:i] + goes[i + 1:])
            assert not ran(f"{maps}; {others}", "rmap_id", start, rmap_values=values)[1]["maybe_shared"], names


def test_a_third_process_is_no_error_of_the_sums():
    """As it is of two slots (mm_id)."""
    start = START + "mmap C v F 0 2M shared minor hgm\n"
    text = "continue A v 0 8K; continue B v 0 8K; continue C v 0 8K; dontneed A v 0 8K; dontneed B v 0 8K"
    assert ran(text, "mm_id", start)[1]["maybe_shared"] and not ran(text, "rmap_id", start)[1]["maybe_shared"]


@pytest.mark.parametrize("name", [*BY_CPU, "snzi", "rmap_id"])
def test_a_scheme_says_what_a_query_costs_and_what_was_published(name):
    text = " ".join(schemes.load(name).explanation.split())
    assert " query " in text and ("Published" in text or name == "rmap_id")
