"""The simulator in place of a kernel: it does the steps of a recording and is compared with what the kernel showed.

The recording may be read from a file or may be made just now; steps are as in importers.kernel_steps.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np

from hgmcore.api import Machine
from hgmcore.core.machine import FOLIO_CACHED
from hgmcore.errnos import error_name
from hgmcore.geometry import PTE
from hgmcore.importers.processes.kernel_mappings import PAGE, REASONS
from hgmcore.importers.processes.kernel_steps import Translation
from hgmcore.runs import UNKNOWN, dense, value_at
from hgmcore.seen import Seen
from hgmcore.trace.statements import NAMES, READ, WRITE
from hgmcore.trace.writer import Writer

ANSWERS = ("error", "bytes done", "event")
STATES = ("VMAs", "map count", "leaf", "frame", "references", "exclusive bit", "Rss", "Pss", "shared", "private",
          "mapped by PMD", "page-table pages")
KINDS = ANSWERS + STATES
"""Kinds of values that are compared: of the answer to a step, and of the state behind it.

A frame is one that others map too, or the same as before, or it is not: numbers of frames are each side's own.
"""

COUNTED = ("touch", "continue", "migrate")
"""Statements of which the kernel's answer tells how many bytes they did."""

SIGNALS = {4: "EHWPOISON", 5: "EHWPOISON"}
"""si_code of a SIGBUS that tells of poisoned memory (BUS_MCEERR_AR, BUS_MCEERR_AO); any other is a bad address."""

MOVES = ("move_pages", "mbind")
"""Steps that move what is not yet where it is to go: the simulator has no nodes, and moves what may be moved."""

LEAVES = ("none", "PTE", "HUGE")


class Difference(NamedTuple):
    """Values of one kind and place that differ. step: the number `i` of the op. where: process and region, or file.

    first: the first 4K page, None where it is no matter of pages; kernel, simulator: the values there; count: how
    many differ.
    """

    step: int
    op: str
    kind: str
    where: str
    first: int | None
    kernel: object
    simulator: object
    count: int = 1

    def __str__(self) -> str:
        page = "" if self.first is None else f", page {self.first}"
        more = f" (and {self.count - 1} more)" if self.count > 1 else ""
        where = f" of {self.where}{page}" if self.where else ""
        return (f"step {self.step}, {self.op}: {self.kind}{where}: the kernel has {_shown(self.kernel)}, "
                f"the simulator {_shown(self.simulator)}{more}")


def _shown(value):
    return "none" if value is None else str(value)


def options_of(kernel: str) -> dict[str, str]:
    """The options that stand for a kernel, by its release, as "6.18.44-generic". ValueError: it says no version."""
    try:
        major, minor = (int(part) for part in kernel.split(".")[:2])
    except (ValueError, AttributeError):
        raise ValueError(f"kernel: {kernel!r} is no release of Linux") from None
    version = major, minor
    return {"era": "6.15" if version >= (6, 15) else "6.3" if version >= (6, 3) else "6.2",
            "cache_refs": "folio" if version >= (6, 7) else "1",
            "fault_around": "folio" if version >= (6, 18) else "16"}


class Simulated:
    """A simulated machine that does what the steps of a recording ask of a kernel.

    kernel: its release. scheme: the accounting scheme, "hugetlb" where there is nothing else, or "mm_id".
    compared, equal, nonzero: how many values there were of each kind, how many of them were equal, and how many the
    kernel did not have as 0 or none. skipped: what was left out of a comparison, by reason. ran, elapsed: of the last
    step, how many statements it was and how many ns they took.

    A step that is out of scope may change memory in the kernel alone. What the recording then shows of that memory is
    compared as long as it is equal; the first difference ends the comparison of that memory, as `skipped` says, for it
    and all behind it are no fault of the simulator's.
    """

    def __init__(self, kernel: str, scheme: str, **options):
        self.machine = Machine(scheme, **{**options_of(kernel), **options})
        self.writer = Writer()
        self.translation = Translation(self.writer)
        self.compared, self.equal, self.nonzero, self.skipped = Counter(), Counter(), Counter(), Counter()
        self.op: dict = {"i": 0, "op": "start"}
        self.reason: str | None = None
        self.doubtful: dict[tuple, str] = {}  # memory -> the step out of scope that may have changed it
        self.lost: dict[tuple, str] = {}  # memory that is not compared any more -> likewise
        self.frames: dict[tuple, tuple] = {}  # (process, region) -> frames of its pages at last, there and here

    def file(self, record) -> None:
        """Declare the file of a `file` record; `cached` of it has runs (first, count) of the pages that are there."""
        self.translation.file(record)
        self._run()

    def step(self, op) -> list[Difference]:
        """Do the step and compare its answer. `self.reason` then says why it was left out, or is None."""
        self.op = op
        self.reason = self.translation.step(op)
        for memory in self.translation.touched:
            step = f"step {op['i']} ({op.get('advice', op['op'])})"
            self.doubtful.setdefault(memory, f"what {step}, out of scope, touched, from the first difference on")
        error, *results = self._run()
        if self.reason is None:
            return self._answers(op, error or self._known_answer(op), *results)
        return []

    def _run(self):
        """Run what the translation has written: (errno or None, bytes that accesses and the like did, events).

        Of several accesses those behind one that fails are not done.
        """
        machine, before = self.machine, len(self.machine.results())
        machine.declare(self.writer.names)
        first = machine.operations
        records, self.elapsed, self.ran = self.writer.since(first), 0, 0
        for record in records:
            self.elapsed += machine.run(record.reshape(1))
            self.ran += 1
            if NAMES[record["op"]] == "touch" and len(machine.results(before)):
                self.writer.cut(machine.operations)
                break
        done = {first + i: PAGE if NAMES[record["op"]] == "touch" else int(record["length"])
                for i, record in enumerate(records[:machine.operations - first]) if NAMES[record["op"]] in COUNTED}
        error, events = None, 0
        for row in machine.results(before):
            if int(row["index"]) in done:
                done[int(row["index"])] = int(row["done"])
            events += int(row["event"])
            unpin = NAMES[records[int(row["index"]) - first]["op"]] == "unpin"  # never fails: what it held may be gone
            if row["errno"] and error is None and not unpin:
                error = error_name(row["errno"])
        return error, sum(done.values()), events

    def _known_answer(self, op):
        """The errno of a step that no statement does, or None. madvise() meets each VMA, and then tells of holes."""
        region = self.translation.regions.get(op["proc"], {}).get(op.get("region"))
        if op["op"] != "madvise" or self.ran or region is None or region.mapping is None:
            return self.translation.answer
        first, last = op["off"], op["off"] + op["len"]
        parts = [min(end, last) - max(start, first) for start, end, _ in self.machine.core.vmas(region.mapping)]
        mapped = sum(part for part in parts if part > 0)
        if mapped and self.translation.answer:
            return self.translation.answer
        return None if mapped == last - first else "ENOMEM"

    def _populate_error(self, op, done):
        """Why MADV_POPULATE_* fails at the page behind those done, where an access has EFAULT."""
        mapping, at = self.translation.regions[op["proc"]][op["region"]].mapping, op["off"] + done
        needed = WRITE if op["advice"] == "POPULATE_WRITE" else READ
        for start, end, flags in self.machine.core.vmas(mapping):
            if start <= at < end:
                return "EFAULT" if flags & needed else "EINVAL"
        return "ENOMEM"

    def _answers(self, op, error, done, events):
        name, found = op["op"], []
        kernel_error = op.get("errno") or None
        if "signal" in op:
            kernel_error = SIGNALS.get(op.get("si_code"), "EFAULT")
        if name in ("read", "write", "madvise") and events and not error:
            error = "EFAULT"  # the kernel does not wait for userfaultfd where it accesses memory itself
        if name == "madvise" and op["advice"].startswith("POPULATE") and error == "EFAULT":
            error = self._populate_error(op, done)
        if name == "mlock" and error == "EFAULT":
            error = "ENOMEM"  # __mlock_posix_error_return()
        memories = self._memories(op["proc"], op.get("region"))
        if name == "uffd_read":
            found += self._one("event", "", op["addr_off"], self._event(op), memories)
            return found
        found += self._one("error", "", kernel_error, error, memories)
        region = self.translation.regions.get(op["proc"], {}).get(op.get("region"))
        kernel_done = _bytes(op, region.page if region else PAGE)
        if kernel_done is not None:
            found += self._one("bytes done", "", kernel_done, done, memories)
        return found

    def _memories(self, process, region=None):
        """The memory of a region, of a file that the driver names, or of all that a process maps."""
        regions = self.translation.regions.get(process, {})
        if region in regions:
            return [regions[region].memory]
        return [("file", region)] if region else [each.memory for each in regions.values()]

    def _is_lost(self, memories, values, differ):
        """Are `values` values of this memory left out? differ: do some of them differ?"""
        if differ:
            self.lost |= {memory: self.doubtful[memory] for memory in memories if memory in self.doubtful}
        reason = next((self.lost[memory] for memory in memories if memory in self.lost), None)
        if reason:
            self.skipped[reason] += values
        return reason is not None

    def _event(self, op):
        """The address that the thread's event would tell: of the base page, or of the huge page of hugetlb."""
        waiting = self.translation.waiting.get(op["proc"])
        if waiting is None:
            return None
        region, offset, _ = waiting
        unit = region.page if region.kind == "hugetlb" else PAGE
        return offset // unit * unit

    def _one(self, kind, where, kernel, simulator, memories=()):
        """Compare one value, of some memory."""
        if self._is_lost(memories, 1, kernel != simulator):
            return []
        self.compared[kind] += 1
        self.nonzero[kind] += bool(kernel)
        if kernel == simulator:
            self.equal[kind] += 1
            return []
        return [Difference(self.op["i"], self.op["op"], kind, where, None, kernel, simulator)]

    def _many(self, kind, where, kernel, simulator, memories, names=None):
        """Compare arrays over the 4K pages of one place; the kernel's is UNKNOWN where it was not recorded."""
        pages = max(len(kernel), len(simulator))
        kernel, simulator = (np.pad(each, (0, pages - len(each))) for each in (kernel, simulator))
        known = int((kernel != UNKNOWN).sum())
        bad = np.flatnonzero((kernel != simulator) & (kernel != UNKNOWN))
        if self._is_lost(memories, known, len(bad)):
            return []
        self.compared[kind] += known
        self.nonzero[kind] += int((kernel > 0).sum())
        self.equal[kind] += known - len(bad)
        if not len(bad):
            return []
        first = int(bad[0])
        values = [names[int(a[first])] if names else int(a[first]) for a in (kernel, simulator)]
        return [Difference(self.op["i"], self.op["op"], kind, where, first, *values, len(bad))]

    def differences(self, obs) -> list[Difference]:
        """Compare the state with that of an `obs`, by 4K page, region and process."""
        machine, found, places = self.machine, [], {}
        state = _State(machine)
        for process, seen in obs["procs"].items():
            name = self.translation.names.get(process)
            foreign = [reason for (owner, _), reason in self.translation.foreign.items() if owner == process]
            for region, kernel in seen["regions"].items():
                if region in self.translation.regions.get(process, ()) or not self.translation.lenient:
                    found += self._region(state, process, region, kernel, places)
                else:
                    reason = self.translation.foreign.get((process, region), REASONS["unmapped"])
                    self.skipped[reason] += 1
                    foreign.append(reason)
            if foreign:
                self.skipped[foreign[0]] += 1
            elif "status_delta" in seen:
                tables = seen["status_delta"]["VmPTE"] * 1024 // PAGE
                found += self._one("page-table pages", process, tables, state.tables(name), self._memories(process))
        for file, kernel in obs["files"].items():
            index = self.translation.files[file][0]
            counts = state.file_counts(index)
            found += self._many("map count", file, dense(kernel["mapcount"], len(counts)), counts, [("file", file)])
            places[file, None] = frames_of(kernel, len(counts)), state.file_frames(index), [("file", file)]
            found += self._references(state, file, kernel, places[file, None])
        return found + self._compare_frames(places)

    def _compare_frames(self, places):
        """Do pages have one frame where the kernel has one, and another than before where it has another?

        places: (process, region) or (file, None) -> frames of its pages in the kernel, and here, -1 where there is
        none, and the memory. Of a file it does not matter what was before: a folio that is split gets others here.
        """
        places = {key: each for key, each in places.items() if not any(memory in self.lost for memory in each[2])}
        if not places:
            return []
        kernel, simulator = (np.concatenate([each[side] for each in places.values()]) for side in (0, 1))
        both = (kernel >= 0) & (simulator >= 0)
        bad = np.zeros(len(kernel), bool)
        bad[both] = ~same_classes(kernel[both], simulator[both])
        found, start, last = [], 0, self.frames
        for key, (there, here, memories) in places.items():
            wrong, start = bad[start:start + len(there)].copy(), start + len(there)
            before = last.get(key) if key[1] is not None and self.op["op"] not in MOVES else None
            if before is not None:
                pages = min(len(there), len(before[0]))
                old, new = [each[:pages] for each in before], [each[:pages] for each in (there, here)]
                known = np.logical_and.reduce([each >= 0 for each in (*old, *new)])
                wrong[:pages] |= known & ((old[0] != new[0]) != (old[1] != new[1]))
            where = " ".join(each for each in key if each)
            both = (there >= 0) & (here >= 0)
            expected = np.where(both, 1, UNKNOWN)
            found += self._many("frame", where, expected, np.where(wrong, 2, 1), memories,
                                {1: "another or the same", 2: "the contrary"})
        self.frames = {key: each[:2] for key, each in places.items() if key[1] is not None}
        return found

    def _references(self, state, where, kernel, place):
        """Reference counts of the large folios whose head a region or file has, where they were recorded."""
        _, frames, memories = place
        shown = dense(kernel.get("refs", ()), len(frames))
        there = dense([[first, count, 1] for first, count, _ in kernel.get("refs", ())], len(frames)) == 1
        shown = np.where(there, shown, UNKNOWN)
        return self._many("references", where, shown, np.where(there, state.references(frames), 0), memories)

    def _region(self, state, process, name, kernel, places):
        region = self.translation.regions[process][name]
        pages, where, memories = -(-region.length // PAGE), f"{process} {name}", [region.memory]
        leaf, count, exclusive, frames, row = state.mapping(region.mapping, pages)
        places[process, name] = frames_of(kernel, pages), frames, memories
        references = self._references(state, where, kernel, places[process, name])
        found = []
        if region.mapping is not None and "vmas" in kernel and not region.divided:
            found += self._one("VMAs", where, kernel_vmas(kernel["vmas"]), state.vmas(region.mapping), memories)
        found += self._many("leaf", where, dense(kernel["map"], pages, {"PTE": 1, "HUGE": 2}), leaf, memories,
                            LEAVES)
        found += self._many("map count", where, dense(kernel["mapcount"], pages), count, memories)
        if "excl" in kernel:
            found += self._many("exclusive bit", where, dense(kernel["excl"], pages), exclusive, memories)
        return found + references + self._smaps(state, where, region, kernel["smaps"], row, memories)

    def _smaps(self, state, where, region, kernel, row, memories):
        if region.kind == "hugetlb":
            self.skipped["Rss and Pss of hugetlb, which the kernel leaves out"] += 2
            suffix = "_hugetlb"
            shared, private = kernel.get("Shared_Hugetlb", 0), kernel.get("Private_Hugetlb", 0)
        else:
            suffix = ""
            shared = kernel.get("Shared_Clean", 0) + kernel.get("Shared_Dirty", 0)
            private = kernel.get("Private_Clean", 0) + kernel.get("Private_Dirty", 0)
        found = []
        if region.kind != "hugetlb":
            found += self._one("Rss", where, kernel.get("Rss", 0), row["rss"] // 1024, memories)
            pss = 0 if region.mapping is None else state.all.pss_kb(region.mapping)
            found += self._one("Pss", where, kernel.get("Pss", 0), pss, memories)
            huge = sum(kernel.get(key, 0) for key in ("AnonHugePages", "ShmemPmdMapped", "FilePmdMapped"))
            found += self._one("mapped by PMD", where, huge, row["levels"]["pmd"] // 1024, memories)
        found += self._one("shared", where, shared, row["shared" + suffix] // 1024, memories)
        found += self._one("private", where, private, row["private" + suffix] // 1024, memories)
        return found


def _bytes(op, page):
    """Bytes done, as the kernel's answer to `op` tells them; None where it does not. page: the folio size."""
    name = op["op"]
    if name == "move_pages":
        status = np.concatenate([np.full(count, value) for value, count in op["status"]])
        address = op["off"] + np.arange(len(status)) * op["stride"]
        return len(np.unique(address[status >= 0] // page)) * page
    if name == "uffd_continue":
        return max(op["mapped"], 0)
    if name in ("read", "write"):
        return op["accessed"] * PAGE
    if name == "bg_done":
        return PAGE * op["ret"]
    return None


def kernel_vmas(vmas):
    """[(start, end, rights)] of the VMAs that an observation shows for a region."""
    return [(start, end, rights[:2]) for start, end, rights, *_ in vmas]


def frames_of(kernel, pages):
    """The frames that an observation shows for the pages of a region or file, as numbers; -1 where it shows none."""
    frames = np.full(pages, -1, np.int64)
    if "pfn" in kernel:
        runs = kernel["pfn"]
    else:
        runs = [(first, count, at if block == "S" else (int(block[1:]) + 1 << 32) + at)
                for first, count, block, at in kernel.get("phys", ())]
    for first, count, frame in runs:
        count = min(count, pages - first)
        frames[first:first + count] = frame + np.arange(max(count, 0))
    return frames


def same_classes(a, b):
    """Of two arrays, where equal elements of one stand beside equal elements of the other, and only those."""
    def first(of, beside):
        _, index, inverse = np.unique(of, return_index=True, return_inverse=True)
        return beside[index][inverse] == beside

    return first(a, b) & first(b, a)


class _State:
    """What a machine shows of itself at one moment, by 4K page."""

    def __init__(self, machine):
        self.machine = machine
        self.all = Seen(machine.core, machine.engine, machine.geometry, machine.options, machine.header)
        self.counts = self.all.frame_counts()
        seen = machine.observe()
        self.rows = {(row["process"], row["mapping"]): row for row in seen["mappings"]}
        self.page_tables = {row["process"]: row["page_tables"] for row in seen["processes"]}

    def mapping(self, number, pages):
        """(leaf as an index of LEAVES, map count, exclusive bit, frame) of each page, and the row of smaps."""
        leaf, count, exclusive = (np.zeros(pages, np.int64) for _ in range(3))
        frames = np.full(pages, -1, np.int64)
        header, seen = self.machine.header, self.all
        none = {"rss": 0, "levels": {"pmd": 0}, **dict.fromkeys(
            ("shared", "private", "shared_hugetlb", "private_hugetlb", "pss"), 0)}
        if number is None:
            return leaf, count, exclusive, frames, none
        mapping = header.mappings[number]
        row = self.rows.get((header.processes[mapping.process], mapping.name), none)
        for i in np.flatnonzero(seen.mapping == number):
            first, length = int(seen.page[i]), int(seen.length[i])
            length = min(length, pages - first)
            if length > 0:
                frames[first:first + length] = int(seen.pfn[i]) + np.arange(length)
                leaf[first:first + length] = 1 if seen.leaves["level"][i] == PTE else 2
                count[first:first + length] = value_at(self.counts, int(seen.pfn[i]) + np.arange(length))
        for first, last, value in row.get("exclusive", ()):
            exclusive[first:last] = value
        return leaf, count, exclusive, frames, row

    def vmas(self, number):
        """[(start, end, rights)] of what is left of a mapping."""
        return [(start, end, ("r" if flags & READ else "-") + ("w" if flags & WRITE else "-"))
                for start, end, flags in self.machine.core.vmas(number)]

    def references(self, frames):
        """The reference count of the folio of each frame, 0 where that is -1."""
        folios = self.all.folios
        if not len(folios):
            return np.zeros(len(frames), np.int64)
        at = np.searchsorted(folios["pfn"].astype(np.int64), frames, side="right") - 1
        return np.where(frames < 0, 0, folios["refcount"][np.maximum(at, 0)].astype(np.int64))

    def file_frames(self, index):
        """The frame of each 4K page of a file, -1 where it is not in the page cache."""
        file = self.machine.header.files[index]
        frames = np.full(file.pages * file.page_size // PAGE, -1, np.int64)
        for folio in self.all.folios[self.all.folios["file"] == index]:
            if folio["flags"] & FOLIO_CACHED:
                length = int(folio["nr_pages"])
                first = int(folio["page"]) * (length if file.kind == "hugetlb" else 1)
                frames[first:first + length] = int(folio["pfn"]) + np.arange(length)
        return frames

    def file_counts(self, index):
        """Map count of each 4K page of a file, 0 where it is not in the page cache."""
        frames = self.file_frames(index)
        return np.where(frames < 0, 0, value_at(self.counts, np.maximum(frames, 0)))

    def tables(self, process):
        """Page-table pages of a process below its root; 0 where it has none, or has ended."""
        return sum(self.page_tables.get(process, {}).values()) // PAGE
