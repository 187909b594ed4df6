"""The files that sequences map, unlinked from the start, on a tmpfs mounted nowhere; what their page cache holds."""

import contextlib
import errno
import fcntl
import os
import re
import subprocess
from pathlib import Path

import numpy as np

from hgmcore.kernel.live import kernel
from hgmcore.kernel.live.kernel import HUGE, MAP_FLAGS, PAGE

_THP = Path("/sys/kernel/mm/transparent_hugepage")
_NR_HUGEPAGES = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
_NR_GIANT = Path("/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages")
GIANT = 1 << 30
_POOL = 320  # pages: more than the mappings of a sequence reserve
_BASE = 0x20_0000_0000  # where this process maps files, without page tables except for a moment


class FileSystem:
    """A tmpfs that gives huge pages where advised, in no mount table; gone when closed."""

    def __init__(self):
        self.root = kernel.tmpfs(huge="advise")

    def close(self):
        os.close(self.root)


class ShmemFile:
    """A shmem file of huge pages, all there (`page` 2M), of 4K pages, none there (`page` 4096), or of folios between,
    which settings enable (`folios`), all there or none.

    `address` is where this process maps it; nothing of it is mapped there except during a call.
    """

    kind = "shmem"

    def __init__(self, filesystem, slot, size, page, cached=()):
        self.size = size
        self.fd = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=filesystem.root)
        self.address = _BASE + (slot << 30)
        try:
            os.ftruncate(self.fd, size)
            kernel.checked("mmap", kernel.mmap(self.address, size, kernel.PROT["rw"], MAP_FLAGS["SHARED"], self.fd, 0))
            if page == HUGE:
                self._advise("HUGEPAGE")
            if page == HUGE or cached:
                self._advise("POPULATE_WRITE")
                self._advise("DONTNEED")
        except BaseException:
            self.close()
            raise

    def _advise(self, advice, first=0, count=None):
        length = self.size if count is None else count * PAGE
        return kernel.checked(advice, kernel.madvise(self.address + first * PAGE, length, kernel.ADVICE[advice]))

    def cache(self):
        """(numbers of the 4K pages that the page cache holds, their page frames)."""
        end, found = os.fstat(self.fd).st_size // PAGE, np.zeros(self.size // PAGE, np.uint8)
        kernel.checked("mincore", kernel.mincore(self.address, self.size, found.ctypes.data))
        pages = np.flatnonzero(found & 1)
        below = pages[pages < end]
        # What is in the cache can be mapped for a moment; nothing is allocated by that.
        starts = np.flatnonzero(np.diff(below, prepend=-2) != 1)
        for first, count in zip(below[starts].tolist(), np.diff(starts, append=len(below)).tolist()):
            self._advise("POPULATE_READ", first, count)
        frames = _own_frames(self.address, self.size // PAGE)[np.minimum(pages, end - 1)]
        self._advise("DONTNEED")
        return pages, frames + np.maximum(pages - (end - 1), 0)  # behind the end is the rest of the last huge page

    def close(self):
        kernel.munmap(self.address, self.size)
        os.close(self.fd)


class HugetlbFile:
    """A hugetlb file of pages of 2M, or 1G, none there; otherwise as ShmemFile."""

    kind = "hugetlb"

    def __init__(self, filesystem, slot, size, page, cached=()):
        self.size, self.page = size, page
        which = os.MFD_HUGE_1GB if page == GIANT else os.MFD_HUGE_2MB
        self.fd = os.memfd_create("hgmcore", os.MFD_CLOEXEC | os.MFD_HUGETLB | which)
        self.address = _BASE + (slot << 30)
        self.uffd = -1
        try:
            os.ftruncate(self.fd, size)
            flags = MAP_FLAGS["SHARED"] | MAP_FLAGS["NORESERVE"]
            kernel.checked("mmap", kernel.mmap(self.address, size, kernel.PROT["rw"], flags, self.fd, 0))
            # A fault on a page that the cache lacks shall fail here and not allocate it.
            self.uffd = kernel.checked("userfaultfd", kernel.userfaultfd(["MISSING_HUGETLBFS", "SIGBUS"])[0])
            mode = kernel.UFFD_MODES["MISSING"]
            kernel.checked("UFFDIO_REGISTER", kernel.uffd_register(self.uffd, self.address, size, mode))
        except BaseException:
            self.close()
            raise

    def cache(self):
        unit = self.page // PAGE
        present = [first for first in range(0, self.size // PAGE, unit)
                   if kernel.madvise(self.address + first * PAGE, self.page, kernel.ADVICE["POPULATE_READ"]) == 0]
        pages = (np.array(present, np.int64)[:, None] + np.arange(unit)).ravel()
        frames = _own_frames(self.address, self.size // PAGE)[pages]
        kernel.checked("DONTNEED", kernel.madvise(self.address, self.size, kernel.ADVICE["DONTNEED"]))
        return pages, frames

    def close(self):
        kernel.munmap(self.address, self.size)
        os.close(self.fd)
        if self.uffd != -1:
            os.close(self.uffd)


KINDS = {kind.kind: kind for kind in (ShmemFile, HugetlbFile)}


def _own_frames(address, pages):
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        entries = np.frombuffer(os.pread(pagemap.fileno(), 8 * pages, 8 * (address // PAGE)), "<u8")
    return (entries & ((1 << 55) - 1)).astype(np.int64)


def keeper(before):
    """A process that writes {path: text} once its standard input ends, as it does whatever becomes of us."""
    script = "read end; " + "; ".join(f"echo {text} > {path}" for path, text in before.items())
    return subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, start_new_session=True)


class Folios:
    """The settings that enable folios between 4K and 2M; `use` chooses a size; at the end of a `with` all is as before.

    2M is then only what MADV_COLLAPSE makes. Other programs have such folios meanwhile.
    """

    def __enter__(self):
        files = [path / kind for path in _THP.glob("hugepages-*kB") for kind in ("enabled", "shmem_enabled")]
        self._before = {path: chosen(path) for path in files if path.exists()}
        self._keeper, self._now = keeper(self._before), dict(self._before)
        return self

    def use(self, size):
        """Folios of `size` bytes and no others; None: as before."""
        for path, before in self._before.items():
            this = size is not None and path.parent.name == f"hugepages-{size // 1024}kB"
            word = ("madvise" if path.name == "enabled" else "always") if this else before
            if size is not None and path.parent.name == "hugepages-2048kB" and path.name == "enabled":
                word = "never"
            if self._now[path] != word:
                path.write_text(word)
                self._now[path] = word

    def __exit__(self, *exception):
        self._keeper.communicate()


def chosen(path):
    """The [chosen] word of a setting."""
    return re.search(r"\[(\w+)\]", path.read_text())[1]


@contextlib.contextmanager
def alone(wanted):
    """Beside other runs of this kind, or alone if `wanted`: settings that one changes would mislead the others."""
    with open(_THP / "enabled") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if wanted else fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def pool(wanted):
    """If `wanted`, hugetlb pages for the time of a `with`: raises nr_hugepages, and puts it back, also if killed.

    Yields whether there is a page of 1G, too. OSError: there is no such setting, or too little memory in one piece.
    """
    if not wanted:
        yield False
        return
    before = {path: int(path.read_text()) for path in (_NR_HUGEPAGES, _NR_GIANT) if path.exists()}
    process = keeper(before)
    try:
        for path, count in before.items():
            path.write_text(str(count + (_POOL if path == _NR_HUGEPAGES else 1)))
        if int(_NR_HUGEPAGES.read_text()) < before[_NR_HUGEPAGES] + _POOL:
            raise OSError(errno.ENOMEM, f"no {_POOL} free 2M pages could be had", str(_NR_HUGEPAGES))
        yield _NR_GIANT in before and int(_NR_GIANT.read_text()) > before[_NR_GIANT]
    finally:
        process.communicate()
