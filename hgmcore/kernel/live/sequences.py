"""Random operation sequences, the same for the same seed: statements of a recording without results.

They hold what the simulator models: shmem files of 2M folios (mappings of them have MADV_HUGEPAGE, so that holes are
filled as in a simulated file) and of 4K pages, anonymous memory with MADV_HUGEPAGE, on request hugetlb files, or folios
of a size between; shared and private, at addresses of any alignment; references that a pipe holds on pages; accesses
that fail included. Left out, because the simulator leaves it out or because it is somebody else's:

* MADV_PAGEOUT, NOHUGEPAGE; MADV_COLD and FREE where they could split a folio
* mlock of a part of a mapping, or of a registered one; what moves a locked one or makes copies in it
* mremap of a range with holes or of several VMAs, and one that moves to an address of the kernel's choice
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
            "mremap": 4, "fork": 4, "exit": 2, "register": 2, "unregister": 1, "uffd_continue": 16, "punch": 3,
            "truncate": 1, "pin": 2, "unpin": 1, "lock": 2, "unlock": 1, "advise": 2}
_AT_MOST = 5  # processes at a time; regions of one process
_PINNED = 16  # pages, for which a pipe has room
_POPULATED = 16 << 20  # bytes that are populated at once, so that the pool is not used up
_MIDDLE = tuple(PAGE << order for order in range(2, 9))
MAYMOVE, FIXED, DONTUNMAP = 1, 2, 4
GIANT = 1 << 30


class _Region:
    """whole: it has the length that it was made with. cut: it may be several VMAs, or have holes."""

    def __init__(self, pages, file, whole, cut=False, shared=True):
        self.pages, self.file, self.whole, self.cut, self.registered = pages, file, whole, cut, False
        self.locked, self.shared = False, shared


class _Maker:
    """The files, processes and regions that exist so far, without asking a kernel; a method for each kind of step."""

    def __init__(self, rng, hugetlb, folio, giant):
        self.rng, self.hugetlb, self.folio, self.giant = rng, hugetlb, folio, giant
        self.processes_at_most = self.regions_at_most = 3 if giant else _AT_MOST
        self.pinned, self.holed = [], set()  # holed: files whose folios may have been split
        self.protected = []
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
        for number in range(1 if self.giant else self.rng.choice((1, 1, 2))):
            kind = "hugetlb" if self.hugetlb else "shmem"
            page = self.folio or (HUGE if self.hugetlb else self.rng.choice((HUGE, HUGE, HUGE, PAGE)))
            size = self.rng.choice((1, 2, 2, 3, 3, 5)) * HUGE
            if self.giant:
                size, page = GIANT, self.giant
            self.files[f"f{number}"] = size
            self.huge[f"f{number}"] = kind == "shmem" and page == HUGE
            there = self.huge[f"f{number}"] or self.folio and self.rng.random() < 0.7
            self.statements.append({"t": "file", "file": f"f{number}", "kind": kind, "size": size, "page": page,
                                    "cached": [[0, size // PAGE]] if there else []})
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
        if self.giant:
            return self._giant_range(pages, max(lengths) <= _PINNED)
        length = min(self.rng.choice(lengths), pages)
        if self.hugetlb and self.rng.random() < 0.8:
            length = min(-(-length // 512) * 512, pages)
        last = pages - length
        if self.hugetlb and self.rng.random() < 0.8:
            return {"off": self.rng.randint(0, last // 512) * HUGE, "len": length * PAGE}
        borders = (0, 0, last, min(last, 512), max(0, min(last, 512 - length)))
        first = self.rng.choice((*borders, self.rng.randint(0, last)))
        return {"off": first * PAGE, "len": length * PAGE}

    def _giant_range(self, pages, few):
        """One in a file of 1G, at few places, so that what is done there meets; `few`: pages of 4K."""
        first = min(self.rng.choice((0, 0, 1, 2, 511)) * 512, pages - 1)
        length = self.rng.choice((1, 1, 2, 5) if few else (1, 512, 512, 1024, pages))
        return {"off": first * PAGE, "len": min(length, pages - first) * PAGE}

    def mmap(self):
        process = self.rng.choice(list(self.processes))
        if len(self.processes[process]) == self.regions_at_most:
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
            shared = self.rng.random() < 0.7 or self.giant is not None
            if self.giant:
                first, pages = 0, GIANT // PAGE
            fields.update(len=pages * PAGE, file=file, fileoff=first * PAGE, flags="SHARED" if shared else "PRIVATE",
                          addr_mod_2M=first * PAGE % HUGE if self.hugetlb else self._aligned(first * PAGE))
        else:
            file, shared, pages = None, False, self.rng.choice((512, 512, 1024, 1000))
            fields.update(len=pages * PAGE, fileoff=0, flags="PRIVATE", addr_mod_2M=self._aligned(0),
                          page=self.folio or HUGE)
        if self.giant:
            fields["flags"] += "|NORESERVE"
        self._op(process, "mmap", **fields)
        if file is None or self.huge[file]:
            self._op(process, "madvise", region=name, off=0, len=pages * PAGE, advice="HUGEPAGE")
        self.processes[process][name] = _Region(pages, file, True, shared=shared)
        if file and shared and self.rng.random() < 0.4:
            self._register(process, name)

    def _aligned(self, offset):
        """An address modulo 2M: mostly that of the file, as the kernel chooses it; else another one."""
        if self.rng.random() < 0.75:
            return offset % HUGE
        return self.rng.choice((PAGE, HUGE // 2, HUGE - PAGE, 64 * PAGE, self.rng.randrange(512) * PAGE))

    def touch(self):
        process, name, region = self._any()
        if name:
            kind = self.rng.choice(("read", "write", "write") if region.file is None else ("read", "read", "write"))
            self._op(process, kind, region=name, **self._range(region.pages, (1, 1, 1, 1, 2, 5)))

    def populate(self):
        process, name, region = self._any()
        if name:
            advice = self.rng.choice(("POPULATE_READ", "POPULATE_WRITE"))
            part = self._range(region.pages)
            part["len"] = min(part["len"], _POPULATED)
            self._op(process, "madvise", region=name, **part, advice=advice)

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
        """Rights of a part, or those back that the last such step took, so that VMAs merge."""
        if self.protected and self.rng.random() < 0.5:
            process, name, part = self.protected.pop()
            self._op(process, "mprotect", region=name, **part, prot=PROT["rw"])
        else:
            self._cut("mprotect", prot=self.rng.choice((0, 1, 1, 3)))

    def _cut(self, op, **fields):
        """A step that divides a VMA."""
        process, name, region = self._any(lambda region: op == "munmap" or not region.locked)
        if name:
            part = self._range(region.pages)
            if self.hugetlb and part["off"] % HUGE == 0 and part["off"]:
                part["len"] = -(-part["len"] // HUGE) * HUGE  # otherwise it is refused, but divides the VMA at `off`
            region.cut = True
            self._op(process, op, region=name, **part, **fields)
            if op == "mprotect":
                self.protected.append((process, name, part))

    def mremap(self):
        process, name, region = self._any(lambda region: not (region.cut or region.locked))
        if not name:
            return
        if self.rng.random() < 0.5:
            part, to = self._range(region.pages), f"m{self.named}"
            flags, fields, unit = MAYMOVE | FIXED, {}, HUGE if self.hugetlb else PAGE
            part["len"] = -(-part["len"] // unit) * unit
            new = part["len"]
            how = self.rng.random()
            if how < 0.25:
                flags |= DONTUNMAP
            elif how < 0.5:
                new = max(unit, self.rng.choice((new // 2 // unit * unit, new - unit, new + unit, new + HUGE)))
            if not self.hugetlb and self.rng.random() < 0.4:
                fields["to_mod_2M"] = self._aligned(0)
            self.named += 1
            region.cut |= not flags & DONTUNMAP
            self._op(process, "mremap", region=name, **part, newlen=new, flags=flags, to=to, **fields)
            self.processes[process][to] = _Region(new // PAGE, region.file, region.whole and new == part["len"],
                                                  shared=region.shared)
        elif self.giant != GIANT:
            pages = self.rng.choice((max(1, region.pages // 2), region.pages + 512, region.pages + 1))
            if self.hugetlb:
                pages = max(512, region.pages // 1024 * 512)
            self._op(process, "mremap", region=name, off=0, len=region.pages * PAGE, newlen=pages * PAGE, flags=0)
            region.pages, region.whole = pages, False

    def fork(self):
        if len(self.processes) < self.processes_at_most:
            parent, child = self.rng.choice(list(self.processes)), f"P{self.named}"
            self.named += 1
            self._op(parent, "fork", child=child)
            self.processes[child] = {name: _Region(r.pages, r.file, r.whole, r.cut, r.shared)
                                     for name, r in self.processes[parent].items()}

    def exit(self):
        if len(self.processes) > 1:
            process = self.rng.choice(list(self.processes))
            self._op(process, "exit")
            del self.processes[process]
            self.armed.discard(process)
            self.pinned = [pin for pin in self.pinned if pin[0] != process]
            self.protected = [part for part in self.protected if part[0] != process]

    def pin(self):
        """A reference on each of some pages, which an access brings there first."""
        process, name, region = self._any(lambda it: it.file and it.shared and it.file not in self.holed)
        if name:
            part = self._range(region.pages, (1, 1, 2, _PINNED))
            part["len"] = min(part["len"], _PINNED * PAGE)
            self._op(process, "read", region=name, **part)
            self._op(process, "pin", region=name, **part, pin=self.named)
            self.pinned.append((process, name, part, self.named))
            self.named += 1

    def unpin(self):
        if self.pinned:
            process, name, part, number = self.pinned.pop(self.rng.randrange(len(self.pinned)))
            self._op(process, "unpin", region=name, **part, pin=number)

    def register(self):
        process, name, _ = self._any(lambda it: it.file and it.whole and it.shared and not it.locked)
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
        self.holed.add(file)
        self._op("driver", "fallocate", region=file, mode="PUNCH_HOLE", **self._range(self.files[file] // PAGE))

    def truncate(self):
        file = self.rng.choice(list(self.files))
        pages = self.rng.randrange(self.files[file] // PAGE)
        self.holed.add(file)
        if self.hugetlb:
            pages = pages // 512 * 512
        self._op("driver", "ftruncate", region=file, off=0, len=pages * PAGE)


def sequence(seed, steps=None, hugetlb=False, folio=None, giant=None):
    """The sequence of `seed`, a list of statements with about `steps` operations (None: 40, or 150), on hugetlb files
    alone or on none. folio: bytes of the folios of shmem and anonymous memory; None: 2M, or 4K. giant: instead, the one
    hugetlb file has 1G, in pages of 1G or of 2M, whose page tables processes share."""
    rng = random.Random(seed)
    return _Maker(rng, hugetlb, folio, giant).make(steps or (40 if giant else rng.choice((40, 40, 150))))


def giant_of(seed, there):
    """Of some seeds of hugetlb, the size of pages of a file of 1G; None: it has small ones. there: is a page of 1G?"""
    return {1: HUGE, 5: GIANT if there else None}.get(seed // 2 % 8)


def folio_of(seed):
    """The size of the folios of a sequence that is to have them between 4K and 2M."""
    return _MIDDLE[seed // 2 % len(_MIDDLE)]
