"""Streaks: records in a row of one base page, or one table, each go a short way, which does what each alone does.

A streak ends at the end of the huge page, at an entry that is not as expected, and where records change; it goes on in
another table of the same huge page. A record alone in its array never is in a streak.
"""
from random import Random

import numpy as np
import pytest
from comparing import assert_same, assert_same_observation, plain, replay_in_core, replay_in_model
from model import SCHEMES
from sequences import EXAMPLES

import hgmcore as hgm
from hgmcore import Trace
from hgmcore.core import truth
from hgmcore.geometry import GEOMETRIES

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


def collapses(mapping, tables):
    return "\n".join(f"collapse A {mapping} {table * 2}M 2M" for table in tables)


# Touches make no table: a continue through v or w does, or a discard of what a continue mapped.
TABLES = "\n".join(["register A u minor", "register A x minor", pieces("continue", "u", [1, 513]),
                    pieces("continue", "x", [1, 513, 1025]), "unregister A u", "unregister A x"])
CASES = {
    "touches across tables, back, again and into a hole": [TABLES, pieces("touch", "x", [
        510, 511, 512, 513, 1023, 1024, 0, 1, 511, 512, 3, 3, 4, 2048, 2049, 5, 6])],
    "touches across huge pages and beyond the mapping": [TABLES, pieces("touch", "u", [
        1, 0, 511, 512, 513, 2, 1023, 1024, 1025, 5, 1536, 1537, 6, 2**51 - 1, 7, 8])],
    "touches anywhere in a page": [TABLES, "touch A u 1\ntouch A u 4095\ntouch A u 4097\ntouch A u 2M",
                                   "touch A u 2097151",
                                   "touch A x 2097151\ntouch A x 2097153\ntouch A x 2097152\ntouch A x 1"],
    "touches that write": [TABLES, pieces("touch", "u", [2, 3, 4], " write"), pieces("touch", "u", [4, 3, 5])],
    "touches of what may only be read": [
        TABLES, "mprotect A u 0 2M r", pieces("touch", "u", [2, 3]), pieces("touch", "u", [3, 4], " write"),
        pieces("touch", "u", [3, 4]), "mprotect A u 0 2M none", pieces("touch", "u", [2, 5])],
    "touches that raise events": [TABLES, pieces("touch", "v", [0, 1, 2]), pieces("continue", "v", [2, 3, 4]),
                                  pieces("touch", "v", [1, 2, 3, 4, 5, 512, 513, 1024])],
    "touches of whole and of private pages": [pieces("touch", "r", [1, 2, 512, 513, 1024, 1536]),
                                              pieces("touch", "p", [1, 2, 512]),
                                              pieces("touch", "p", [1, 2], " write")],
    "touches of leaves between base pages": [TABLES, "register A x minor", "continue A x 4M 2M", "unregister A x",
                                             pieces("touch", "x", [1024, 1535, 1536, 1537, 3, 1030, 4])],
    "touches of a page that failed": [TABLES, pieces("touch", "u", [2, 3]), "hwpoison A u 8K",
                                      pieces("touch", "u", [1, 2, 3, 4, 5, 512, 514])],
    "a page that failed where it was not mapped": [
        TABLES, pieces("continue", "v", [0, 1, 2]), "hwpoison A v 12K", pieces("touch", "u", [2, 3, 3, 4]),
        pieces("continue", "v", [2, 3, 4, 5, 512, 513]), pieces("dontneed", "v", [1, 3, 0])],
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
    "collapses of full tables, of holes, of none, of leaves": [
        *(pieces("continue", "w", range(table * 512, table * 512 + 512)) for table in (0, 1, 5)),
        pieces("continue", "w", [2 * 512, 2 * 512 + 7, 3 * 512 + 1, 4 * 512, 6 * 512 + 511, 7 * 512]),
        pieces("dontneed", "w", [4 * 512, 513]),
        collapses("w", [0, 1, 2, 3, 4, 9, 5, 5, 6, 7, 511, 7]), pieces("continue", "w", [4 * 512, 8 * 512, 513]),
        "dontneed A w 2M 2M", pieces("continue", "w", [512]), collapses("w", [8, 1, 4]), "collapse A w 0 1G",
        collapses("w", [0, 1])],
    "collapses of every table, twice, and zaps between": [
        pieces("continue", "w", range(0, 512 * 40, 512)), collapses("w", range(40)), "dontneed A w 0 80M",
        pieces("continue", "w", range(0, 512 * 40, 256)), collapses("w", range(39, -1, -1)), "observe"],
    "collapses that other records cut": [
        pieces("continue", "w", range(0, 512 * 20, 512)), collapses("w", [0, 1]), "collapse A w 4M 0",
        "collapse A w 4M 4K",
        "collapse A w 4M 2097151", collapses("w", [3]), "collapse A w 8M 4M", collapses("w", [6]),
        "collapse A w 14684160 2M", "collapse A x 14M 2M", collapses("w", [8]), "collapse A v 0 2M",
        collapses("w", [9, 512, 10]), "collapse A w 9223372036854771712 2M", collapses("w", [11, 12]),
        "collapse A w 0 1G"],
    "collapses through several mappings and of what may be no pieces": [
        TABLES, pieces("continue", "w", [0, 512, 1024]), collapses("x", [0, 1, 2, 3]), collapses("w", [0, 1, 2]),
        pieces("continue", "v", [0, 512]), collapses("v", [0, 1, 0]), collapses("r", [0, 1]), collapses("p", [0, 1])],
    "collapses around a page that failed": [
        pieces("continue", "w", [0, 512, 1024, 1536]), collapses("w", [0, 1]), "hwpoison A w 4M",
        collapses("w", [2, 3, 0]),
        pieces("dontneed", "w", [1024])],
    "one after another": [TABLES,
                          *[pieces(verb, "x", [2, 3, 4]) for verb in ("touch", "dontneed", "dontneed", "touch")],
                          pieces("dontneed", "x", [4, 1]), "fail 1", pieces("touch", "x", [4, 1])],
    "continues and touches that an overflow check refuses": [
        TABLES, "pin F 0 1073741818", pieces("continue", "v", range(4)), pieces("touch", "u", [2, 3, 4]),
        pieces("dontneed", "v", [0, 1, 2]), pieces("touch", "u", [2, 3, 4, 5])],
    "continues into emptied tables, behind one that they refuse": [
        pieces("continue", "v", [0, 1]), pieces("dontneed", "v", [0, 1]), "continue A v 0 2M",
        pieces("continue", "v", [2, 3, 4]),
        pieces("continue", "w", [0, 600]), pieces("dontneed", "w", [0, 600]), "continue A w 2M 2M",
        pieces("continue", "w", [601, 2, 600, 3]), pieces("dontneed", "w", [2, 601, 600, 3])],
    "continues of a table that memory failure left behind": [
        "register A r minor", "continue A r 0 2M", "hwpoison A r 4K", "dontneed A r 0 2M",
        pieces("dontneed", "r", [2, 3]), "continue A r 0 2M", pieces("continue", "r", [2, 3]), "punch F 0 2M",
        "populate F 0 1",
        "continue A r 0 2M", pieces("continue", "r", [2, 3, 4]), "unregister A r", pieces("touch", "r", [0, 1, 2])],
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_streaks_count_as_the_model_says(scheme, case):
    text = "\n".join([START, *CASES[case], "observe"])
    for options in ({}, {"transient": "counted", "zap_frees_tables": "no", "lookup_first": "no"},
                    {"overflow_check": "half"}):
        expected, got = replay_in_model(text, scheme, **options), replay_in_core(text, scheme, **options)
        assert got.operations == expected.operations, options
        assert_same_observation(expected.observations[0], got.observations[0])
        assert_same(expected.cost, got.cost, f"cost with {options}")
        assert got.counters == expected.counters, options


# Random bursts of records in a few tables; now and then one that is odd, or another operation.
OPTIONS = [{}, {}, {"transient": "counted"}, {"policy": "base_only"}, {"locks": "pt"}, {"locks": "posted"},
           {"model": "posted"}, {"lookup_first": "yes", "zap_frees_tables": "yes"},
           {"lookup_first": "no", "zap_frees_tables": "no"}, {"batch": "yes", "cache_refs": "folio"},
           {"rmap_aware": "yes"}, {"overflow_check": "half"}]
MAPPINGS = {"v": ("F", "shared minor hgm wp"), "u": ("F", "shared hgm"), "s": ("F", "shared minor"),
            "p": ("F", "private"), "w": ("L", "shared minor hgm"), "x": ("L", "shared hgm")}
# Which mappings a burst is about, mostly those where it does something; and what it is about there.
ABOUT = {"continue": "vvvvwwwwwsu", "touch": "uuuuxxxxxsvp", "dontneed": "vuwxvuwxsp", "collapse": "wwwwwxxvp"}
WHAT = {"continue": "{at} {page}", "touch": "{at}", "dontneed": "{at} {page}", "collapse": "{at} {F}"}
ODD = {"continue": ("{at} 0", "{at} {pages}", "{behind} {page}", "{at} {half}", "{last} {page}", "{at} {page} urgent"),
       "touch": ("{behind}", "{behind} write", "{last}", "{at} write"),
       "dontneed": ("{at} 0", "{at} {pages}", "{behind} {page}", "{at} {half}", "{last} {page}"),
       "collapse": ("{at} 0", "{at} {page}", "{at} {half}", "{behind} {F}", "{last} {F}", "{at} {L}")}
OTHERS = [*["register A {quiet} minor; continue A {quiet} {at} {page}; unregister A {quiet}"] * 4,
          "dontneed A {name} 0 {huge}", "continue A {name} {at} {F}", "continue A {name} 0 {F}",
          "continue A {name} 0 {group}",
          "collapse A {name} 0 {F}; collapse A {name} {F} {F}; collapse A {name} 0 {huge}",
          "collapse A {name} 0 {group}; collapse A {name} {F} {group}", "fail 1", "split A {name} 0 {huge}",
          "continue A w {F} {group}; continue A w 0 {page}; collapse A w 0 {F}; collapse A w {F} {F}",
          "punch F 0 {F}; populate F 0 3", "punch F 0 {F}",
          "hwpoison A {name} {at}; {touches}; {continues}; punch F 0 {F}; populate F 0 3",
          "mprotect A {name} 0 {huge} r; {touches}; mprotect A {name} 0 {huge} rw",
          "munmap A {name} 0 {whole}; mmap A {name} {file} 0 {whole} {flags}"]


def statements(seed, geometry, bursts=40):
    """The text of a trace: files F, of one table's huge pages, and L, of the largest, and bursts of records on them."""
    random, verbs = Random(seed), ["continue"] * 3 + ["touch"] * 3 + ["dontneed"] * 2 + ["collapse"]
    base, table = geometry.base_page, geometry.base_page << geometry.index_bits
    sizes = {"page": base, "pages": 2 * base, "half": base // 2 + 1, "F": table, "L": geometry.hugetlb_sizes[-1],
             "group": geometry.hugetlb_sizes[0], "last": 2**63 - base}

    def place():
        index = random.choice([0, 1, 2, 15, 16, random.randrange(40), -1, -2])
        return abs(random.choice([0, 0, 0, 1, 1, 2, 3]) * table + index * base)

    def burst(verb):
        name, first = random.choice(ABOUT[verb]), place()
        if random.random() < 0.5:
            where = [abs(first + i * random.choice([1, 1, 2, -1]) * base) for i in range(random.randrange(2, 40))]
        else:
            where = random.choices([place() for _ in range(6)], k=random.randrange(2, 12))
        odd = random.choice([None, None, random.randrange(len(where))])
        for i, at in enumerate(where):
            what = random.choice(ODD[verb]) if i == odd else WHAT[verb]
            at = at // table * table if verb == "collapse" else at
            yield f"{verb} A {name} " + what.format(at=at, behind=at + random.randrange(1, base), **sizes)

    lines = [f"file F {table} 3", f"file L {sizes['L']} 1", "populate F 0 2", "populate L 0 1"]
    whole = {"F": 3 * table, "L": sizes["L"]}
    lines += [f"mmap A {name} {file} 0 {whole[file]} {flags}" for name, (file, flags) in MAPPINGS.items()]
    for _ in range(bursts):
        lines += burst(random.choice(verbs))
        if random.random() < 0.6:
            name = random.choice("vuwxvuwxs")
            file, flags = MAPPINGS[name]
            for line in random.choice(OTHERS).split("; "):
                if line[0] == "{" and line != "{touches}":
                    lines += burst("continue")
                elif line[0] == "{":
                    lines += burst("touch")
                else:
                    lines.append(line.format(name=name, quiet=random.choice("ux"), at=place(), file=file, flags=flags,
                                             huge=sizes[file], whole=whole[file], **sizes))
    return "\n".join(lines)


def ran(trace, scheme, at_once, **options):
    """Results and costs of the trace's operations, run as one array or each as an array of its own."""
    machine = hgm.Machine(scheme, trace.header.geometry, **options)
    machine.declare(trace.header)
    n = len(trace) if at_once else 1
    for first in range(0, len(trace), n):
        machine.run(trace.operations[first:first + n])
    leaves = {name: truth.leaves(machine.core)[name].tolist() for name in truth.leaves(machine.core).dtype.names}
    return machine.results().tolist(), machine.cost(), plain(machine.observe()), leaves


@pytest.mark.parametrize("scheme", SCHEMES)
def test_records_at_once_come_to_what_each_alone_does(scheme):
    for seed in range(int(EXAMPLES or 10)):
        random = Random(f"{scheme} {seed}")
        options, geometry = random.choice(OPTIONS), random.choice(sorted(GEOMETRIES))
        text = statements(random.random(), GEOMETRIES[geometry])
        trace = Trace.parse(f"hgmcore-trace 1\ngeometry {geometry}\n{text}\n")
        trace.operations["offset"][trace.operations["offset"] >= 2**63 - 2**20] += np.uint64(2**63)    # text ends there
        expected, got = ran(trace, scheme, False, **options), ran(trace, scheme, True, **options)
        for part, one, other in zip(("results", "cost", "observation", "leaves"), expected, got):
            assert other == one, (part, seed, options, geometry)
