"""Random sequences over a file that fills a PMD table, which plain mappings share: model and core agree."""
import pytest
from hypothesis import strategies as st
from sequences import Comparison, G, Ground, K, M, operation, run_sequences

pages = st.sampled_from([0, 0, 1, 2])
counts = st.sampled_from([1, 1, 2, 3])
members = st.sampled_from("AABBCD")
OPERATIONS = st.one_of(
    *[operation("touch", members, pages, st.sampled_from(["", "write"]))] * 4,
    operation("dontneed", members, pages, counts), operation("munmap", members, pages, counts),
    operation("munmap", members, st.just(0), st.just(512)), operation("exit", members),
    operation("punch", pages, counts),
    operation("migrate", members, pages, counts, st.sampled_from(["", "all"])),
    operation("register", members, st.sampled_from(["minor", "wp", "minor wp", "", ""])),
    operation("mprotect", members, pages, st.sampled_from([1, 512, 512]), st.sampled_from(["r", "rw", "rw"])),
    operation("split", members, pages, st.sampled_from([1, 512])), operation("fork", members),
    operation("continue", members, pages, counts), operation("continue", members, pages, counts),
    operation("mmap", members, st.sampled_from(["shared", "shared", "shared wp", "shared minor", "private"])),
    operation("pin", pages, st.just(1)), operation("hwpoison", members, pages))
NAMES = {"D": "D1"}


def whole_table(geometry):
    """Three mappings of a file as large as a PMD table; a fourth process, D1, comes by fork or mmap."""
    start = "populate F 0 2; mmap A v F 0 1G shared; mmap B v F 0 1G shared; mmap C v F 0 1G shared"
    return Ground(geometry, 4 * K, {"F": (2 * M, 512)}, 2 * M, parts=[], pieces=[], lengths=[], start=start)


class Sharing(Comparison):
    def operate(self, operation):
        verb, who, *words = operation
        who = NAMES.get(who, who)
        if verb in ("punch", "pin"):
            page, count = who, words[0]
            self.step(f"pin F {page} {count}" if verb == "pin" else f"punch F {page * 2 * M} {count * 2 * M}")
        elif verb == "exit":
            if len(self.text) > 15 and who in self.model.owners:
                self.step(f"exit {who}")
        elif verb == "mmap":
            self.step(f"mmap {who} v F 0 {G} {words[0]}")
        elif verb == "fork":
            if who in self.model.owners and "D1" not in self.model.owners:
                self.step(f"fork {who} D1")
        elif (who, "v") in self.model.mappings:
            self.on_mapping(verb, who, *words)

    def on_mapping(self, verb, who, first, count=None, *more):
        if verb == "register":
            self.step(f"register {who} v {first}" if first else f"unregister {who} v")
        elif verb == "touch":
            self.step(f"touch {who} v {first * 2 * M} {count}".rstrip())
        elif verb == "hwpoison":
            self.step(f"hwpoison {who} v {first * 2 * M + 8 * K}")
        else:
            first, count = first * 2 * M, min(count, 512 - first) * 2 * M
            self.step(f"{verb} {who} v {first} {count} {' '.join(more)}".rstrip())

    def finish(self):
        for process in sorted(self.model.owners):
            self.step(f"exit {process}")


@pytest.mark.parametrize("geometry, scheme, options", [
    *[("x86-64", scheme, options) for scheme in ("hugetlb", "head_per_leaf", "logical_counter", "mm_id")
      for options in ({}, {"era": "6.15", "batch": "yes", "zap_frees_tables": "yes"})],
    ("arm64-4k", "head_per_leaf", {}), ("arm64-4k", "logical_counter", {"zap_frees_tables": "yes"})])
def test_mappings_of_a_whole_table_share_it(geometry, scheme, options):
    run_sequences(Sharing, OPERATIONS, whole_table(geometry), scheme, options, steps=30)
