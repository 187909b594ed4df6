"""What an importer writes a trace to: declarations and operations in order, in bounded memory.

The columns of the trace lie in unnamed temporary files from the start (in $TMPDIR, 36 bytes for each
operation), not in memory; the Trace maps them and its readers go through it chunk by chunk, so that what a
recording needs does not grow with its length. What does grow is the header: one entry for each file, process
and mapping.
"""

from __future__ import annotations

import functools
import itertools
import mmap
import os
import re
import struct
import tempfile

import numpy as np

from hgmcore.sizes import format_size
from hgmcore.trace.header import NO_TIME, Header
from hgmcore.trace.names import Names, is_word
from hgmcore.trace.statements import AT, CODES, KEEP, NO_ARG, OPERATION, RESIZED
from hgmcore.trace.trace import Trace

_CHUNK = 1 << 16  # operations

# One operation with its thread and time.
ROW = np.dtype([("operation", OPERATION), ("thread", "<u4"), ("time", "<i8")])
_pack = struct.Struct("<QQIHBBIq").pack  # as ROW
_WAITING = 1 << 12  # rows that wait to be written together


class Writer:
    """Operations on their way to a Trace.

    Files and mappings are known by their index in the trace's header, processes by their name. Wherever an
    operation is written, `thread` is a number and `time` is in nanoseconds. `names` holds what was declared.
    Raises ValueError where a trace cannot hold what it is given.
    """

    def __init__(self, geometry: str = "x86-64"):
        self.names = Names(geometry)
        self._operations, self._threads, self._times = (tempfile.TemporaryFile() for _ in range(3))
        self._count, self._has_thread, self._has_time = 0, False, False
        self._waiting: list[bytes] = []  # rows that are not in the files so far
        self._anonymous: dict[int, int] = {}  # page size -> index
        self._taken: dict[str, dict[str, int]] = {"file": {}, "process": {}}  # kind -> name -> uses

    def __len__(self) -> int:
        """Operations so far."""
        return self._count

    def emit(self, op: str, target: int, offset=0, length=0, arg=0, flags=0, thread=0, time=NO_TIME) -> None:
        """Write one operation; its columns are those of `statements.OPERATION`."""
        self._waiting.append(_pack(offset, length, target, arg, CODES[op], flags, thread, time))
        self._count += 1
        if len(self._waiting) == _WAITING:
            self._flush()

    def extend(self, records, thread=0, time=NO_TIME) -> None:
        """Write an array (n,) of OPERATION; thread and time: arrays (n,), or one value for all."""
        self._flush()
        self._write(records, np.broadcast_to(thread, len(records)), np.broadcast_to(time, len(records)))
        self._count += len(records)

    def _flush(self):
        """Write the rows that wait."""
        if not self._waiting:
            return
        rows = np.frombuffer(b"".join(self._waiting), dtype=ROW)
        self._waiting.clear()
        self._write(rows["operation"], rows["thread"], rows["time"])

    def _write(self, records, thread, time):
        """Write columns to their files."""
        self._operations.write(np.ascontiguousarray(records, dtype=OPERATION).data)
        self._threads.write(np.ascontiguousarray(thread, dtype="<u4").data)
        self._times.write(np.ascontiguousarray(time, dtype="<i8").data)
        self._has_thread |= bool(thread.any())
        self._has_time |= bool((time != NO_TIME).any())

    def since(self, start: int) -> np.ndarray:
        """Operations from number `start` on, as an array of OPERATION."""
        self._flush()
        self._operations.flush()
        size = OPERATION.itemsize
        return np.frombuffer(os.pread(self._operations.fileno(), (self._count - start) * size, start * size), OPERATION)

    def cut(self, count: int) -> np.ndarray:
        """Take out the operations from number `count` on, and return them as an array of ROW.

        Whoever does not write them again knows that they declared nothing.
        """
        self._flush()
        rows = np.empty(self._count - count, dtype=ROW)
        columns = (("operation", self._operations), ("thread", self._threads), ("time", self._times))
        for (name, file), dtype in zip(columns, (OPERATION, "<u4", "<i8"), strict=True):
            start = count * rows[name].itemsize
            file.seek(start)
            rows[name] = np.frombuffer(file.read(), dtype)
            file.seek(start)
            file.truncate()
        self._count = count
        return rows

    def file(self, name: str, page_size: int, pages: int, kind: str = "hugetlb") -> int:
        """Declare a file; its name is made a word that no other file has."""
        index = self.names.declare_file(self._unique("file", name), page_size, pages, kind)
        self.emit("file", index)
        return index

    def resize(self, file: int, pages: int) -> None:
        """Change how many pages the header gives to a file, from its declaration on."""
        self.names.files[file] = self.names.files[file]._replace(pages=pages)

    def anonymous(self, page_size: int) -> int:
        """The index that stands for `anon:SIZE`; the next `mmap` must be of it."""
        index = self._anonymous.get(page_size)
        if index is None:
            index = self._anonymous[page_size] = self.names.anonymous(f"anon:{format_size(page_size)}")
        return index

    def process(self, name: str) -> str:
        """`name` as a word that no other process has. The first mapping declares the process."""
        return self._unique("process", name)

    def mmap(self, process: str, name: str, file: int, offset: int, length: int, flags=0, thread=0,
             time=NO_TIME, at: int | None = None) -> int:
        """Map bytes of a file, and return the mapping. A name may be given again once its mapping is gone, but at
        another address `at` the mapping gets a number."""
        index = self._mapping(process, name, at)
        flags |= AT * (at is not None)
        self.emit("mmap", index, offset, length, _as_arg(file, "files"), flags, thread, time)
        return index

    def move(self, mapping: int, offset: int, length: int, name: str, thread=0, time=NO_TIME, *,
             new_length: int | None = None, at: int | None = None, keep=False) -> int:
        """Move a part of a mapping to a new one (mremap), and return that."""
        index = self._mapping(self.names.process_of(mapping), name, at, new_length)
        flags = AT * (at is not None) | RESIZED * (new_length is not None) | KEEP * keep
        self.emit("mremap", mapping, offset, length, _as_arg(index, "mappings"), flags, thread, time)
        return index

    def _mapping(self, process, name, address=None, length=None):
        """The mapping of a name, or of one with a number behind it if that has another address or length."""
        given = {key: value for key, value in (("address", address), ("length", length)) if value is not None}
        for number in itertools.count(1):
            index = self.names.declare_mapping(process, word(name if number == 1 else f"{name}.{number}"))
            there = self.names.mappings[index]
            if all(getattr(there, key) in (None, value) for key, value in given.items()):
                self.names.place(index, **given)
                return index

    def fork(self, parent: str, name: str, thread=0, time=NO_TIME) -> str:
        """Fork a process that has mapped something, and return the child's name, made unique."""
        child, parent_index = self._unique("process", name), self.names.find("process", parent)
        index = self.names.fork(parent_index, child)
        self.emit("fork", parent_index, arg=_as_arg(index, "processes"), thread=thread, time=time)
        return child

    def child_mapping(self, child: str, mapping: int) -> int:
        """What `mapping` of its parent is called in a child."""
        return self.names.mapping(child, self.names.mappings[mapping].name)

    def exit(self, process: str, thread=0, time=NO_TIME) -> None:
        """End a process that has mapped something."""
        self.emit("exit", self.names.find("process", process), thread=thread, time=time)

    def phase(self, name: str) -> None:
        """What follows belongs to phase `name`, a word."""
        self.emit("phase", self.names.phase(name))

    def observe(self, count: int) -> None:
        """Insert `count` observations between the operations so far, evenly spaced."""
        cuts = np.arange(1, min(count, len(self)) + 1) * len(self) // (min(count, len(self)) + 1)
        record = np.zeros(1, dtype=OPERATION)
        record["op"] = CODES["observe"]
        self._flush()
        columns = (("_operations", OPERATION, record), ("_threads", "<u4", 0), ("_times", "<i8", NO_TIME))
        for name, dtype, value in columns:
            setattr(self, name, _inserted(getattr(self, name), np.dtype(dtype), cuts, value))
        self._count += len(cuts)

    def trace(self, name: str, provenance: dict[str, str] | None = None) -> Trace:
        """The Trace of everything so far. Raises TraceError as its constructor does."""
        self._flush()
        names = self.names
        header = Header(names.geometry.name, names.files, names.processes, names.mappings, provenance or {},
                        names.phases)
        maps = [_mapped(file) for file in (self._operations, self._threads, self._times)]
        operations, thread, time = map(np.frombuffer, maps, (OPERATION, "<u4", "<i8"))
        thread, time = thread if self._has_thread else None, time if self._has_time else None
        return Trace(header, operations, thread, time, name=name, maps=[each for each in maps if each])

    def _unique(self, kind, name):
        taken, name = self._taken[kind], word(name)
        while name in taken:
            taken[name] += 1
            name = f"{name}.{taken[name]}"
        taken[name] = 1
        return name


@functools.lru_cache(1024)
def word(name: str) -> str:
    """`name` as a word of a trace."""
    name = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)
    return name if is_word(name) else f"_{name}"


def _inserted(file, dtype, cuts, value):
    """What a temporary file holds, with `value` before each of the items `cuts`, in another one."""
    file.seek(0)
    result, done = tempfile.TemporaryFile(), 0
    while data := file.read(_CHUNK * dtype.itemsize):
        items = np.frombuffer(data, dtype=dtype)
        inside = cuts[(cuts >= done) & (cuts < done + len(items))] - done
        result.write(np.insert(items, inside, value).data)
        done += len(items)
    return result


def _mapped(file):
    """What a temporary file holds, as shared memory; b"" if nothing."""
    file.flush()
    return mmap.mmap(file.fileno(), 0) if file.tell() else b""


def _as_arg(index, what):
    """`index` if it fits the column `arg`."""
    if index >= NO_ARG:
        raise ValueError(f"more than {NO_ARG} {what}")
    return index
