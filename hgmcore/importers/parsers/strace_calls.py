"""System calls as strace writes them, one at a time: the values of their arguments, and their effect on a trace."""

from __future__ import annotations

import functools
import re
from os.path import basename
from typing import NamedTuple

from hgmcore.importers import linux
from hgmcore.importers.linux import SHM_HUGETLB, SHM_RDONLY
from hgmcore.importers.processes.accesses import CONTINUE, COPY, ZEROPAGE
from hgmcore.importers.processes.calls import PERMISSIONS
from hgmcore.importers.processes.mapper import File
from hgmcore.sizes import parse_named, parse_size
from hgmcore.trace.statements import READ

BIRTHS = (b"clone", b"clone3", b"fork", b"vfork")
PLACING = {"UFFDIO_COPY": COPY, "UFFDIO_ZEROPAGE": ZEROPAGE, "UFFDIO_CONTINUE": CONTINUE}
IOCTLS = (*PLACING, "UFFDIO_REGISTER", "UFFDIO_UNREGISTER")

# Recordings repeat themselves, so the last _REMEMBERED calls of less than _LONG bytes are kept with their parse.
_REMEMBERED, _LONG = 1 << 13, 300

_RESULT = re.compile(rb"(-?\d+|0x[0-9a-f]+|\?)(?:<.*>(?:\(deleted\))?)?(?: (E[A-Z0-9]+))?(?: .*)?", re.DOTALL)
_CALL = re.compile(rb"(\w+\(.*\)) += (" + _RESULT.pattern + rb")", re.DOTALL)
_NAME, _NESTED = re.compile(rb"\w+"), re.compile(rb'[{\["<]')
_ARGUMENT = re.compile(
    rb'(?:[^,{\["<]|\{(?:[^{}]|\{[^{}]*\})*\}|\[[^\]]*\]|"(?:[^"\\]|\\.)*"|(?<!<)<(?!<)[^>]*>|<)+', re.DOTALL)
_HUGE = re.compile(r"(\d+)<<(?:MAP|MFD|SHM)_HUGE_SHIFT|(?:MAP|MFD|SHM)_HUGE_(\d+[KMG])B")
_DESCRIPTOR = re.compile(rb"(-?\d+)(?:<(.*)>(?:\(deleted\))?)?", re.DOTALL)
_RANGE = re.compile(rb"\{(?:range=\{)?(?:dst|start)=(0x[0-9a-f]{1,16}).*?len=(0x[0-9a-f]{1,16}|0)\b"
                    rb"(?:.*mode=([A-Z_|]+))?", re.DOTALL)


# Kinds of arguments: each function returns the value of an argument's text, or raises ValueError if it has none.


def number(text):
    value = 0 if text == b"NULL" else int(text, 0)
    if value < 0:
        raise ValueError("negative")
    return value


def plain(text):
    return text.decode("utf-8", "replace")


def quoted_text(text):
    return plain(text).strip('"')


@functools.lru_cache(1024)
def flags(text):
    """The number that flags stand for; words other than those of hgmcore.importers.linux and huge page sizes add 0."""
    value = 0
    for word in plain(text).partition(" ")[0].split("|"):
        if match := _HUGE.fullmatch(word):
            shift = int(match[1]) if match[1] else parse_size(match[2]).bit_length() - 1
            value |= (shift & linux.HUGE_MASK) << linux.HUGE_SHIFT
        else:
            value |= int(word, 16) if word.startswith("0x") else getattr(linux, word, 0) if word[:1].isalpha() else 0
    return value


def advice(text):
    return plain(text).removeprefix("MADV_").partition(" ")[0]


def descriptor(text):
    """(number, path or None)."""
    match = _DESCRIPTOR.fullmatch(text)
    if match is None:
        raise ValueError("not a descriptor")
    return int(match[1]), match[2] and plain(match[2])


def userfault_range(text):
    """(start, length, mode as text)."""
    match = _RANGE.match(text)
    if match is None:
        raise ValueError("not a range")
    return int(match[1], 16), int(match[2], 0), plain(match[3] or b"")


_ARGUMENTS = {
    b"mmap": (number, number, flags, flags, descriptor, number),
    b"munmap": (number, number),
    b"mremap": (number, number, number),
    b"mprotect": (number, number, flags),
    b"pkey_mprotect": (number, number, flags),
    b"madvise": (number, number, advice),
    b"brk": (plain,),
    b"fallocate": (descriptor, plain, number, number),
    b"ftruncate": (descriptor, number),
    b"memfd_create": (quoted_text, flags),
    b"open": (quoted_text,),
    b"openat": (plain, quoted_text),
    b"close": (descriptor,),
    b"dup": (descriptor,),
    b"dup2": (descriptor,),
    b"dup3": (descriptor,),
    b"fcntl": (descriptor, plain),
    b"shmget": (plain, number, flags),
    b"shmat": (number, plain, flags),
    b"shmdt": (number,),
    b"shmctl": (number, plain),
    b"clone": (),
    b"clone3": (),
    b"fork": (),
    b"vfork": (),
    b"execve": (),
    b"execveat": (),
    b"ioctl": (plain, plain, userfault_range),
}
NAMES = tuple(_ARGUMENTS)


class Call(NamedTuple):
    """A call with its arguments. what: its name in a report. values: of the arguments. fault: None, or why the trace
    cannot use the call. ignored: the report gives `fault` as the reason even where the call failed."""

    name: bytes
    what: str
    values: tuple
    fault: str | None = None
    ignored: bool = False


def parted(text: bytes):
    """(Call, result, failure) of a line that has a whole call, or None.

    result: -1 where the call returned no number. failure: text, or None where the call succeeded.
    """
    head, _, tail = text.rpartition(b" = ")
    if len(text) < _LONG:
        call, end = asked(head), _ended(tail)
    else:
        call, end = asked.__wrapped__(head), _ended.__wrapped__(tail)
    if call is None or end is None:  # the result may have a comment that contains " = " too
        match = _CALL.fullmatch(text)
        if match is None:
            return None
        call, end = asked.__wrapped__(match[1]), _ended.__wrapped__(match[2])
    return call, *end


@functools.lru_cache(_REMEMBERED)
def asked(text: bytes) -> Call | None:
    """The Call of the text `NAME(ARGUMENTS)`, which spaces may follow; None if the text has another form."""
    name, _, arguments = text.rstrip(b" ").partition(b"(")
    if not arguments.endswith(b")") or not _NAME.fullmatch(name):
        return None
    what, kinds = plain(name), _ARGUMENTS.get(name)
    if kinds is None:
        return Call(name, what, (), f"system call {what}", True)
    arguments = _split(arguments[:-1])
    if name == b"ioctl":
        what = plain(arguments[1]) if len(arguments) > 2 else ""
        if what not in IOCTLS:
            return Call(name, what, (), what if what.startswith("UFFDIO_") else "system call ioctl", True)
    if name in BIRTHS:
        return Call(name, what, (shares_memory(name, text),))
    if len(arguments) < len(kinds):
        return Call(name, what, (), f"malformed {what}")
    try:
        return Call(name, what, tuple([kind(argument) for kind, argument in zip(kinds, arguments)]))
    except ValueError:
        bare = name == b"ioctl" and not arguments[2].startswith(b"{")
        return Call(name, what, (), f"{what} of which strace shows a pointer only" if bare else f"malformed {what}")


@functools.lru_cache(_REMEMBERED)
def _ended(text):
    """(result, failure), as `parted` gives them, of the text behind " = "; None if the text has another form."""
    match = _RESULT.fullmatch(text)
    if match is None:
        return None
    result, error = match.groups()
    if error is not None:
        return -1, f"that failed with {error.decode()}"
    if result == b"?":
        return -1, "without a result"
    try:
        return number(result), None
    except ValueError:
        return -1, None


def _split(text):
    """The texts of a call's arguments."""
    parts = _ARGUMENT.findall(text) if _NESTED.search(text) else text.split(b",")
    return [part.strip() for part in parts if part]


class Handlers:
    """One handler for each system call, which calls the methods of `calls`, a Calls whose keys are threads.

    of: name of a call -> its handler. A handler takes (thread, result, arguments..) and returns None, or the reason
    why the trace does not contain the call.
    """

    def __init__(self, calls, hugetlbfs: str):
        self.calls = calls
        self.mounts = [_mount(text, calls.hugetlb) for text in hugetlbfs.split(",") if text]
        self.files: dict[str, File] = {}  # path -> file
        self.segments: dict[int, File] = {}  # identifier that shmget returned -> file
        self.births: dict[int, bool] = {}  # thread whose clone has begun -> whether its child shares its memory
        self.of = {name: getattr(self, f"_{plain(name)}") for name in NAMES}

    # Processes

    def begin(self, thread, shares):
        """A thread's clone has begun; the child may have lines before the clone returns."""
        self.births[thread] = shares

    def meet(self, thread):
        """A thread has its first line; it may be a child whose parent's clone has not returned yet."""
        if thread not in self.calls.spaces and self.births:
            parent, shares = next(iter(self.births.items()))
            self._clone(parent, thread, shares)

    def _clone(self, thread, child, shares):
        self.births.pop(thread, None)
        if child not in self.calls.spaces:
            (self.calls.thread_of if shares else self.calls.fork)(thread, child)

    _clone3 = _fork = _vfork = _clone

    def _execve(self, thread, result):
        self.calls.execve(thread)

    _execveat = _execve

    # Mappings

    def _mmap(self, thread, start, hint, length, prot, flags, fd, offset):
        space = self.calls.space(thread)
        self._file(space, fd)
        return self.calls.mmap(space, start, length, prot, flags, fd[0], offset)

    def _munmap(self, thread, result, start, length):
        return self.calls.munmap(self.calls.space(thread), start, length)

    def _mremap(self, thread, new, old, old_length, new_length):
        return self.calls.mremap(self.calls.space(thread), old, old_length, new_length, new)

    def _mprotect(self, thread, result, start, length, prot):
        return self.calls.mprotect(self.calls.space(thread), start, length, prot)

    _pkey_mprotect = _mprotect

    def _madvise(self, thread, result, start, length, advice):
        return self.calls.madvise(self.calls.space(thread), start, length, advice)

    def _brk(self, thread, end, asked):
        return self.calls.brk(self.calls.space(thread), end)

    def _shmget(self, thread, segment, key, size, flags):
        if segment not in self.segments:
            huge = flags & SHM_HUGETLB
            file = File("shm", "hugetlb", self.calls.huge_page(flags)) if huge else File("shm", "shmem")
            file.size, self.segments[segment] = size, file

    def _shmat(self, thread, start, segment, hint, flags):
        file, space = self.segments.get(segment), self.calls.space(thread)
        if file is None:
            return "shmat: a segment that the recording does not show"
        space.attached[start] = file.size
        return self.calls.attach(space, start, file.size, READ if flags & SHM_RDONLY else PERMISSIONS, True, file)

    def _shmdt(self, thread, result, start):
        space = self.calls.space(thread)
        return self.calls.detach(space, start, space.attached.pop(start, 1))

    def _shmctl(self, thread, result, segment, command):
        if command != "IPC_RMID":
            return "system call shmctl"
        return None if self.segments.pop(segment, None) else "shmctl: a segment that the recording does not show"

    def _ioctl(self, thread, result, fd, command, where):
        space, (start, length, mode) = self.calls.space(thread), where
        if command == "UFFDIO_UNREGISTER":
            return self.calls.unregister(space, start, length)
        modes = [f"_MODE_{word}" in mode for word in ("MISSING", "MINOR", "WP")]
        return self.calls.register(space, start, length, *modes)

    # Files

    def _fallocate(self, thread, result, fd, mode, offset, length):
        file = self._file(self.calls.space(thread), fd)
        if file is None:
            return "fallocate: a file that is not taken"
        if mode == "0":
            return self.calls.populate(file, offset, length)
        return self.calls.punch(file, offset, length) if "PUNCH_HOLE" in mode else f"fallocate {mode}"

    def _ftruncate(self, thread, result, fd, size):
        file = self._file(self.calls.space(thread), fd)
        return self.calls.truncate(file, size) if file else "ftruncate: a file that is not taken"

    def _memfd_create(self, thread, fd, name, flags):
        file = self.calls.memfd(flags, basename(name))
        file.path = f"/memfd:{name}"
        self.calls.space(thread).files[fd] = file

    def _open(self, thread, fd, path):
        self._at_path(self.calls.space(thread), fd, path)
        return None if fd in self.calls.space(thread).files else "open: a file that is not taken"

    def _openat(self, thread, fd, directory, path):
        return self._open(thread, fd, path)

    def _close(self, thread, result, fd):
        return None if self.calls.space(thread).files.pop(fd[0], None) else "close: a file that is not taken"

    def _dup(self, thread, new, fd):
        space = self.calls.space(thread)
        file = self._file(space, fd)
        space.files.pop(new, None)
        if file is None:
            return "dup: a file that is not taken"
        space.files[new] = file
        return None

    _dup2 = _dup3 = _dup

    def _fcntl(self, thread, result, fd, command):
        return self._dup(thread, result, fd) if command.startswith("F_DUPFD") else "system call fcntl"

    def _file(self, space, fd):
        """The File of a descriptor, or None. With strace -y a new path shows that the number now names another file."""
        number, path = fd
        file = space.files.get(number)
        if path is not None and (file is None or file.path != path):
            self._at_path(space, number, path)
        return space.files.get(number)

    def _at_path(self, space, fd, path):
        """The descriptor refers to the file at `path`, if that is one that traces can hold."""
        space.files.pop(fd, None)
        mount = next((mount for mount in self.mounts if path.startswith(mount[0])), None)
        if mount is None and not path.startswith(("/dev/shm/", "/memfd:")):
            return
        if path not in self.files:
            name = basename(path.removeprefix("/memfd:"))
            self.files[path] = File(name, "hugetlb", mount[1]) if mount else File(name, "shmem")
            self.files[path].path = path
        space.files[fd] = self.files[path]


def shares_memory(name: bytes, arguments: bytes) -> bool:
    """Whether the child of a clone shares the memory of its parent; that of vfork does until its execve."""
    return name == b"vfork" or b"CLONE_VM" in arguments


def _mount(text, default):
    directory, equals, size = text.partition("=")
    return directory.rstrip("/") + "/", parse_named("hugetlbfs", size) if equals else default
