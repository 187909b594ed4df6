"""Streaks: records in a row of one base page each go a short way, which does what each record alone does the long way.

A streak ends at the end of the huge page, at an entry that is not as expected, and where records change; it goes on in
another table of the same huge page. A record alone in its array never is in a streak.
"""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hgmcore as hgm
from comparing import assert_same, assert_same_observation, plain, replay_in_core, replay_in_model
from hgmcore import Trace, truth
from hgmcore.geometry import GEOMETRIES
from model import SCHEMES

START = """
file F 2M 3
file L 1G 1
populate F 0 2
populate L 0 1
mmap A v F 0 4M shared minor hgm wp
mmap A u F 0 6M shared hgm
mmap A r F 0 6M shared
mmap A p F 0 6M private
mmap A w L 0 1G shared minor hgm wp
mmap A x L 0 1G shared hgm
"""


def pieces(verb, mapping, pages, more=""):
    length = "" if verb == "touch" else " 4K"
    return "\n".join(f"{verb} A {mapping} {page * 4}K{length}{more}" for page in pages)


# Touches make no table: a continue through v or w does, or a discard of what a continue mapped.
TABLES = "\n".join(["register A u minor", "register A x minor", pieces("continue", "u", [1, 513]),
                    pieces("continue", "x", [1, 513, 1025]), "unregister A u", "unregister A x"])
CASES = {
    "touches across tables, back, again and into a hole": [TABLES, pieces("touch", "x", [
        510, 511, 512, 513, 1023, 1024, 0, 1, 511, 512, 3, 3, 4, 2048, 2049, 5, 6])],
    "touches across huge pages and beyond the mapping": [TABLES, pieces("touch", "u", [
        1, 0, 511, 512, 513, 2, 1023, 1024, 1025, 5, 1536, 1537, 6, 2**51 - 1, 7, 8])],
    "touches anywhere in a page": [TABLES, "touch A u 1\ntouch A u 4095\ntouch A u 4097\ntouch A u 2M\ntouch A u 2097151",
                                   "touch A x 2097151\ntouch A x 2097153\ntouch A x 2097152\ntouch A x 1"],
    "touches that write": [TABLES, pieces("touch", "u", [2, 3, 4], " write"), pieces("touch", "u", [4, 3, 5])],
    "touches of what may only be read": [
        TABLES, "mprotect A u 0 2M r", pieces("touch", "u", [2, 3]), pieces("touch", "u", [3, 4], " write"),
        pieces("touch", "u", [3, 4]), "mprotect A u 0 2M none", pieces("touch", "u", [2, 5])],
    "touches that raise events": [TABLES, pieces("touch", "v", [0, 1, 2]), pieces("continue", "v", [2, 3, 4]),
                                  pieces("touch", "v", [1, 2, 3, 4, 5, 512, 513, 1024])],
    "touches of whole and of private pages": [pieces("touch", "r", [1, 2, 512, 513, 1024, 1536]),
                                              pieces("touch", "p", [1, 2, 512]), pieces("touch", "p", [1, 2], " write")],
    "touches of leaves between base pages": [TABLES, "register A x minor", "continue A x 4M 2M", "unregister A x",
                                             pieces("touch", "x", [1024, 1535, 1536, 1537, 3, 1030, 4])],
    "touches of a page that failed": [TABLES, pieces("touch", "u", [2, 3]), "hwpoison A u 8K",
                                      pieces("touch", "u", [1, 2, 3, 4, 5, 512, 514])],
    "discards of nothing, one, the last, and what is mapped twice": [
        pieces("continue", "v", [0, 1, 2, 511, 512, 1023]), pieces("dontneed", "v", [5, 4, 2, 3, 2, 511, 510, 0, 1]),
        pieces("dontneed", "v", [512, 1023, 1024, 1023, 0]), pieces("continue", "v", [1, 0, 512])],
    "discards across tables": [pieces("continue", "w", [510, 511, 512, 513, 1023, 1024]), pieces(
        "dontneed", "w", [511, 512, 0, 2048, 510, 513, 1024, 1023, 1022])],
    "discards out of leaves": [pieces("continue", "w", [0, 1, 2, 600]), "continue A w 4M 2M",
                               pieces("dontneed", "w", [1, 1024, 1025, 2, 0, 600])],
    "discards that other records cut": [
        pieces("continue", "v", range(12)), pieces("dontneed", "v", [1, 2]), "dontneed A v 12K 0\ndontneed A v 14K 4K",
        "dontneed A v 16K 1", pieces("dontneed", "v", [5]), "dontneed A v 24K 8K", pieces("dontneed", "v", [8, 9]),
        "dontneed A v 9223372036854771712 4K", pieces("dontneed", "v", [10, 11])],
    "discards of what may be no pieces": [pieces("touch", "r", [0, 512]), pieces("dontneed", "r", [0, 1, 512]),
                                          "dontneed A r 0 2M"],
    "discards of a page that failed": [pieces("continue", "v", [0, 1, 2, 3]), "hwpoison A v 8K",
                                       pieces("dontneed", "v", [3, 2, 1, 0]), pieces("continue", "v", [2])],
    "one after another": [TABLES, *[pieces(verb, "x", [2, 3, 4]) for verb in ("touch", "dontneed", "dontneed", "touch")],
                          pieces("dontneed", "x", [4, 1]), "fail 1", pieces("touch", "x", [4, 1])],
    "continues of a table that memory failure left behind": [
        "register A r minor", "continue A r 0 2M", "hwpoison A r 4K", "punch F 0 2M", "populate F 0 1",
        "continue A r 0 2M", pieces("continue", "r", [2, 3, 4]), "unregister A r", pieces("touch", "r", [0, 1, 2])],
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_streaks_count_as_the_model_says(scheme, case):
    text = "\n".join([START, *CASES[case], "observe"])
    for options in {}, {"transient": "real", "zap_frees_tables": "no", "lookup_first": "no"}:
        expected, got = replay_in_model(text, scheme, **options), replay_in_core(text, scheme, **options)
        assert got.operations == expected.operations, options
        assert_same_observation(expected.observations[0], got.observations[0])
        assert_same(expected.cost, got.cost, f"cost with {options}")
        assert got.counters == expected.counters, options


# Random bursts of records in a few tables; now and then one that is odd, or another operation.
OPTIONS = [{}, {}, {"transient": "real"}, {"policy": "base_only"}, {"locks": "pt"}, {"locks": "posted"},
           {"lookup_first": "yes", "zap_frees_tables": "yes"}, {"lookup_first": "no", "zap_frees_tables": "no"},
           {"batch": "yes", "cache_refs": "folio"}, {"rmap_aware": "yes"}, {"model": "posted"}, {"overflow_check": "half"}]
MAPPINGS = {"v": ("F", "shared minor hgm wp"), "u": ("F", "shared hgm"), "s": ("F", "shared minor"), "p": ("F", "private"),
            "w": ("L", "shared minor hgm"), "x": ("L", "shared hgm")}
OTHERS = ("populate F 0 3", "punch F 0 {F}", "hwpoison A {name} {place}", "collapse A {name} 0 {F}", "fail 1",
          "register A {name} minor", "unregister A {name}", "unregister A {name}", "munmap A {name} 0 {huge}",
          "continue A {name} {place} {F}", "continue A {name} 0 {F}", "dontneed A {name} 0 {huge}",
          "mprotect A {name} 0 {huge} r", "mprotect A {name} 0 {huge} rw", "split A {name} 0 {huge}",
          "fork A B", "touch A {name} {place} write")

index = st.one_of(st.sampled_from([0, 1, 2, -1, -2]), st.integers(0, 40))    # in its table
place = st.tuples(st.sampled_from([0, 0, 0, 1, 2, 3]), index)
places = st.one_of(
    st.lists(place, min_size=1, max_size=6),
    st.builds(lambda first, n, step: [(first[0], first[1] + i * step) for i in range(n)],
              place, st.integers(2, 60), st.sampled_from([1, 1, 2, -1])))
odd = st.sampled_from(["{at} {page}"] * 8 + ["{at} 0", "{at} {pages}", "{behind} {page}", "{at} {half}", "{last} {page}"])
verb = st.sampled_from(["continue"] * 3 + ["touch"] * 4 + ["dontneed"] * 3)
burst = st.tuples(verb, st.sampled_from("vvvuuuwwxxsp"), places, st.integers(0, 80), odd)
other = st.tuples(st.sampled_from(OTHERS), st.sampled_from("vuwxsp"), st.lists(place, min_size=1, max_size=1))
step = st.one_of(burst, burst, burst, other)


def statements(steps, geometry):
    """The text of a trace: files F, of huge pages of one table, and L, of the largest; and the steps on them."""
    base, table = geometry.base_page, geometry.base_page << geometry.index_bits
    huge = {"F": table, "L": geometry.hugetlb_sizes[-1]}
    lines = [f"file F {table} 3", f"file L {huge['L']} 1", "populate F 0 2", "populate L 0 1"]
    lines += [f"mmap A {name} {file} 0 {huge[file] * (3 if file == 'F' else 1)} {flags}"
              for name, (file, flags) in MAPPINGS.items()]
    for verb, name, where, *strange in steps:
        offsets = [(table // base * number + index) * base for number, index in where]
        if not strange:
            lines.append(verb.format(name=name, place=max(offsets[0], 0), F=table, huge=huge[MAPPINGS[name][0]]))
            continue
        for number, at in enumerate(offsets):
            text = strange[1] if number == strange[0] else "{at} {page}"
            if verb == "touch":
                text = text.split()[0] if number % 3 else "{behind}"
            lines.append(f"{verb} A {name} " + text.format(
                at=max(at, 0), page=base, pages=2 * base, half=base // 2 + 1, behind=max(at, 0) + 1,
                last=2**63 - base))
    forks = [number for number, line in enumerate(lines) if line == "fork A B"]
    return "\n".join(line for number, line in enumerate(lines) if number not in forks[1:])


def ran(trace, scheme, at_once, **options):
    """What the trace's operations come to, in one array or each in one of its own."""
    machine = hgm.Machine(scheme, trace.header.geometry, **options)
    machine.declare(trace.header)
    n = len(trace) if at_once else 1
    for first in range(0, len(trace), n):
        machine.run(trace.operations[first:first + n])
    leaves = {name: truth.leaves(machine.core)[name].tolist() for name in truth.leaves(machine.core).dtype.names}
    return machine.results().tolist(), machine.cost(), plain(machine.observe()), leaves


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(max_examples=60, deadline=None)
@given(st.lists(step, min_size=2, max_size=14), st.sampled_from(OPTIONS), st.sampled_from(sorted(GEOMETRIES)))
def test_records_at_once_come_to_what_each_alone_does(scheme, steps, options, geometry):
    trace = Trace.parse(f"hgmcore-trace 1\ngeometry {geometry}\n" + statements(steps, GEOMETRIES[geometry]) + "\n")
    trace.operations["offset"][trace.operations["offset"] >= 2**63 - 2**20] += np.uint64(2**63)    # text ends there
    expected, got = ran(trace, scheme, False, **options), ran(trace, scheme, True, **options)
    for part, one, other in zip(("results", "cost", "observation", "leaves"), expected, got):
        assert other == one, part
