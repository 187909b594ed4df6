"""Whether the running kernel can be compared with the simulator, and if not, why."""

import contextlib
import os
import platform
import re
import sys
from pathlib import Path

from hgmcore.kernel.live import kernel
from hgmcore.kernel.live.files import FileSystem, ShmemFile
from hgmcore.kernel.live.kernel import HUGE, PAGE
from hgmcore.kernel.live.observe import COUNTS, Observer, huge_ranges

_THP = Path("/sys/kernel/mm/transparent_hugepage")
_OLDEST = (6, 18)  # whose rules the simulator follows here


def missing():
    """None where the running kernel can be compared with, otherwise what is missing, in one line."""
    return _without_trying() or _by_trying()


def check(what="--live"):
    """ValueError, with what is missing, where the running kernel cannot be compared with. what: who asks."""
    reason = missing()
    if reason:
        raise ValueError(f"{what} cannot run here: {reason}")


def _without_trying():
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        return "not Linux on x86-64 or arm64"
    if os.geteuid() != 0:
        return "not root (the kernel's page counts are for root only)"
    if os.sysconf("SC_PAGESIZE") != PAGE:
        return "base pages are not of 4K"
    release = tuple(int(number) for number in re.findall(r"\d+", platform.release())[:2])
    if release < _OLDEST:
        return f"Linux {platform.release()} is older than {_OLDEST[0]}.{_OLDEST[1]}, whose rules are simulated"
    for path, option in ((COUNTS, "PROC_PAGE_MONITOR"), (_THP, "TRANSPARENT_HUGEPAGE")):
        if not os.path.exists(path):
            return f"no {path} (CONFIG_{option})"
    if _setting("enabled") == "never" or _setting("hugepages-2048kB/enabled") == "never":
        return f"transparent huge pages are off ({_THP}/enabled)"
    others = [size.name for size in _THP.glob("hugepages-*kB") if size.name != "hugepages-2048kB"
              and _setting(f"{size.name}/enabled") not in ("never", None)]
    if others:
        return f"anonymous huge pages of other sizes than 2M are on ({_THP}/{min(others)}/enabled)"
    return None


def _setting(name):
    """The [chosen] word of a setting, None where the kernel lacks it."""
    try:
        return re.search(r"\[(\w+)\]", (_THP / name).read_text())[1]
    except FileNotFoundError:
        return None


def _by_trying():
    fd, _ = kernel.userfaultfd(["MINOR_SHMEM", "SIGBUS"])
    if fd == -1:
        return f"no userfaultfd with MINOR_SHMEM ({kernel.error()})"
    os.close(fd)
    try:
        with contextlib.ExitStack() as stack:
            observer, filesystem = Observer(), FileSystem()
            stack.callback(observer.close)
            stack.callback(filesystem.close)
            file = ShmemFile(filesystem, 0, HUGE, HUGE)
            stack.callback(file.close)
            return _counting(observer, file)
    except OSError as failure:
        return f"{failure.filename or 'a system call'}: {failure.strerror}"


def _counting(observer, file):
    """Map one page of a huge page, and see whether the kernel reports that mapping."""
    if observer.file(file)["phys"] != [[0, 512, "B0", 0]]:
        return "no huge page on a tmpfs with huge=advise (memory in pieces? shmem_enabled is deny?)"
    address = file.address + HUGE
    kernel.checked("mmap", kernel.mmap(address, PAGE, kernel.PROT["r"], kernel.MAP_FLAGS["SHARED"], file.fd, 0))
    kernel.checked("POPULATE_READ", kernel.madvise(address, PAGE, kernel.ADVICE["POPULATE_READ"]))
    counts = observer.file(file)["mapcount"]
    kernel.munmap(address, PAGE)
    if counts != [[0, 1, 1], [1, 511, 0]]:
        return "the kernel does not count each page of a huge page (CONFIG_NO_PAGE_MAPCOUNT)"
    with open("/proc/self/pagemap", "rb") as pagemap:
        huge_ranges(pagemap.fileno(), file.address, HUGE)
    return None
