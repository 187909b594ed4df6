"""Random operation sequences on the reference model and on hgmcore.Machine, compared after every step.

HGMCORE_EXAMPLES sets how many sequences are tried for each case; with it the sequences are new each time, and
one that fails is made as short as can be.
"""
import os
from dataclasses import dataclass
from zlib import crc32

from comparing import CoreMachine, assert_same, assert_same_observation, plain, plain_cost, replay_in_core
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from model import Model

EXAMPLES = os.environ.get("HGMCORE_EXAMPLES")
K, M, G = 2**10, 2**20, 2**30


@dataclass(frozen=True)
class Ground:
    """The machine for sequences: sizes at which borders, holes and neighbours meet."""

    geometry: str
    base: int  # bytes of a base page
    files: dict  # name -> bytes of a huge page, huge pages; F is the most used
    middle: int  # bytes of the leaves that the largest huge page is cut into first
    parts: list  # how many of those leaves an operation covers
    pieces: list  # how many base pages an operation covers
    lengths: list  # bytes
    start: str  # statements

    @property
    def largest(self):
        return max(size for size, _ in self.files.values())


def operation(verb, *strategies):
    return st.tuples(st.just(verb), *strategies)


def operations(ground):
    """Operations as tuples: the name of one of Comparison's methods do_*, and its arguments."""
    odd = st.sampled_from([0] * 15 + [1, ground.base // 2])
    places = st.tuples(st.sampled_from([0, 0, 0, 1, 1, 2, 3]), st.sampled_from(ground.parts),
                       st.sampled_from(ground.pieces), odd)
    starts = st.tuples(st.sampled_from([0, 0, 1, 2, 3]), st.sampled_from([0, 0, 1]), st.just(0), st.just(0))
    short = st.sampled_from([length for length in ground.lengths if 0 < length <= 2 * M])
    lengths = st.sampled_from([*ground.lengths, 0, ground.base + ground.base // 4])
    huge_pages = st.sampled_from([1, 1, 2, 3, 0])
    flags = st.sampled_from(
        ["shared minor hgm"] * 4 + ["shared minor hgm wp"] * 2
        + ["shared minor", "shared hgm", "shared", "shared wp", "private", "private", "private minor",
           "private"])
    mappings, processes, names = st.integers(0, 11), st.sampled_from("ABC"), st.sampled_from("vwx")
    files, pages = st.sampled_from(["F", *ground.files]), st.sampled_from([0, 0, 1])
    everything, counts = st.sampled_from(["", "all"]), st.sampled_from([1, 1, 3, 2**31 - 2])
    common = [
        operation("continue", mappings, places, short), operation("continue", mappings, places, short),
        operation("continue", mappings, places, lengths), operation("continue", mappings, starts, lengths),
        operation("touch", mappings, places, st.sampled_from(["", "write"])),
        operation("fault", mappings, places), operation("fault", mappings, places),
        operation("dontneed", mappings, places, short), operation("dontneed", mappings, places, lengths),
        operation("dontneed", mappings, starts, lengths),
        operation("collapse", mappings, places, lengths), operation("collapse", mappings, starts, lengths),
        operation("split", mappings, places, huge_pages),
        operation("register", mappings, st.sampled_from(["minor", "", "wp", "minor wp", "minor wp"])),
        operation("register", mappings, st.just("minor")),
        operation("populate", files, st.sampled_from([0, 1, 2]), st.sampled_from([1, 1, 2])),
        operation("mmap", processes, names, files, st.sampled_from([0, 0, 0, 1, 2]), huge_pages,
                  st.sampled_from([0] * 9 + [ground.base]), flags),
        operation("munmap", mappings, places, huge_pages), operation("exit", processes)]
    rare = [
        operation("fork", processes), operation("fork", processes),
        operation("punch", files, places, huge_pages), operation("truncate", files, st.integers(0, 3)),
        operation("pin", files, pages, counts), operation("unpin", files, pages, counts),
        operation("fail", st.sampled_from([1, 1, 2, 3])), operation("fail", st.sampled_from([1, 1, 2, 3])),
        operation("hwpoison", mappings, places),
        operation("migrate", mappings, places, lengths, everything),
        operation("migrate", mappings, starts, lengths, everything),
        operation("mprotect", mappings, places, huge_pages, st.sampled_from(["r", "rw", "none", "rw"])),
        operation("move", mappings, places, huge_pages, names),
        operation("shrink", mappings, huge_pages, st.sampled_from([0] * 9 + [ground.base]))]
    return st.one_of(*common, *common, *rare)


class Comparison(RuleBasedStateMachine):
    """One random sequence; run_sequences() sets `ground`, `scheme` and `options`."""

    agreed = False  # whether model and core agreed on the last step

    @initialize()
    def start(self):
        self.model = Model(self.scheme, self.ground.geometry, **self.options)
        self.core = CoreMachine(self.scheme, self.ground.geometry, **self.options)
        self.text, self.results, self.observations = [], [], []
        self.declare_files()
        for statement in self.ground.start.split(";"):
            self.step(statement.strip())

    def declare_files(self):
        for name, (size, pages) in self.ground.files.items():
            self.step(f"file {name} {size} {pages}")

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
        return huge * size + (part * self.ground.middle + piece * self.ground.base) % size + odd

    def on_pieces(self, verb, which, place, length, *more):
        process, name, size = self.pick(which)
        offset = self.offset(which, place)
        if length == self.ground.largest and offset % length:
            length = self.ground.middle  # the largest huge page in small leaves takes the model too long
        self.step(" ".join(f"{verb} {process} {name} {offset} {length} {' '.join(more)}".split()))

    def on_huge_pages(self, verb, which, place, count, *more):
        process, name, size = self.pick(which)
        offset = place[0] * size + place[3]
        self.step(f"{verb} {process} {name} {offset} {count * size} {' '.join(more)}".rstrip())

    def do_touch(self, verb, which, place, write):
        process, name, size = self.pick(which)
        self.step(f"touch {process} {name} {self.offset(which, place)} {write}".rstrip())

    def do_hwpoison(self, verb, which, place):
        process, name, size = self.pick(which)
        self.step(f"hwpoison {process} {name} {self.offset(which, place)}")

    def do_populate(self, verb, file, first, count):
        first %= self.ground.files[file][1]
        self.step(f"populate {file} {first} {min(count, self.ground.files[file][1] - first)}")

    def do_mmap(self, verb, process, name, file, first, count, odd, flags):
        size, pages = self.ground.files[file]
        offset, length = first * size + odd, count * size + odd
        self.step(f"mmap {process} {name} {file} {offset} {length} {flags}".rstrip())

    def do_register(self, verb, which, modes):
        process, name, _ = self.pick(which)
        self.step(f"register {process} {name} {modes}" if modes else f"unregister {process} {name}")

    def do_exit(self, verb, process):
        self.step(f"exit {process}")

    def do_fault(self, verb, which, place):
        """A touch for which userfaultfd raises no event."""
        self.do_register("register", which, "")
        self.do_touch("touch", which, place, "")
        self.do_register("register", which, "minor")

    def do_fork(self, verb, parent):
        child = f"D{len(self.model.owners)}"
        if parent in self.model.owners and parent not in self.model.exited and len(self.model.owners) < 7:
            self.step(f"fork {parent} {child}")

    def do_punch(self, verb, file, place, count):
        size, pages = self.ground.files[file]
        first, count = min(place[0], pages - 1), min(count, pages)
        offset = first * size + (place[2] % 8) * self.ground.base
        self.step(f"punch {file} {offset} {min(count * size, pages * size - offset)}")

    def do_truncate(self, verb, file, pages):
        self.step(f"truncate {file} {pages * self.ground.files[file][0]}")

    def do_pin(self, verb, file, page, count):
        self.step(f"{verb} {file} {min(page, self.ground.files[file][1] - 1)} {count}")

    def do_fail(self, verb, which):
        self.step(f"fail {which}")

    def do_move(self, verb, which, place, count, to):
        self.on_huge_pages("mremap", which, place, count, to)

    def do_shrink(self, verb, which, count, odd):
        process, name, size = self.pick(which)
        self.step(f"mremap {process} {name} {count * size + odd}")

    do_continue = do_dontneed = do_collapse = do_migrate = on_pieces
    do_split = do_munmap = do_mprotect = on_huge_pages
    do_unpin = do_pin

    def operate(self, operation):
        """Execute one operation; run_sequences() makes this method a rule of Hypothesis's state machine."""
        verb, *words = operation
        if verb in ("munmap", "exit", "shrink") and len(self.text) < 25:
            return  # a short sequence leaves little to undo
        getattr(self, "do_" + verb)(verb, *words)

    def teardown(self):
        if not self.agreed:
            return
        self.finish()
        ran = replay_in_core("\n".join(self.text), self.scheme, geometry=self.ground.geometry, **self.options)
        assert ran.operations == self.results
        for expected, got in zip(self.observations, ran.observations, strict=True):
            assert_same_observation(expected, got)
        assert_same(self.model.cost(), ran.cost, "cost of the replay")
        assert ran.counters == self.model.counters()

    def finish(self):
        """Undo everything: all processes exit, pins are dropped and files are truncated to nothing."""
        for process in sorted(self.model.owners):
            self.step(f"exit {process}")
        for file in self.ground.files:
            for page, folio in self.huge_pages(file):
                if folio.pins > len(folio.bad):
                    self.step(f"unpin {file} {page} {folio.pins - len(folio.bad)}")
            self.step(f"truncate {file} 0")

    def huge_pages(self, file):
        """(huge page, folio) of each page in the page cache."""
        return sorted(self.model.files[file].cache.items())


def run_sequences(kind, chosen, ground, scheme, options, steps=40, examples=6):
    """Run sequences of a Comparison on the ground, of operations that the strategy `chosen` gives.

    Each case has sequences of its own: without a seed all would try the same few.
    """
    operate = rule(operation=chosen)(kind.operate)
    case = type("Sequences", (kind,), {
        "ground": ground, "scheme": scheme, "options": options, "operate": operate})
    if not EXAMPLES:
        case = seed(crc32(repr((kind.__name__, ground.geometry, ground.start, scheme, options)).encode()))(case)
    run_state_machine_as_test(case, settings=settings(
        max_examples=int(EXAMPLES or examples), stateful_step_count=steps, deadline=None,
        derandomize=not EXAMPLES, database=None, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink] if EXAMPLES else [Phase.generate]))
