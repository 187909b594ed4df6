"""Counterexamples as sequences that a running kernel can do, for `hgmcore validate --live --sequence`.

No kernel has HGM. The same operations exist on a shmem file of 2M folios: UFFDIO_CONTINUE maps 4K pieces, MADV_COLLAPSE
maps the folio whole. So what is rewritten for x86-64 is rewritten once more, as the statements of a kernel recording
without results: the kernel then does it by its own rules, and shows whether its own counts have the fault.
"""

from __future__ import annotations

import json

from hgmcore.explore.elsewhere import HUGE, M, rewritten
from hgmcore.sizes import parse_size

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
    if "wp" in scope.flags:
        raise NotOnAKernel("wp: fork would wait for whoever reads events of userfaultfd")
    made = _Made(scope)
    for line in rewritten(scope, steps):
        word, *words = line.split()
        if word in REASONS:
            raise NotOnAKernel(REASONS[word])
        getattr(made, f"do_{word}")(*words)
    scenario = {"t": "scenario", "name": name, "doc": "a sequence, not run yet", "kernel": ""}
    return "".join(json.dumps(statement) + "\n" for statement in [scenario, *made.all()])


class _Made:
    """The statements so far; a method for each statement of a trace."""

    def __init__(self, scope):
        self.length = scope.pages * FOLIO
        self.steps, self.processes = [], []
        self.filled = 0               # pages that were populated when nothing else had happened to the file
        self.begun = False            # a step looked at the page cache
        self.regions, self.mappings = {}, {}
        self.watched = set()

    def all(self):
        # A file of 2M folios has all of them at first.
        file = {"t": "file", "file": "F", "kind": "shmem", "size": self.length, "page": FOLIO,
                "cached": [[0, self.length // PAGE]]}
        start = [] if self.filled == self.length else [self._driver("fallocate", mode="PUNCH_HOLE", off=self.filled,
                                                                    len=self.length - self.filled)]
        processes = [{"t": "proc", "proc": name} for name in self.processes]
        steps = [{"t": "op", "i": i, **step} for i, step in enumerate([*start, *self.steps], start=1)]
        return [file, *processes, *steps]

    @staticmethod
    def _driver(op, **fields):
        return {"proc": "driver", "op": op, "region": "F", **fields}

    def _op(self, process, op, **fields):
        self.steps.append({"proc": process, "op": op, **fields})

    def _on(self, process, op, offset="0", length=None, **fields):
        """An operation on a part of a process's mapping."""
        self.begun = True
        length = self.length if length is None else parse_size(length)
        self._op(process, op, region=self.regions[process], off=parse_size(offset), len=length, **fields)

    def do_file(self, *words):
        pass

    def do_mmap(self, process, mapping, file, offset, length, *flags):
        if process not in self.mappings:
            self.processes.append(process)
        number = self.mappings[process] = self.mappings.get(process, 0) + 1
        self.regions[process] = mapping if number == 1 else f"{mapping}{number}"    # a name is used once
        self._op(process, "mmap", region=self.regions[process], off=0, len=self.length, prot=READ_WRITE, flags="SHARED",
                 file=file, fileoff=0, addr_mod_2M=0)
        self._op(process, "madvise", region=self.regions[process], off=0, len=self.length, advice="HUGEPAGE")
        if "minor" in flags:
            self.do_register(process, mapping)

    def do_register(self, process, mapping, *flags):
        if process not in self.watched:
            # SIGBUS: an access that would raise an event fails instead; nobody is there to serve events.
            self._op(process, "uffd_open", asked=["MINOR_SHMEM", "MINOR_HUGETLBFS", "SIGBUS"], flags=0)
            self.watched.add(process)
        self._op(process, "uffd_register", region=self.regions[process], off=0, len=self.length, mode="MINOR")

    def do_unregister(self, process, mapping):
        self._op(process, "uffd_unregister", region=self.regions[process], off=0, len=self.length)

    def do_populate(self, file, first, count):
        first, length = int(first) * FOLIO, int(count) * FOLIO
        if not self.begun and first == self.filled:
            self.filled += length
            return
        self.begun = True
        self.steps.append(self._driver("ftruncate", off=0, len=self.length))    # populate makes a file longer
        if FILLER not in self.regions:
            self.do_mmap(FILLER, "v", file, "0", "")
        for advice in ("POPULATE_WRITE", "DONTNEED"):
            self._op(FILLER, "madvise", region="v", off=first, len=length, advice=advice)

    def do_punch(self, file, offset, length):
        self.begun = True
        self.steps.append(self._driver("fallocate", mode="PUNCH_HOLE", off=parse_size(offset), len=parse_size(length)))

    def do_truncate(self, file, pages):
        self.begun = True
        self.steps.append(self._driver("ftruncate", off=0, len=int(pages) * FOLIO))

    def do_continue(self, process, mapping, offset, length):
        self._on(process, "uffd_continue", offset, length, mode=0)

    def do_touch(self, process, mapping, offset):
        self._on(process, "write", offset, "4K")

    def do_dontneed(self, process, mapping, offset, length):
        self._on(process, "madvise", offset, length, advice="DONTNEED")

    def do_collapse(self, process, mapping, offset, length):
        self._on(process, "madvise", offset, length, advice="COLLAPSE")

    def do_munmap(self, process, mapping, offset, length):
        self._on(process, "munmap", offset, length)

    def do_fork(self, process, child):
        self._op(process, "fork", child=child)
        self.regions[child], self.mappings[child] = self.regions.get(process), self.mappings[process]

    def do_exit(self, process):
        self._op(process, "exit")
