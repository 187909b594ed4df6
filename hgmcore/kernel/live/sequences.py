"""Random operation sequences, the same for the same seed: statements of a recording without results.

They hold what the simulator models: shmem files of 2M folios (mappings of them have MADV_HUGEPAGE, so that holes are
filled as in a simulated file) and of 4K pages, anonymous memory with MADV_HUGEPAGE, on request hugetlb files; accesses
that fail included. Left out, because the simulator leaves it out or because it is somebody else's:

* private mappings of files; MADV_PAGEOUT, NOHUGEPAGE; MADV_COLD and FREE where they could split a folio
* mlock of a part of a mapping, or of a registered one; what moves a locked one or makes copies in it
* mremap of a range with holes or of several VMAs, and of two lengths at a time
* userfaultfd for private memory, for a part of a mapping or a resized one, and its events: it is asked to fail where it
  would raise one
* a munmap or mprotect of hugetlb that is refused for its end, which divides the VMA at its start all the same, and
  MADV_COLLAPSE in a hole of a hugetlb mapping
* memory failure and migration, which concern the whole machine
"""

import random

from hgmcore.kernel.live.kernel import HUGE, PAGE, PROT

_LENGTHS = (1, 1, 1, 2, 3, 8, 16, 17, 64, 100, 256, 511, 512, 512, 512, 1024)  # 4K pages
_WEIGHTS = {"mmap": 6, "touch": 14, "dontneed": 8, "collapse": 4, "populate": 4, "munmap": 5, "mprotect": 4,
            "mremap": 3, "fork": 3, "exit": 2, "register": 2, "unregister": 1, "uffd_continue": 16, "punch": 3,
            "truncate": 1, "lock": 2, "unlock": 1, "advise": 2}
_PROCESSES, _REGIONS = 4, 5  # at a time; regions of one process


class _Region:
    """whole: it has the length that it was made with. cut: it may be several VMAs, or have holes."""

    def __init__(self, pages, file, whole, cut=False):
        self.pages, self.file, self.whole, self.cut, self.registered = pages, file, whole, cut, False
        self.locked = False


class _Maker:
    """The files, processes and regions that exist so far, without asking a kernel; a method for each kind of step."""

    def __init__(self, rng, hugetlb):
        self.rng, self.hugetlb = rng, hugetlb
        self.files, self.huge, self.processes, self.armed = {}, {}, {}, set()
        self.named = 0
        self.statements = []

    def make(self, steps):
        self._begin()
        kinds, weights = zip(*_WEIGHTS.items())
        while sum(s["t"] == "op" for s in self.statements) < steps and self.processes:
            getattr(self, self.rng.choices(kinds, weights)[0])()
        for name in list(self.processes):
            self._op(name, "exit")
        return self.statements

    def _begin(self):
        for number in range(self.rng.choice((1, 1, 2))):
            kind = "hugetlb" if self.hugetlb else "shmem"
            page = HUGE if self.hugetlb else self.rng.choice((HUGE, HUGE, HUGE, PAGE))
            size = self.rng.choice((1, 2, 3)) * HUGE
            self.files[f"f{number}"] = size
            self.huge[f"f{number}"] = kind == "shmem" and page == HUGE
            self.statements.append({"t": "file", "file": f"f{number}", "kind": kind, "size": size, "page": page,
                                    "cached": [[0, size // PAGE]] if (kind, page) == ("shmem", HUGE) else []})
        for name in "AB"[:self.rng.choice((1, 2))]:
            self.processes[name] = {}
            self.statements.append({"t": "proc", "proc": name})
        self.mmap()

    def _op(self, process, op, **fields):
        self.statements.append({"t": "op", "proc": process, "op": op, **fields})

    def _any(self, wanted=lambda region: True):
        """(process, name of a region, region) that is `wanted`, or three times None."""
        found = [(p, r, region) for p, regions in self.processes.items() for r, region in regions.items()
                 if wanted(region)]
        return self.rng.choice(found) if found else (None, None, None)

    def _range(self, pages, lengths=_LENGTHS):
        """{off, len} in bytes of a range inside `pages`, at borders more often than elsewhere."""
        length = min(self.rng.choice(lengths), pages)
        if self.hugetlb and self.rng.random() < 0.8:
            length = min(-(-length // 512) * 512, pages)
        last = pages - length
        if self.hugetlb and self.rng.random() < 0.8:
            return {"off": self.rng.randint(0, last // 512) * HUGE, "len": length * PAGE}
        borders = (0, 0, last, min(last, 512), max(0, min(last, 512 - length)))
        first = self.rng.choice((*borders, self.rng.randint(0, last)))
        return {"off": first * PAGE, "len": length * PAGE}

    def mmap(self):
        process = self.rng.choice(list(self.processes))
        if len(self.processes[process]) == _REGIONS:
            return
        name = f"m{self.named}"
        self.named += 1
        fields = {"region": name, "off": 0, "prot": PROT["rw"], "addr_mod_2M": 0}
        if self.hugetlb or self.rng.random() < 0.6:
            file = self.rng.choice(list(self.files))
            size = self.files[file] // PAGE
            first = self.rng.choice((0, 0, 0, self.rng.randrange(size), size // 512 // 2 * 512))
            pages = self.rng.choice((size - first, size - first, self.rng.randint(1, size - first)))
            if self.hugetlb:
                first, pages = first // 512 * 512, -(-pages // 512) * 512
            fields.update(len=pages * PAGE, file=file, fileoff=first * PAGE, flags="SHARED",
                          addr_mod_2M=first * PAGE % HUGE)  # as the kernel chooses it
        else:
            file, pages = None, self.rng.choice((512, 512, 1024, 1000))
            fields.update(len=pages * PAGE, fileoff=0, flags="PRIVATE")
        self._op(process, "mmap", **fields)
        if file is None or self.huge[file]:
            self._op(process, "madvise", region=name, off=0, len=pages * PAGE, advice="HUGEPAGE")
        self.processes[process][name] = _Region(pages, file, True)
        if file and self.rng.random() < 0.4:
            self._register(process, name)

    def touch(self):
        process, name, region = self._any()
        if name:
            kind = self.rng.choice(("read", "write", "write") if region.file is None else ("read", "read", "write"))
            self._op(process, kind, region=name, **self._range(region.pages, (1, 1, 1, 1, 2, 5)))

    def populate(self):
        process, name, region = self._any()
        if name:
            advice = self.rng.choice(("POPULATE_READ", "POPULATE_WRITE"))
            self._op(process, "madvise", region=name, **self._range(region.pages), advice=advice)

    def dontneed(self):
        self._advise("DONTNEED")

    def lock(self):
        process, name, region = self._any(lambda region: not (region.cut or region.registered or region.locked))
        if name:
            region.locked = True
            self._op(process, "mlock", region=name, off=0, len=region.pages * PAGE)

    def unlock(self):
        process, name, region = self._any(lambda region: region.locked and not region.cut)
        if name:
            region.locked = False
            self._op(process, "munlock", region=name, off=0, len=region.pages * PAGE)

    def advise(self):
        """Advice that is refused, changes nothing, or is the punch of a hole."""
        advice = self.rng.choice(("REMOVE", "COLD", "FREE", "DONTNEED_LOCKED"))
        self._advise(advice, wanted=lambda region: {
            "REMOVE": region.file and not (region.locked or region.cut),
            "COLD": self.hugetlb or region.locked or region.file and not self.huge[region.file],
            "FREE": region.file}.get(advice, True))

    def collapse(self):
        self._advise("COLLAPSE", (512, 512, 1024, 100), lambda region: not (self.hugetlb and region.cut))

    def _advise(self, advice, lengths=_LENGTHS, wanted=lambda region: True):
        process, name, region = self._any(wanted)
        if name:
            self._op(process, "madvise", region=name, **self._range(region.pages, lengths), advice=advice)

    def munmap(self):
        self._cut("munmap")

    def mprotect(self):
        self._cut("mprotect", prot=self.rng.choice((0, 1, 3, 3)))

    def _cut(self, op, **fields):
        """A step that divides a VMA."""
        process, name, region = self._any(lambda region: op == "munmap" or not region.locked)
        if name:
            part = self._range(region.pages)
            if self.hugetlb and part["off"] % HUGE == 0 and part["off"]:
                part["len"] = -(-part["len"] // HUGE) * HUGE  # otherwise it is refused, but divides the VMA at `off`
            region.cut = True
            self._op(process, op, region=name, **part, **fields)

    def mremap(self):
        process, name, region = self._any(lambda region: not (region.cut or region.locked))
        if not name:
            return
        if self.rng.random() < 0.5:
            part, to = self._range(region.pages), f"m{self.named}"
            if self.hugetlb:
                part["len"] = -(-part["len"] // HUGE) * HUGE
            self.named += 1
            region.cut = True
            self._op(process, "mremap", region=name, **part, newlen=part["len"], flags=3, to=to)
            self.processes[process][to] = _Region(part["len"] // PAGE, region.file, region.whole)
        else:
            pages = self.rng.choice((max(1, region.pages // 2), region.pages + 512, region.pages + 1))
            if self.hugetlb:
                pages = max(512, region.pages // 1024 * 512)
            self._op(process, "mremap", region=name, off=0, len=region.pages * PAGE, newlen=pages * PAGE, flags=0)
            region.pages, region.whole = pages, False

    def fork(self):
        if len(self.processes) < _PROCESSES:
            parent, child = self.rng.choice(list(self.processes)), f"P{self.named}"
            self.named += 1
            self._op(parent, "fork", child=child)
            self.processes[child] = {name: _Region(r.pages, r.file, r.whole, r.cut)
                                     for name, r in self.processes[parent].items()}

    def exit(self):
        if len(self.processes) > 1:
            process = self.rng.choice(list(self.processes))
            self._op(process, "exit")
            del self.processes[process]
            self.armed.discard(process)

    def register(self):
        process, name, _ = self._any(lambda region: region.file and region.whole and not region.locked)
        if name:
            self._register(process, name)

    def _register(self, process, name):
        region = self.processes[process][name]
        if process not in self.armed:
            # SIGBUS: an access that would raise an event fails instead; nobody is there to serve events.
            self._op(process, "uffd_open", asked=["MINOR_SHMEM", "MINOR_HUGETLBFS", "SIGBUS"], flags=0)
            self.armed.add(process)
        self._op(process, "uffd_register", region=name, off=0, len=region.pages * PAGE, mode="MINOR")
        region.registered = True

    def unregister(self):
        process, name, region = self._any(lambda region: region.registered)
        if name:
            self._op(process, "uffd_unregister", region=name, off=0, len=region.pages * PAGE)
            region.registered = False

    def uffd_continue(self):
        process, name, region = self._any(lambda region: region.registered)
        if name:
            self._op(process, "uffd_continue", region=name, **self._range(region.pages), mode=0)

    def punch(self):
        file = self.rng.choice(list(self.files))
        self._op("driver", "fallocate", region=file, mode="PUNCH_HOLE", **self._range(self.files[file] // PAGE))

    def truncate(self):
        file = self.rng.choice(list(self.files))
        pages = self.rng.randrange(self.files[file] // PAGE)
        if self.hugetlb:
            pages = pages // 512 * 512
        self._op("driver", "ftruncate", region=file, off=0, len=pages * PAGE)


def sequence(seed, steps=40, hugetlb=False):
    """The sequence of `seed`, a list of statements with about `steps` operations, on hugetlb files alone or on none."""
    return _Maker(random.Random(seed), hugetlb).make(steps)
