"""System calls that Python's standard library lacks, through ctypes. Imports nothing of hgmcore: worker processes
run it in a bare interpreter.

Every call returns what the kernel returns (-1 where it failed; `error()` then has the name of the errno) and takes
addresses and lengths in bytes. Numbers and structures are those of Linux 6.18 on x86-64 and arm64.
"""

import ctypes
import errno
import os
import platform
import struct

PAGE = 4096
HUGE = 2 << 20

PROT = {"none": 0, "r": 1, "rw": 3}
MAP_FLAGS = {"SHARED": 0x01, "PRIVATE": 0x02, "FIXED_NOREPLACE": 0x100000, "ANONYMOUS": 0x20, "NORESERVE": 0x4000}
ADVICE = {"FREE": 8, "REMOVE": 9, "DONTNEED": 4, "HUGEPAGE": 14, "NOHUGEPAGE": 15, "COLD": 20, "PAGEOUT": 21,
          "POPULATE_READ": 22, "POPULATE_WRITE": 23, "DONTNEED_LOCKED": 24, "COLLAPSE": 25}
FALLOCATE = {"": 0, "PUNCH_HOLE": 0x01 | 0x02}  # a hole keeps the size
CLONE_PARENT, SIGCHLD = 0x8000, 17
PR_SET_PDEATHSIG = 1

_SYSCALLS = {"x86_64": {"clone": 56, "userfaultfd": 323, "bpf": 321},
             "aarch64": {"clone": 220, "userfaultfd": 282, "bpf": 280}}
_NUMBERS = {"fsopen": 430, "fsconfig": 431, "fsmount": 432, **_SYSCALLS.get(platform.machine(), {})}
CLOSE_ON_EXEC, FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE = 1, 1, 6

UFFD_FEATURES = {"PAGEFAULT_FLAG_WP": 0, "EVENT_FORK": 1, "EVENT_REMAP": 2, "EVENT_REMOVE": 3, "MISSING_HUGETLBFS": 4,
                 "MISSING_SHMEM": 5, "EVENT_UNMAP": 6, "SIGBUS": 7, "THREAD_ID": 8, "MINOR_HUGETLBFS": 9,
                 "MINOR_SHMEM": 10, "EXACT_ADDRESS": 11, "WP_HUGETLBFS_SHMEM": 12, "WP_UNPOPULATED": 13, "POISON": 14,
                 "WP_ASYNC": 15, "MOVE": 16}
UFFD_MODES = {"MISSING": 1, "WP": 2, "MINOR": 4}
_UFFDIO_API, _UFFDIO_REGISTER, _UFFDIO_UNREGISTER, _UFFDIO_CONTINUE = 0xC018AA3F, 0xC020AA00, 0x8010AA01, 0xC020AA07

_libc = ctypes.CDLL(None, use_errno=True)
_long, _int, _pointer, _size = ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t


def _function(name, result, *arguments):
    function = getattr(_libc, name)
    function.restype, function.argtypes = result, arguments
    return function


_mmap = _function("mmap", _long, _pointer, _size, _int, _int, _int, _long)
munmap = _function("munmap", _int, _pointer, _size)
mprotect = _function("mprotect", _int, _pointer, _size, _int)
madvise = _function("madvise", _int, _pointer, _size, _int)
mremap = _function("mremap", _long, _pointer, _size, _size, _int, _pointer)
mlock = _function("mlock", _int, _pointer, _size)
munlock = _function("munlock", _int, _pointer, _size)
mincore = _function("mincore", _int, _pointer, _size, _pointer)
fallocate = _function("fallocate", _int, _int, _int, _long, _long)
ftruncate = _function("ftruncate", _int, _int, _long)
read = _function("read", _long, _int, _pointer, _size)
write = _function("write", _long, _int, _pointer, _size)
prctl = _function("prctl", _int, _int, _long, _long, _long, _long)
_ioctl = _function("ioctl", _int, _int, ctypes.c_ulong, _pointer)
_vmsplice = _function("vmsplice", _long, _int, _pointer, ctypes.c_ulong, ctypes.c_uint)
_syscall = _libc.syscall
_syscall.restype = _long


def vmsplice(pipe, address, length):
    """Put references on the pages of a range into a pipe; bytes, or -1."""
    return _vmsplice(pipe, ctypes.create_string_buffer(struct.pack("=QQ", address, length), 16), 1, 0)


def bpf(command, attributes):
    """bpf(2), its attributes as packed."""
    attributes = ctypes.create_string_buffer(attributes, 128)
    return _syscall(_long(_NUMBERS["bpf"]), _long(command), attributes, _long(128))


def error():
    """The name of the last errno of this thread."""
    return errno.errorcode[ctypes.get_errno()]


def mmap(address, length, protection, flags, fd, offset):
    """Map exactly at `address`; 0 or -1."""
    got = _mmap(address, length, protection, flags | MAP_FLAGS["FIXED_NOREPLACE"], fd, offset)
    return 0 if got == address else -1


def fork(flags):
    """fork by clone(flags | SIGCHLD): with CLONE_PARENT the child is a sibling, so its life does not hang on ours."""
    return _syscall(_long(_NUMBERS["clone"]), _long(flags | SIGCHLD), _long(0), _long(0), _long(0), _long(0))


def die_with_parent(signal):
    """Have the kernel send us `signal` when our parent ends."""
    prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0)


def checked(what, result):
    """`result`, or OSError that names `what` where it is -1."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def tmpfs(**options):
    """A descriptor of a new tmpfs that is mounted nowhere; it is gone when the last descriptor of it is closed."""
    def call(name, *arguments):
        values = [a if isinstance(a, bytes) else _long(a) for a in arguments]
        return checked(name, _syscall(_long(_NUMBERS[name]), *values))

    context = call("fsopen", b"tmpfs", CLOSE_ON_EXEC)
    try:
        for key, value in options.items():
            call("fsconfig", context, FSCONFIG_SET_STRING, key.encode(), str(value).encode(), 0)
        call("fsconfig", context, FSCONFIG_CMD_CREATE, 0, 0, 0)
        return call("fsmount", context, CLOSE_ON_EXEC, 0)
    finally:
        os.close(context)


def userfaultfd(features, flags=0):
    """(descriptor, names of the features that the kernel has), or (-1, []): `error()` says why."""
    fd = _syscall(_long(_NUMBERS["userfaultfd"]), _long(flags | os.O_CLOEXEC | os.O_NONBLOCK))
    if fd == -1:
        return -1, []
    asked = sum(1 << UFFD_FEATURES[name] for name in features)
    api = ctypes.create_string_buffer(struct.pack("=QQQ", 0xAA, asked, 0), 24)
    if _ioctl(fd, _UFFDIO_API, api) == -1:
        os.close(fd)
        return -1, []
    has = struct.unpack("=QQQ", api)[1]
    return fd, [name for name, bit in UFFD_FEATURES.items() if has >> bit & 1]


def uffd_register(fd, address, length, mode):
    return ioctl(fd, _UFFDIO_REGISTER, struct.pack("=QQQQ", address, length, mode, 0))


def uffd_unregister(fd, address, length):
    return ioctl(fd, _UFFDIO_UNREGISTER, struct.pack("=QQ", address, length))


def uffd_continue(fd, argument):
    """UFFDIO_CONTINUE of what `continue_argument` made; `mapped` of it is then the bytes done or -errno."""
    return _ioctl(fd, _UFFDIO_CONTINUE, argument)


def continue_argument(address, length, mode):
    return ctypes.create_string_buffer(struct.pack("=QQQq", address, length, mode, 0), 32)


def mapped(argument):
    return struct.unpack_from("=q", argument, 24)[0]


def ioctl(fd, request, packed):
    return _ioctl(fd, request, ctypes.create_string_buffer(packed, len(packed)))
