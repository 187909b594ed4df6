"""Reference counts of folios, which no file shows: a BPF program reads them (CONFIG_BPF_EVENTS, x86-64).

It is of type syscall: it runs once when asked to and is attached nowhere.
"""

import ctypes
import errno
import mmap
import os
import platform
import struct

import numpy as np

from hgmcore.kernel.live import kernel
from hgmcore.kernel.live.kernel import PAGE

_BPF_PROG_LOAD, _BPF_PROG_TEST_RUN, _PROG_TYPE_SYSCALL, _SLEEPABLE = 5, 10, 31, 1 << 4
_PROBE_READ_KERNEL = 113
_MANY = 64  # words that one run of the program reads
_VMEMMAP = 0xFFFFEA0000000000  # of 4-level tables without KASLR; where that is wrong, `References` finds out
_STRUCT_PAGE, _COUNTS = 64, 48  # bytes; where _mapcount and _refcount stand (mm_types.h)


class References:
    """`of(frames)`: the reference counts of folios by the frames of their heads. OSError: they cannot be had here."""

    def __init__(self):
        if platform.machine() != "x86_64":
            raise OSError(errno.ENOSYS, "where struct pages are is known on x86-64 alone", "BPF")
        self._program = _load()
        try:
            self._try()
        except BaseException:
            self.close()
            raise

    def close(self):
        os.close(self._program)

    def of(self, frames):
        addresses = _VMEMMAP + _COUNTS + _STRUCT_PAGE * np.asarray(frames, np.uint64)
        words = [self._read(addresses[at:at + _MANY]) for at in range(0, len(addresses), _MANY)]
        return (np.concatenate(words) >> np.uint64(32)).astype(np.int64) if words else np.zeros(0, np.int64)

    def _read(self, addresses):
        """The 64-bit words there, 0 where the kernel has no memory."""
        words = np.zeros(_MANY, "<u8")
        words[:len(addresses)] = addresses
        run = struct.pack("<IIIIQQIIIIQQ", self._program, 0, 0, 0, 0, 0, 0, 0, words.nbytes, 0, words.ctypes.data, 0)
        kernel.checked("BPF_PROG_TEST_RUN", kernel.bpf(_BPF_PROG_TEST_RUN, run))
        return words[:len(addresses)]

    def _try(self):
        """A page of our own, mapped once, must say so."""
        own = np.frombuffer(mmap.mmap(-1, PAGE), np.uint8)  # private memory of its own, gone with the array
        with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
            own[0] = 1
            address = own.ctypes.data
            frame = struct.unpack("<Q", os.pread(pagemap.fileno(), 8, 8 * (address // PAGE)))[0] & ((1 << 55) - 1)
            word = int(self._read(np.array([_VMEMMAP + _COUNTS + _STRUCT_PAGE * frame], np.uint64))[0])
        if word & 0xFFFFFFFF != 0 or not 1 <= word >> 32 <= 3:  # _mapcount is kept less one
            raise OSError(errno.ENXIO, "struct pages are not where they are without KASLR", "BPF")


def _load():
    """The program: it puts in place of each address in its context the word that stands there."""
    def step(code, destination=0, source=0, offset=0, value=0):
        return struct.pack("<BBhi", code, destination | source << 4, offset, value)

    program = step(0xBF, 6, 1)  # r6: the context
    for at in range(0, 8 * _MANY, 8):
        program += step(0x79, 3, 6, at) + step(0x7A, 10, 0, -8)  # r3: the address; a word on the stack
        program += step(0xBF, 1, 10) + step(0x07, 1, 0, 0, -8) + step(0xB7, 2, 0, 0, 8)
        program += step(0x85, value=_PROBE_READ_KERNEL) + step(0x79, 1, 10, -8) + step(0x7B, 6, 1, at)
    program += step(0xB7) + step(0x95)
    steps, licence = ctypes.create_string_buffer(program), ctypes.create_string_buffer(b"GPL")
    load = struct.pack("<IIQQIIQII", _PROG_TYPE_SYSCALL, len(program) // 8, ctypes.addressof(steps),
                       ctypes.addressof(licence), 0, 0, 0, 0, _SLEEPABLE)
    return kernel.checked("BPF_PROG_LOAD", kernel.bpf(_BPF_PROG_LOAD, load))
