"""Random operation sequences: the reference model, hgmcore.Machine and hgmcore.replay agree after every step.

HGMCORE_EXAMPLES sets how many sequences are tried for each scheme and set of options; with it all sets are
tried, the sequences are new each time, and one that fails is made as short as can be.
"""
import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from hypothesis.stateful import run_state_machine_as_test

from comparing import (CoreMachine, assert_same, assert_same_observation, plain, plain_cost,
                       replay_in_core)
from model import SCHEMES, Model

EXAMPLES = os.environ.get("HGMCORE_EXAMPLES")
K, M, G = 2**10, 2**20, 2**30
FILES = {"F": (2 * M, 3), "H": (2 * M, 1), "L": (G, 1)}  # page size, pages
OTHER_WAY = {"yes": "no", "no": "yes"}

# Positions that borders, holes and neighbours meet at: huge page, 2M part of a 1G page, base page, odd bytes.
places = st.tuples(
    st.sampled_from([0, 0, 0, 1, 1, 2, 3]), st.sampled_from([0, 0, 1, 511]),
    st.sampled_from([0, 0, 0, 1, 2, 7, 8, 510, 511]), st.sampled_from([0] * 15 + [1, 2 * K]))
pieces = st.sampled_from([4 * K, 4 * K, 8 * K, 32 * K, 2 * M])
lengths = st.sampled_from(
    [4 * K, 8 * K, 2 * M - 4 * K, 2 * M, 2 * M, 2 * M + 4 * K, 4 * M, 6 * M, G, G, 0, 5 * K])
huge_pages = st.sampled_from([1, 1, 2, 3, 0])
flags = st.sampled_from(
    ["shared minor hgm"] * 4 + ["shared minor hgm wp"] * 2 + ["shared minor", "shared hgm", "shared", "shared wp",
     "private", "private", "private minor", "private"])
mappings = st.integers(0, 11)
starts = st.tuples(st.sampled_from([0, 0, 1, 2, 3]), st.sampled_from([0, 0, 1]), st.just(0), st.just(0))
files = st.sampled_from("FFHL")
processes, names = st.sampled_from("ABC"), st.sampled_from("vwx")


def operation(verb, *strategies):
    return st.tuples(st.just(verb), *strategies)


touches = operation("touch", mappings, places, st.sampled_from(["", "write"]))
common = [
    operation("continue", mappings, places, pieces), operation("continue", mappings, places, pieces),
    operation("continue", mappings, places, lengths), operation("continue", mappings, starts, lengths),
    touches, operation("fault", mappings, places), operation("fault", mappings, places),
    operation("dontneed", mappings, places, pieces), operation("dontneed", mappings, places, lengths),
    operation("dontneed", mappings, starts, lengths),
    operation("collapse", mappings, places, lengths), operation("collapse", mappings, starts, lengths),
    operation("split", mappings, places, huge_pages),
    operation("register", mappings, st.sampled_from(["minor", "", "wp", "minor wp", "minor wp"])),
    operation("register", mappings, st.just("minor")),
    operation("populate", st.sampled_from([0, 1, 2]), st.sampled_from([1, 1, 2])),
    operation("mmap", processes, names, files,
              st.sampled_from([0, 0, 0, 1, 2]), huge_pages, st.sampled_from([0] * 9 + [4 * K]), flags),
    operation("munmap", mappings, places, huge_pages), operation("exit", processes)]
rare = [
    operation("fork", processes), operation("fork", processes),
    operation("punch", files, places, huge_pages), operation("truncate", files, st.integers(0, 3)),
    operation("pin", files, st.sampled_from([0, 0, 1]), st.sampled_from([1, 1, 3, 2**31 - 2])),
    operation("unpin", files, st.sampled_from([0, 0, 1]), st.sampled_from([1, 1, 3, 2**31 - 2])),
    operation("fail", st.sampled_from([1, 1, 2, 3])), operation("fail", st.sampled_from([1, 1, 2, 3])),
    operation("hwpoison", mappings, places),
    operation("migrate", mappings, places, huge_pages, st.sampled_from(["", "all"])),
    operation("migrate", mappings, starts, huge_pages, st.sampled_from(["", "all"])),
    operation("mprotect", mappings, places, huge_pages, st.sampled_from(["r", "rw", "none", "rw"])),
    operation("move", mappings, places, huge_pages, names),
    operation("shrink", mappings, huge_pages, st.sampled_from([0] * 9 + [4 * K]))]
operations = st.one_of(*common, *common, *rare)


class Comparison(RuleBasedStateMachine):
    """One random sequence; `scheme` and `options` are set by the subclass."""

    agreed = False  # whether model and core agreed on the last step

    @initialize()
    def start(self):
        self.model = Model(self.scheme, **self.options)
        self.core = CoreMachine(self.scheme, **self.options)
        self.text, self.results, self.observations = [], [], []
        for name, (size, pages) in FILES.items():
            self.step(f"file {name} {size} {pages}")
        self.step("populate F 0 2")
        self.step("populate L 0 1")
        self.step(f"mmap C v F 0 {6 * M} shared minor")
        self.step(f"mmap A v F 0 {4 * M} shared minor hgm")
        self.step(f"mmap A w L 0 {G} shared minor hgm")
        self.step(f"mmap B v F 0 {2 * M} shared minor hgm wp")
        self.step(f"mmap B w F 0 {4 * M} private")

    def step(self, statement):
        self.agreed = False
        expected, got = self.model.run(statement), self.core.run(statement)
        seen = self.model.observe()
        self.text.append(statement)
        self.results.append(tuple(expected))
        try:
            assert_same(list(expected), list(got), "error, done, event")
            assert_same_observation(seen, plain(self.core.machine.observe()))
            assert_same(self.model.cost(), plain_cost(self.core.machine.cost()), "cost")
        except AssertionError as difference:
            difference.add_note("after\n" + "\n".join(line for line in self.text if line != "observe"))
            raise
        self.agreed = True
        if len(self.text) % 4 == 0 and not statement.startswith("fail"):
            self.text.append("observe")
            self.results.append((None, 0, None))
            self.observations.append(seen)

    def pick(self, which):
        """A mapping, and the size of its huge pages."""
        known = sorted(self.model.mappings)
        process, name = known[which % len(known)]
        return process, name, self.model.mappings[process, name].file.page_size

    def offset(self, which, place):
        """Bytes: in the mapping unless the place says huge page 3."""
        process, name, size = self.pick(which)
        huge, part, piece, odd = place
        vmas = self.model.mappings[process, name].vmas
        if huge < 3 and vmas:
            huge %= vmas[-1].last // size
        return huge * size + (part * 2 * M if size == G else 0) + piece * 4 * K + odd

    def on_pieces(self, verb, which, place, length, *more):
        process, name, size = self.pick(which)
        offset = self.offset(which, place)
        if length == G and offset % G:
            length = 2 * M  # a gigabyte of small leaves takes the model too long
        self.step(" ".join(f"{verb} {process} {name} {offset} {length} {' '.join(more)}".split()))

    def on_huge_pages(self, verb, which, place, count, *more):
        process, name, size = self.pick(which)
        self.step(f"{verb} {process} {name} {place[0] * size + place[3]} {count * size} {' '.join(more)}".rstrip())

    do_continue = do_dontneed = do_collapse = do_touch = on_pieces
    do_split = do_munmap = do_mprotect = do_migrate = on_huge_pages

    def do_hwpoison(self, which, place):
        process, name, size = self.pick(which)
        self.step(f"hwpoison {process} {name} {self.offset(which, place)}")

    def do_populate(self, first, count):
        self.step(f"populate F {first} {min(count, 3 - first)}")

    def do_mmap(self, process, name, file, first, count, odd, flags):
        size, pages = FILES[file]
        offset, length = first * size + odd, count * size + odd
        self.step(f"mmap {process} {name} {file} {offset} {length} {flags}".rstrip())

    def do_register(self, which, modes):
        process, name, _ = self.pick(which)
        self.step(f"register {process} {name} {modes}" if modes else f"unregister {process} {name}")

    def do_exit(self, process):
        self.step(f"exit {process}")

    def do_fault(self, which, place):
        """A touch that no registration turns into an event."""
        self.do_register(which, "")
        self.on_pieces("touch", which, place, "")
        self.do_register(which, "minor")

    def do_fork(self, parent):
        child = f"D{len(self.model.owners)}"
        if parent in self.model.owners and parent not in self.model.exited and len(self.model.owners) < 7:
            self.step(f"fork {parent} {child}")

    def do_punch(self, file, place, count):
        size, pages = FILES[file]
        first, count = min(place[0], pages - 1), min(count, pages)
        offset = first * size + (place[2] % 8) * 4 * K
        self.step(f"punch {file} {offset} {min(count * size, pages * size - offset)}")

    def do_truncate(self, file, pages):
        self.step(f"truncate {file} {pages * FILES[file][0]}")

    def do_pin(self, file, page, count):
        self.step(f"pin {file} {min(page, FILES[file][1] - 1)} {count}")

    def do_unpin(self, file, page, count):
        self.step(f"unpin {file} {min(page, FILES[file][1] - 1)} {count}")

    def do_fail(self, which):
        self.step(f"fail {which}")

    def do_move(self, which, place, count, to):
        self.on_huge_pages("mremap", which, place, count, to)

    def do_shrink(self, which, count, odd):
        process, name, size = self.pick(which)
        self.step(f"mremap {process} {name} {count * size + odd}")

    @rule(operation=operations)
    def operate(self, operation):
        verb, *words = operation
        if verb in ("munmap", "exit", "shrink") and len(self.text) < 25:
            return  # there is little to undo yet
        if verb in ("continue", "dontneed", "collapse", "migrate", "touch", "split", "munmap", "mprotect"):
            getattr(self, "do_" + verb)(verb, *words)
        else:
            getattr(self, "do_" + verb)(*words)

    def teardown(self):
        if not self.agreed:
            return
        self.finish()
        ran = replay_in_core("\n".join(self.text), self.scheme, **self.options)
        assert ran.operations == self.results
        for expected, got in zip(self.observations, ran.observations, strict=True):
            assert_same_observation(expected, got)
        assert_same(self.model.cost(), ran.cost, "cost of the replay")
        assert ran.counters == self.model.counters()

    def finish(self):
        """Everything is undone: the processes exit, pins are dropped and files emptied."""
        for process in sorted(self.model.owners):
            self.step(f"exit {process}")
        for file in FILES:
            for page, folio in sorted(self.model.files[file].cache.items()):
                if folio.pins > len(folio.bad):
                    self.step(f"unpin {file} {page} {folio.pins - len(folio.bad)}")
            self.step(f"truncate {file} 0")


def option_sets(scheme):
    usual = Model(scheme).options
    first, zap = ({name: OTHER_WAY[usual[name]]} for name in ("lookup_first", "zap_frees_tables"))
    return [{}, {"cache_refs": "folio", "era": "6.15", "transient": "real", **first, **zap},
            {"batch": "yes"}, {"policy": "base_only"}, {"model": "posted"}, first,
            {"rmap_aware": "yes", **zap}, {"overflow_check": "after", "era": "6.3"},
            {"policy": "base_only", "batch": "yes", **first}, {"overflow_check": "try", "era": "6.3"},
            {"overflow_check": "half", "batch": "yes"}, {"overflow_check": "after", "model": "posted"}]


def cases():
    """Each scheme with its defaults, and with two other sets of options, or with all of them."""
    for number, scheme in enumerate(SCHEMES):
        usual, *others = option_sets(scheme)
        chosen = others if EXAMPLES else [others[0], others[1 + number % (len(others) - 1)]]
        for options in [usual, *chosen]:
            name = "-".join(f"{key}={value}" for key, value in options.items()) or "default"
            yield pytest.param(scheme, options, id=f"{scheme}-{name}")


@pytest.mark.parametrize("scheme, options", list(cases()))
def test_random_sequences(scheme, options):
    case = type("Sequences", (Comparison,), {"scheme": scheme, "options": options})
    run_state_machine_as_test(case, settings=settings(
        max_examples=int(EXAMPLES or 10), stateful_step_count=40, deadline=None, derandomize=not EXAMPLES,
        phases=[Phase.generate, Phase.shrink] if EXAMPLES else [Phase.generate], database=None,
        suppress_health_check=list(HealthCheck)))


@pytest.mark.parametrize("scheme", ["head_per_leaf", "nr_pages_mapped", "logical_scan", "subtree"])
def test_five_levels_count_as_four(scheme):
    test_random_sequences(scheme, {"geometry": "x86-64-5level"})
