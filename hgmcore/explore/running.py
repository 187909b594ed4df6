"""Counterexamples as sequences that a running kernel can do, for `hgmcore validate --live --sequence`.

No kernel has HGM. The same operations exist on a shmem file of 2M folios: UFFDIO_CONTINUE maps 4K pieces, MADV_COLLAPSE
maps the folio whole. So what is rewritten for x86-64 is rewritten once more, as the statements of a kernel recording
without results: the kernel then does it by its own rules, and shows whether its own counts have the fault.
"""

from __future__ import annotations

import json
from collections import Counter

from hgmcore.explore.elsewhere import HUGE, M, rewritten
from hgmcore.sizes import format_size, parse_size

PAGE, FOLIO, READ_WRITE = 4096, 2 * M, 3
FILLER = "filler"
"""A process that has the kernel fill holes of the file; it maps nothing behind its step."""

REASONS = {
    "pin": "pin: no system call here pins a page",
    "unpin": "unpin: no system call here pins a page",
    "migrate": "migrate: where pages can go is a matter of the whole machine",
    "hwpoison": "hwpoison: memory that failed is lost to the whole machine",
    "fail": "fail: nothing here makes an allocation of the kernel fail",
    "split": "split: shmem has no such operation",
}
"""Why there is no sequence with a statement."""


class NotOnAKernel(ValueError):
    """A trace that no running kernel can do, and why."""


def sequence(scope, steps, name: str) -> str:
    """The statements of a trace as JSON lines. NotOnAKernel: there is no such sequence, and why."""
    if scope.geometry not in HUGE:
        raise NotOnAKernel(f"{scope.geometry}: x86-64 has no contiguous groups")
    if HUGE[scope.geometry] != FOLIO:
        raise NotOnAKernel(f"{scope.geometry}: it stands for huge pages of 1G, and folios of shmem have 2M")
    return _sequence(rewritten(scope, steps), scope.pages, name, reads=False)


def sequence_of_walk(geometry: str, lines, name: str) -> str:
    """As sequence(), of a trace that a random walk found: statements behind `geometry`."""
    if geometry != "x86-64":
        raise NotOnAKernel(f"{geometry}: it is not x86-64")
    files = {words[1]: words for words in map(str.split, lines) if words[0] == "file"}
    mapped = {file for word, *words in map(str.split, lines) for file in words[2:3] if word == "mmap" and file in files}
    for file in mapped:
        if parse_size(files[file][2]) != FOLIO:
            raise NotOnAKernel(f"{file}: folios of shmem have 2M, not {files[file][2]}")
    other = [file for file in files if parse_size(files[file][2]) != FOLIO]
    kept = [line for line in lines if len(line.split()) < 2 or line.split()[1] not in other]    # of no mapped file
    pages = [int(words[3]) for words in files.values() if words[1] not in other]
    return _sequence(kept, max(pages, default=0), name, reads=True)


def _sequence(lines, pages, name, reads):
    """lines: statements. pages: of the file F, 0: there is none. reads: whether a touch without `write` reads."""
    made = _Made(pages, reads)
    for line in lines:
        word, *words = line.split()
        if word in REASONS:
            raise NotOnAKernel(REASONS[word])
        if "wp" in words:
            raise NotOnAKernel("wp: fork would wait for whoever reads events of userfaultfd")
        getattr(made, f"do_{word}")(*words)
    scenario = {"t": "scenario", "name": name, "doc": "a sequence, not run yet", "kernel": ""}
    return "".join(json.dumps(statement) + "\n" for statement in [scenario, *made.all()])


class _Made:
    """The statements so far; a method for each statement of a trace."""

    def __init__(self, pages, reads):
        self.length, self.reads = pages * FOLIO, reads
        self.steps, self.processes = [], []
        self.filled = 0               # pages that were populated when nothing else had happened to the file
        self.begun = False            # a step looked at the page cache
        self.regions, self.named = {}, Counter()    # (process, mapping): (region, its length)
        self.watched = set()

    def all(self):
        # A file of 2M folios has all of them at first.
        file = {"t": "file", "file": "F", "kind": "shmem", "size": self.length, "page": FOLIO,
                "cached": [[0, self.length // PAGE]]}
        files = [file] if self.length else []
        start = [] if self.filled == self.length else [self._driver("fallocate", mode="PUNCH_HOLE", off=self.filled,
                                                                    len=self.length - self.filled)]
        processes = [{"t": "proc", "proc": name} for name in self.processes]
        steps = [{"t": "op", "i": i, **step} for i, step in enumerate([*start, *self.steps], start=1)]
        return [*files, *processes, *steps]

    @staticmethod
    def _driver(op, **fields):
        return {"proc": "driver", "op": op, "region": "F", **fields}

    def _op(self, process, op, **fields):
        self.steps.append({"proc": process, "op": op, **fields})

    def _on(self, process, mapping, op, offset="0", length=None, **fields):
        """An operation on a part of a process's mapping; length: None: on all of it."""
        self.begun = True
        region, whole = self.regions[process, mapping]
        length = whole if length is None else parse_size(length)
        self._op(process, op, region=region, off=parse_size(offset), len=length, **fields)

    def do_file(self, *words):
        pass

    def do_mmap(self, process, mapping, file, offset, length, *flags):
        if not any(process == one for one, _ in self.regions):
            self.processes.append(process)
        self.named[process, mapping] += 1
        again = self.named[process, mapping]
        region, length = mapping if again == 1 else f"{mapping}{again}", parse_size(length)    # a name is used once
        self.regions[process, mapping] = (region, length)
        what = {"flags": "PRIVATE"} if file.startswith("anon") else {"flags": "SHARED", "file": file}
        self._op(process, "mmap", region=region, off=0, len=length, prot=READ_WRITE, fileoff=parse_size(offset),
                 addr_mod_2M=0, **what)
        self._op(process, "madvise", region=region, off=0, len=length, advice="HUGEPAGE")
        if "minor" in flags:
            self._register(process, mapping)

    def _register(self, process, mapping):
        if process not in self.watched:
            # SIGBUS: an access that would raise an event fails instead; nobody is there to serve events.
            self._op(process, "uffd_open", asked=["MINOR_SHMEM", "MINOR_HUGETLBFS", "SIGBUS"], flags=0)
            self.watched.add(process)
        region, length = self.regions[process, mapping]
        self._op(process, "uffd_register", region=region, off=0, len=length, mode="MINOR")

    def do_register(self, process, mapping, *flags):
        self._register(process, mapping)

    def do_unregister(self, process, mapping):
        self._on(process, mapping, "uffd_unregister")

    def do_populate(self, file, first, count):
        first, length = int(first) * FOLIO, int(count) * FOLIO
        if not self.begun and first == self.filled:
            self.filled += length
            return
        self.begun = True
        self.steps.append(self._driver("ftruncate", off=0, len=self.length))    # populate makes a file longer
        if (FILLER, "v") not in self.regions:
            self.do_mmap(FILLER, "v", file, "0", format_size(self.length))
        for advice in ("POPULATE_WRITE", "DONTNEED"):
            self._op(FILLER, "madvise", region="v", off=first, len=length, advice=advice)

    def do_punch(self, file, offset, length):
        self.begun = True
        self.steps.append(self._driver("fallocate", mode="PUNCH_HOLE", off=parse_size(offset), len=parse_size(length)))

    def do_truncate(self, file, size):
        self.begun = True
        self.steps.append(self._driver("ftruncate", off=0, len=parse_size(size)))

    def do_continue(self, process, mapping, offset, length):
        self._on(process, mapping, "uffd_continue", offset, length, mode=0)

    def do_touch(self, process, mapping, offset, *words):
        self._on(process, mapping, "read" if self.reads and "write" not in words else "write", offset, "4K")

    def do_dontneed(self, process, mapping, offset, length):
        self._on(process, mapping, "madvise", offset, length, advice="DONTNEED")

    def do_collapse(self, process, mapping, offset, length):
        self._on(process, mapping, "madvise", offset, length, advice="COLLAPSE")

    def do_munmap(self, process, mapping, offset, length):
        self._on(process, mapping, "munmap", offset, length)

    def do_fork(self, process, child):
        self._op(process, "fork", child=child)
        for (one, mapping), region in list(self.regions.items()):
            if one == process:
                self.regions[child, mapping] = region
                self.named[child, mapping] = self.named[process, mapping]

    def do_exit(self, process):
        self._op(process, "exit")
