"""The running kernel doing it for real: what mapping and unmapping a 2M shmem folio by PTEs takes, ns for each PTE.

Run as a program, it prints a JSON object: nanoseconds by kind of work, or {"skipped": why}. Needs root and userfaultfd.
The folios come from a tmpfs with huge=advise that is mounted nowhere and goes with this process; no setting is changed.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import re
import struct
import sys
import time
from fcntl import ioctl
from functools import cache
from subprocess import run

HUGE, PAGE = 2 << 20, 4096
SIZE = 128 * HUGE
PTES = SIZE // PAGE
FIXED = 0x100000    # MAP_FIXED_NOREPLACE
ROUNDS = 9

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
SYS_USERFAULTFD, SYS_FSOPEN, SYS_FSCONFIG, SYS_FSMOUNT = 323, 430, 431, 432    # x86-64
FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE = 1, 6
MADV_DONTNEED, MADV_HUGEPAGE, MADV_POPULATE_READ, MADV_POPULATE_WRITE = 4, 14, 22, 23
UFFDIO_API, UFFDIO_REGISTER, UFFDIO_CONTINUE = 0xC018AA3F, 0xC020AA00, 0xC020AA07
UFFD_API, UFFD_FEATURE_MINOR_SHMEM, UFFDIO_REGISTER_MODE_MINOR = 0xAA, 1 << 10, 1 << 2


class Skipped(Exception):
    """This machine lacks the rights or the settings for the measurement."""


def check(result, what):
    if result in (-1, ctypes.c_void_p(-1).value):
        raise Skipped(f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def syscall(what, number, *arguments):
    return check(LIBC.syscall(number, *arguments), what)


def map_file(fd, size=SIZE, flags=mmap.MAP_SHARED, address=None):
    return check(LIBC.mmap(ctypes.c_void_p(address), ctypes.c_size_t(size), 3, flags, fd, ctypes.c_long(0)), "mmap")


def advise(address, advice, what):
    check(LIBC.madvise(ctypes.c_void_p(address), ctypes.c_size_t(SIZE), advice), what)


def unmap(address, size=SIZE):
    check(LIBC.munmap(ctypes.c_void_p(address), ctypes.c_size_t(size)), "munmap")


def aligned_range():
    """An address that is a multiple of 2M and has room for SIZE bytes and one page."""
    room = map_file(-1, SIZE + 2 * HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    unmap(room, SIZE + 2 * HUGE)
    return (room + HUGE - 1) // HUGE * HUGE


def huge_file():
    """A file of SIZE bytes in folios of 2M."""
    context = syscall("fsopen", SYS_FSOPEN, b"tmpfs", 0)
    syscall("tmpfs with huge=advise", SYS_FSCONFIG, context, FSCONFIG_SET_STRING, b"huge", b"advise", 0)
    syscall("fsconfig", SYS_FSCONFIG, context, FSCONFIG_CMD_CREATE, None, None, 0)
    mount = syscall("fsmount", SYS_FSMOUNT, context, 0, 0)
    file = os.open("folios", os.O_RDWR | os.O_CREAT, dir_fd=mount)
    os.ftruncate(file, SIZE)
    address = map_file(file, flags=mmap.MAP_SHARED | FIXED, address=aligned_range())
    advise(address, MADV_HUGEPAGE, "MADV_HUGEPAGE")
    advise(address, MADV_POPULATE_WRITE, "MADV_POPULATE_WRITE")
    with open("/proc/self/smaps", encoding="ascii") as lines:
        mapped = re.search(rf"^{address:x}-.*?^ShmemPmdMapped: +(\d+) kB", lines.read(), re.S | re.M)
    if not mapped or int(mapped[1]) * 1024 != SIZE:
        raise Skipped("no huge pages for tmpfs")
    unmap(address)
    return file


def timed(function, *arguments):
    start = time.perf_counter_ns()
    function(*arguments)
    return (time.perf_counter_ns() - start) / PTES


def fork_and_wait():
    """Nanoseconds of fork alone, as the parent sees them."""
    start = time.perf_counter_ns()
    child = os.fork()
    if child == 0:
        os._exit(0)
    elapsed = time.perf_counter_ns() - start
    os.waitpid(child, 0)
    return elapsed / PTES


def measure():
    file = huge_file()
    uffd = syscall("userfaultfd", SYS_USERFAULTFD, os.O_CLOEXEC)
    times = {"continue": [], "dontneed": [], "munmap": [], "fork": []}
    try:
        ioctl(uffd, UFFDIO_API, bytearray(struct.pack("QQQ", UFFD_API, UFFD_FEATURE_MINOR_SHMEM, 0)))
    except OSError as error:
        raise Skipped(f"UFFDIO_API: {error.strerror}") from None
    for _ in range(ROUNDS):
        address = map_file(file)
        ioctl(uffd, UFFDIO_REGISTER, bytearray(struct.pack("QQQQ", address, SIZE, UFFDIO_REGISTER_MODE_MINOR, 0)))
        request = bytearray(struct.pack("QQQq", address, SIZE, 0, 0))
        times["continue"].append(timed(ioctl, uffd, UFFDIO_CONTINUE, request))
        times["dontneed"].append(timed(advise, address, MADV_DONTNEED, "MADV_DONTNEED"))
        ioctl(uffd, UFFDIO_CONTINUE, request)
        times["munmap"].append(timed(unmap, address))

        before = fork_and_wait()
        # misaligned by a page, the folios can be mapped by PTEs only; a private page makes fork copy them
        address = map_file(file, flags=mmap.MAP_PRIVATE | FIXED, address=aligned_range() + PAGE)
        ctypes.c_char.from_address(address).value = b"x"
        advise(address, MADV_POPULATE_READ, "MADV_POPULATE_READ")
        times["fork"].append(fork_and_wait() - before)
        unmap(address)
    return {what: min(values) for what, values in times.items()}


@cache
def kernel() -> dict:
    """The output of this program, which runs in a process of its own, since forking a small process is fast."""
    done = run([sys.executable, __file__], capture_output=True, text=True, timeout=120)
    return json.loads(done.stdout) if done.returncode == 0 else {"skipped": done.stderr.strip().splitlines()[-1]}


if __name__ == "__main__":
    try:
        print(json.dumps(measure()))
    except (Skipped, OSError) as error:
        print(json.dumps({"skipped": str(error)}))
