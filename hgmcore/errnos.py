"""Names of errnos: one table for whatever reports how an operation ended."""

from __future__ import annotations

import errno

EHWPOISON = 133
"""Linux: the memory page has a hardware error (include/uapi/asm-generic/errno.h). Python's errno lacks it."""

NAMES = {**errno.errorcode, errno.EAGAIN: "EAGAIN", EHWPOISON: "EHWPOISON"}
"""Name by positive number. Of two names of one number, the one that Linux documents: EAGAIN, not EWOULDBLOCK."""


def error_name(number) -> str:
    """The name of a positive errno, as "EEXIST"; its digits if it has none."""
    return NAMES.get(int(number), str(int(number)))
