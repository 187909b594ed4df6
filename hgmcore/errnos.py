"""Names of errnos, one table for whatever reports how an operation ended, and the error of a refused operation."""

from __future__ import annotations

import errno as numbers
import os
from typing import Any

EHWPOISON = 133
"""Linux: the memory page has a hardware error (include/uapi/asm-generic/errno.h). Python's errno lacks it."""

NAMES: dict[int, str] = {**numbers.errorcode, numbers.EAGAIN: "EAGAIN", EHWPOISON: "EHWPOISON"}
"""Name by positive number. Of two names of one number, the one that Linux documents: EAGAIN, not EWOULDBLOCK."""


def error_name(number: Any) -> str:
    """The name of a positive errno, as "EEXIST"; its digits if it has none."""
    return NAMES.get(int(number), str(int(number)))


class OperationError(OSError):
    """An operation that the simulated kernel refused; what it did before stays done.

    Parameters
    ----------
    op : str
        The operation, as a trace spells it.
    errno : int
        The positive error number.
    done : int
        Bytes that were done before the refusal.
    offset : int, optional
        Where the operation was to begin: bytes from the mapping's or file's start; of ``populate``, ``pin`` and
        ``unpin`` a number of a huge page. None: the operation has no such place.

    Attributes
    ----------
    error : str
        The name of the number, as ``"EEXIST"``.
    """

    op: str
    done: int
    offset: int | None
    error: str

    def __init__(self, op: str, errno: int, done: int, offset: int | None = None) -> None:
        super().__init__(errno, os.strerror(errno))
        self.op, self.done, self.offset, self.error = op, done, offset, error_name(errno)

    def __str__(self) -> str:
        where = "" if self.offset is None else f" at {self.offset:#x}"
        return f"{self.op}{where}: {self.error} ({self.done} bytes done)"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.op, self.errno, self.done, self.offset)
