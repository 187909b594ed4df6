"""Random sequences on shmem and anonymous memory: the reference model, hgmcore.Machine and hgmcore.replay agree.

With HGMCORE_EXAMPLES (see sequences.py) all sets of options are tried with each scheme.
"""
from dataclasses import replace

import pytest
from hypothesis import strategies as st
from model import SCHEMES, Model
from sequences import EXAMPLES, Comparison, Ground, K, M, operation, run_sequences

from hgmcore.sizes import format_size

X86_64 = Ground(
    "x86-64", 4 * K, {"F": (2 * M, 2), "H": (4 * K, 1024)}, 2 * M, parts=[0, 0, 0, 1],
    pieces=[0, 0, 0, 0, 1, 7, 16, 256, 511],
    lengths=[4 * K, 4 * K, 4 * K, 8 * K, 64 * K, M, 2 * M - 4 * K, 2 * M, 2 * M, 2 * M, 4 * M],
    start="""file F 2M 2 shmem; file H 4K 1024 shmem; populate F 0 1; populate H 0 8; mmap A v F 0 4M shared minor;
        mmap A u F 1132K 2M shared; mmap A a anon:2M 0 4M private; mmap B v F 0 4M shared; mmap B h H 0 4M shared;
        mmap B s anon:4K 0 2M private; mmap A h H 0 3M shared minor wp""")
# Copies of copies: one folio at a time, and more processes than it has slots for owners
FORKS = replace(X86_64, files={}, parts=[0], pieces=[0, 0, 1, 511], lengths=[4 * K, 4 * K, M, 2 * M - 4 * K, 2 * M],
                start="mmap A a anon:2M 0 2M private; touch A a 0 write; fork A B")
# One folio of a file, which pieces of several mappings crowd on
CROWD = replace(X86_64, files={"F": (2 * M, 1)}, parts=[0], pieces=[0, 0, 1, 16, 100, 511], start="""file F 2M 1 shmem;
    populate F 0 1; mmap A v F 0 2M shared minor; mmap A w F 0 2M shared; mmap B v F 0 2M shared minor wp;
    mmap C u F 64K 1M shared""")
# Folios that PTEs alone map
MIDDLE = replace(X86_64, files={"F": (64 * K, 64), "H": (4 * K, 256)}, middle=64 * K, parts=[0, 0, 1, 31, 32],
                 pieces=[0, 0, 0, 1, 7, 15], lengths=[4 * K, 4 * K, 8 * K, 60 * K, 64 * K, 64 * K, 128 * K, 2 * M],
                 start="""file F 64K 64 shmem; file H 4K 256 shmem; populate F 0 40; mmap A v F 0 4M shared minor;
                     mmap A u F 1132K 2M shared; mmap A a anon:64K 0 3M private; mmap B v F 0 4M shared;
                     mmap B s anon:1M 0 4M private; mmap A h H 0 1M shared""")
# Private mappings of files, and addresses of all kinds: not aligned as the file is, beside others, over others
G = 2**30
ADDRESSES = [64 * G, 64 * G + M, 64 * G + 4 * M, 96 * G + 4 * K, 96 * G + 2 * M + 4 * K, 96 * G + 6 * M,
             127 * G - 64 * K]
PLACED = replace(X86_64, files={"F": (2 * M, 2)}, start=f"""file F 2M 2 shmem; populate F 0 1;
    mmap A v F 0 4M shared minor at {ADDRESSES[0]:#x}; mmap A u F 0 4M private at {ADDRESSES[3]:#x};
    mmap A a anon:2M 0 4M private; mmap B v F 0 4M private; mmap B u F 64K 2M private at {ADDRESSES[1]:#x}""")
# Processes that have hugetlb too
MIXED = replace(X86_64, files={"F": (2 * M, 1), "G": (2 * M, 2)}, start="""
    file G 2M 2; file F 2M 1 shmem; populate G 0 1;
    mmap A g G 0 4M shared minor hgm wp; mmap A v F 0 2M shared; mmap A a anon:2M 0 2M private; mmap B p G 0 4M private;
    mmap B v F 0 2M shared minor""")
FIVE_LEVELS = replace(X86_64, geometry="x86-64-5level")
ARM64 = replace(
    X86_64, geometry="arm64-16k", base=16 * K, files={"F": (32 * M, 1)}, middle=32 * M, parts=[0, 0, 1],
    pieces=[0, 0, 1, 16, 1024, 2047], lengths=[16 * K, 16 * K, 256 * K, 16 * M, 32 * M, 32 * M, 64 * M],
    start="""file F 32M 1 shmem; populate F 0 1; mmap A v F 0 32M shared minor; mmap B v F 0 32M shared;
        mmap A a anon:32M 0 64M private""")


def operations(ground):
    """Operations as tuples: the name of one of Memory's methods do_*, and its arguments."""
    odd = st.sampled_from([0] * 31 + [1, ground.base // 2])
    places = st.tuples(st.sampled_from(ground.parts), st.sampled_from(ground.pieces), odd)
    starts = st.tuples(st.sampled_from(ground.parts), st.just(0), st.just(0))
    cuts = st.tuples(st.sampled_from(ground.parts), st.sampled_from(ground.pieces),
                     st.sampled_from([0, 0, 1, ground.base // 2]))
    lengths = st.sampled_from([*ground.lengths, *ground.lengths, 0, ground.base + ground.base // 4])
    short = st.sampled_from([length for length in ground.lengths if length <= 16 * ground.base])
    mappings, processes, names = st.integers(0, 23), st.sampled_from("AABBC"), st.sampled_from("vwua")
    files, pages, counts = st.sampled_from([*ground.files] or [""]), st.sampled_from([0, 0, 1]), st.sampled_from([1, 3])
    common = [
        *[operation("touch", mappings, places, st.just("write"))] * 3,
        *[operation("touch", mappings, places, st.just(""))] * 2,
        operation("touch", mappings, starts, st.just("write")),
        operation("dontneed", mappings, places, short), operation("dontneed", mappings, starts, lengths),
        operation("collapse", mappings, starts, lengths), operation("fork", processes),
        operation("mprotect", mappings, places, lengths, st.sampled_from(["r", "rw", "rw", "none"])),
        operation("munmap", mappings, places, short), operation("fail", st.sampled_from([1, 1, 2, 3]))]
    rare = [
        operation("munmap", mappings, starts, lengths), operation("exit", processes),
        operation("collapse", mappings, places, lengths),
        operation("register", mappings, st.sampled_from(["minor", "", "", "wp", "minor wp"])),
        operation("mmap", processes, names, st.sampled_from(["anon", *ground.files]), places, lengths,
                  st.sampled_from(["shared", "shared minor", "private", "shared wp", "private wp", "shared hgm"])),
        operation("move", mappings, places, lengths, st.sampled_from("xyz")),
        operation("resize", mappings, places, lengths),
        operation("refused", mappings, places, st.sampled_from(["split", "migrate", "hwpoison"]))]
    if ground is PLACED:
        at, kinds = st.sampled_from(range(len(ADDRESSES))), st.sampled_from(["anon", *ground.files])
        rare += [operation("placed", processes, at, kinds, places, lengths, st.sampled_from(["shared", "private"])),
                 operation("moved", mappings, places, lengths, at, st.sampled_from([None, 0, 1, 2]),
                           st.sampled_from(["", "", "keep"])),
                 operation("moved", mappings, starts, lengths, at, st.none(), st.sampled_from(["", "keep"])),
                 operation("resize", mappings, places, lengths, st.just("move"))]
    on_files = [
        operation("continue", mappings, places, short), operation("continue", mappings, starts, lengths),
        operation("punch", files, starts, lengths), operation("punch", files, cuts, short),
        operation("truncate", files, cuts), operation("truncate", files, st.just((9, 0, 0))),
        operation("populate", files, pages), operation("pin", files, pages, counts),
        operation("unpin", files, pages, counts)]
    return st.one_of(*common, *common, *rare, *(2 * on_files if ground.files else []))


class Memory(Comparison):
    """One random sequence on shmem and anonymous memory; the files are declared by `ground.start`."""

    def declare_files(self):
        pass

    def pick(self, which):
        known = sorted(self.model.mappings)
        return known[which % len(known)]

    def on_part(self, verb, which, place, *words):
        process, name = self.pick(which)
        self.step(" ".join(f"{verb} {process} {name} {self.at(place)} {' '.join(map(str, words))}".split()))

    do_continue = do_touch = do_dontneed = do_collapse = do_mprotect = do_munmap = on_part

    def at(self, place):
        part, piece, odd = place
        return part * self.ground.middle + piece * self.ground.base + odd

    def do_move(self, verb, which, place, length, to):
        self.on_part("mremap", which, place, length, to)

    def do_resize(self, verb, which, place, length, move=""):
        process, name = self.pick(which)
        self.step(f"mremap {process} {name} {self.at(place) + length} {move}".strip())

    def do_placed(self, verb, process, at, file, place, length, kind):
        anon = file == "anon"
        file, offset = (f"anon:{format_size(self.ground.middle)}", 0) if anon else (file, self.at(place))
        kind = "private" if anon else kind
        self.step(f"mmap {process} p{at} {file} {offset} {length} {kind} at {ADDRESSES[at]:#x}")

    def do_moved(self, verb, which, place, length, at, resized, keep):
        other = "" if resized is None else f" {[4 * K, 3 * M, 2 * M + 4 * K][resized]}"
        self.on_part("mremap", which, place, length, f"m{at}.{resized}{other} at {ADDRESSES[at]:#x} {keep}".strip())

    def do_register(self, verb, which, modes):
        process, name = self.pick(which)
        self.step(f"register {process} {name} {modes}" if modes else f"unregister {process} {name}")

    def do_exit(self, verb, process):
        if process in self.model.owners:
            super().do_exit(verb, process)

    def do_refused(self, verb, which, place, refused):
        self.on_part(refused, which, place, *[self.ground.base][:refused != "hwpoison"])

    def do_mmap(self, verb, process, name, file, place, length, flags):
        anon = file == "anon"
        if anon and "shared" in flags:
            return  # the format of traces has no such thing
        file = f"anon:{format_size(self.ground.middle)}" if anon else file
        self.step(f"mmap {process} {name} {file} {0 if anon else self.at(place)} {length} {flags}")

    def file_size(self, file):
        size, pages = self.ground.files[file]
        return size * pages

    def do_punch(self, verb, file, place, length):
        offset = min(self.at(place), self.file_size(file))
        self.step(f"punch {file} {offset} {min(length, self.file_size(file) - offset)}")

    def do_truncate(self, verb, file, place):
        self.step(f"truncate {file} {min(self.at(place), self.file_size(file))}")

    def do_populate(self, verb, file, page):
        self.step(f"populate {file} {page % self.ground.files[file][1]} 1")

    def do_pin(self, verb, file, page, count):
        self.step(f"{verb} {file} {page % self.ground.files[file][1]} {count}")

    do_unpin = do_pin

    def huge_pages(self, file):
        """Of shmem, by their first base pages."""
        if self.model.files[file].kind == "hugetlb":
            return super().huge_pages(file)
        pages = self.ground.files[file][0] // self.ground.base
        return [(index // pages, folio) for index, folio in super().huge_pages(file) if index % pages == 0]

    def finish(self):
        super().finish()
        assert [folio for folio in self.model.observe()["folios"] if not folio["pins"]] == [], "nothing is left"


def option_sets(scheme):
    usual = Model(scheme).options
    other = {"lookup_first": {"yes": "no", "no": "yes"}[usual["lookup_first"]]}
    return [{"fault_around": "folio", "era": "6.15", "batch": "yes"}, {"fault_around": "16", "batch": "yes"}, {},
            {"fault_around": "folio", "era": "6.3", **other}, {"fault_around": "16", "era": "6.15", **other},
            {"fault_around": "folio", "rmap_aware": "yes", "zap_frees_tables": "yes", "cache_refs": "folio"},
            {"model": "posted", "fault_around": "folio"},
            {"overflow_check": "half", "transient": "counted", "batch": "6.9"}]


def cases(first, step):
    """Each scheme with two sets of options, or with all of them."""
    for number, scheme in enumerate(SCHEMES):
        usual, *others = option_sets(scheme)
        for options in [usual, *(others if EXAMPLES else [others[(first + number * step) % len(others)]])]:
            name = "-".join(f"{key}={value}" for key, value in options.items()) or "default"
            yield pytest.param(scheme, options, id=f"{scheme}-{name}")


@pytest.mark.parametrize("scheme, options", list(cases(0, 1)))
def test_random_sequences(scheme, options):
    run_sequences(Memory, operations(X86_64), X86_64, scheme, options, examples=4)


@pytest.mark.parametrize("scheme, options", list(cases(2, 3)))
def test_forks_and_writes(scheme, options):
    run_sequences(Memory, operations(FORKS), FORKS, scheme, options, steps=30, examples=4)


@pytest.mark.parametrize("scheme, options", list(cases(4, 5)))
def test_one_folio_in_pieces(scheme, options):
    run_sequences(Memory, operations(CROWD), CROWD, scheme, options, steps=30, examples=4)


@pytest.mark.parametrize("scheme, options", list(cases(1, 2)))
def test_folios_smaller_than_a_pmd(scheme, options):
    run_sequences(Memory, operations(MIDDLE), MIDDLE, scheme, options, steps=30, examples=4)


@pytest.mark.parametrize("scheme, options", list(cases(3, 4)))
def test_addresses_and_private_mappings(scheme, options):
    run_sequences(Memory, operations(PLACED), PLACED, scheme, options, steps=40, examples=4)


@pytest.mark.parametrize("scheme", ["mm_id", "logical_counter"])
def test_addresses_that_linux_chooses(scheme):
    run_sequences(Memory, operations(PLACED), PLACED, scheme, {"addresses": "kernel", "fault_around": "folio"},
                  steps=40)


@pytest.mark.parametrize("scheme", ["head_per_leaf", "logical_table", "mm_id", "subtree"])
def test_beside_hugetlb(scheme):
    run_sequences(Memory, operations(MIXED), MIXED, scheme, {"fault_around": "folio", "batch": "yes"}, steps=30)


@pytest.mark.parametrize("ground", [FIVE_LEVELS, ARM64], ids=lambda ground: ground.geometry)
@pytest.mark.parametrize("scheme, around", [("mm_id", "folio"), ("logical_counter", "folio"), ("mm_id", "16")])
def test_other_geometries(ground, scheme, around):
    run_sequences(Memory, operations(ground), ground, scheme, {"fault_around": around}, steps=25, examples=3)
