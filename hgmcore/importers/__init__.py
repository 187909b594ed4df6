"""Recordings by other tools, as traces. Each format is one module of this package, named in `NAMES`.

An importer module has `options` (a tuple of Option), `explanation` (what it reads, and, indented, the commands
that record and import it) and `read(stream, name, **options) -> (Trace, Report)`; `stream` gives the recording's bytes.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import hashlib
import importlib
import io
import lzma
import os
import sys
import tempfile
import zlib

from hgmcore.importers.report import Report
from hgmcore.sizes import quoted
from hgmcore.trace import Trace, TraceError
from hgmcore.trace.wellformed import check_provenance

NAMES = ("qemu", "strace", "bpftrace", "perf", "lackey", "pagemap", "kernel-recording")


def load(name: str):
    """The importer of format `name`. ValueError lists the known names."""
    if name not in NAMES:
        raise ValueError(f"unknown format {quoted(name)} (known: {', '.join(NAMES)})")
    return importlib.import_module(f"hgmcore.importers.{name.replace('-', '_')}")


def commands(name: str) -> list[str]:
    """The lines of the explanation of format `name` that tell how to record and import it."""
    blocks = load(name).explanation.split("\n\n")
    return next(block.splitlines() for block in blocks if block.startswith(" ") and f"hgmcore import {name}" in block)


def read(format: str, source, provenance: dict[str, str] | None = None, progress=None,
         **options) -> tuple[Trace, Report]:
    """Import a recording: a path or "-" for standard input; gzip, bzip2, xz and zstd are unpacked.

    progress: a function (done, total, what) that is called now and then, with bytes of the input, where its size
    is known.
    provenance: what the recording does not say of itself (the guest, the licence, ..), kept in the header
    beside the format, the options, the source's name, the sha256 of its bytes as they are stored, and what
    was counted.

    Raises TraceError for an input that cannot be used, ValueError for an unknown format or option or a value
    that an option does not take.
    """
    importer = load(format)
    known = [option.name for option in importer.options]
    for key in options:
        if key not in known:
            raise ValueError(f"{format}: unknown option {quoted(key)} (known: {', '.join(known)})")
    with open_input(source, progress) as (stream, name, digest):
        trace, report = importer.read(stream, name, **options)
    options = {option.name: option.default for option in importer.options} | options
    trace.header.provenance = {
        **trace.header.provenance,
        **(provenance or {}),
        "importer": format,
        "options": " ".join(f"{key}={value}" for key, value in options.items() if value is not None),
        "source": os.path.basename(name),
        "source_sha256": digest(),
        "counts": report.summary(),
        "notes": "; ".join(report.notes),
    }
    check_provenance(trace)
    return trace, report


@contextlib.contextmanager
def open_input(source, progress=None):
    """A path or "-", as (stream of unpacked bytes, name, digest). progress: as in `read`.

    digest() is the sha256 of what was read so far, as it is stored. Raises TraceError, also where reading
    within the context fails.
    """
    name = "<stdin>" if source == "-" else os.fspath(source)
    try:
        with contextlib.ExitStack() as stack:
            file = sys.stdin.buffer if source == "-" else stack.enter_context(open(source, "rb", buffering=0))
            hashed = _Hashed(file, progress)
            yield _unpacked(io.BufferedReader(hashed, 1 << 16)), name, hashed.sha256.hexdigest
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):  # of a write: to a Writer, or a Spool
            raise TraceError(name, f"no space left in {tempfile.gettempdir()} for temporary files; $TMPDIR names "
                                   "another directory") from error
        raise TraceError(name, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


class _Hashed(io.RawIOBase):
    """A stream of bytes that keeps the sha256 of what passes, and shows how much of a file has passed."""

    def __init__(self, raw, progress):
        self.raw, self.sha256, self.passed, self.progress = raw, hashlib.sha256(), 0, progress
        self.size = os.fstat(raw.fileno()).st_size if progress else 0

    def readable(self):
        return True

    def readinto(self, buffer):
        count = self.raw.readinto(buffer)
        self.sha256.update(memoryview(buffer)[:count])
        self.passed += count
        if self.size:  # not of a pipe
            self.progress(self.passed, self.size, "reading")
        return count


def _unpacked(stream):
    """`stream`, or what it holds in packed form; its first bytes tell."""
    head = stream.peek(6)
    return next((opener(stream) for magic, opener in _PACKED if head.startswith(magic)), stream)


def _zstd(stream):
    try:
        import pyarrow
    except ImportError as error:
        raise ImportError("zstd input needs pyarrow: pip install 'hgmcore[cli]'") from error
    return pyarrow.CompressedInputStream(pyarrow.PythonFile(stream, mode="r"), "zstd")


_PACKED = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\0", lzma.open),
    (b"\x28\xb5\x2f\xfd", _zstd),
)
