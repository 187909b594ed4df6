"""The files that sequences map, unlinked from the start, on a tmpfs mounted nowhere; what their page cache holds."""

import contextlib
import errno
import os
import subprocess
from pathlib import Path

import numpy as np

from hgmcore.kernel.live import kernel
from hgmcore.kernel.live.kernel import HUGE, MAP_FLAGS, PAGE

_NR_HUGEPAGES = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
_POOL = 64  # pages: more than the mappings of a sequence reserve
_BASE = 0x20_0000_0000  # where this process maps files, without page tables except for a moment


class FileSystem:
    """A tmpfs that gives huge pages where advised, in no mount table; gone when closed."""

    def __init__(self):
        self.root = kernel.tmpfs(huge="advise")

    def close(self):
        os.close(self.root)


class ShmemFile:
    """A shmem file of huge pages, all there (`page` 2M), or of 4K pages, none there (`page` 4096).

    `address` is where this process maps it; nothing of it is mapped there except during a call.
    """

    kind = "shmem"

    def __init__(self, filesystem, slot, size, page):
        self.size = size
        self.fd = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=filesystem.root)
        self.address = _BASE + (slot << 30)
        try:
            os.ftruncate(self.fd, size)
            kernel.checked("mmap", kernel.mmap(self.address, size, kernel.PROT["rw"], MAP_FLAGS["SHARED"], self.fd, 0))
            if page == HUGE:
                self._advise("HUGEPAGE")
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
    """A hugetlb file of 2M pages, none there; otherwise as ShmemFile."""

    kind = "hugetlb"

    def __init__(self, filesystem, slot, size, page):
        self.size = size
        self.fd = os.memfd_create("hgmcore", os.MFD_CLOEXEC | os.MFD_HUGETLB | os.MFD_HUGE_2MB)
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
        present = [first for first in range(0, self.size // PAGE, 512)
                   if kernel.madvise(self.address + first * PAGE, HUGE, kernel.ADVICE["POPULATE_READ"]) == 0]
        pages = (np.array(present, np.int64)[:, None] + np.arange(512)).ravel()
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


@contextlib.contextmanager
def pool(wanted):
    """If `wanted`, hugetlb pages for the time of a `with`: raises nr_hugepages, and puts it back, also if killed.

    OSError: there is no such setting, or too little memory in one piece.
    """
    if not wanted:
        yield
        return
    before = int(_NR_HUGEPAGES.read_text())
    # The keeper waits until its standard input ends, as it does whatever becomes of us.
    keeper = subprocess.Popen(["sh", "-c", f"read end; echo {before} > {_NR_HUGEPAGES}"], stdin=subprocess.PIPE,
                              start_new_session=True)
    try:
        _NR_HUGEPAGES.write_text(str(before + _POOL))
        if int(_NR_HUGEPAGES.read_text()) < before + _POOL:
            raise OSError(errno.ENOMEM, f"no {_POOL} free 2M pages could be had", str(_NR_HUGEPAGES))
        yield
    finally:
        keeper.communicate()
