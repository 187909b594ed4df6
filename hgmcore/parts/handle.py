"""What the handles of files, processes and mappings have in common."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from hgmcore.trace.names import is_word

if TYPE_CHECKING:
    from hgmcore.api import Machine


def whole(what: str, value: Any) -> int:
    """An int, or what stands for one (NumPy's). TypeError names what it is no value of."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{what}: {value!r} is no whole number") from None


def checked_name(name: Any) -> str:
    """`name` if traces can write it. ValueError."""
    if not is_word(name):
        raise ValueError(f"{name!r} is no name (a letter or _, then letters, digits, _ . -)")
    return name


class Handle:
    """What names a part of a machine: the machine and a number. It holds the machine, and nothing of its state.

    Two are equal, and have one hash, if they name the same part of the same machine. After `Machine.restore` a handle
    of what was declared since the snapshot names nothing, or what was declared later under its number.
    """

    __slots__ = ("machine", "number", "__weakref__")

    machine: Machine
    number: int

    def __init__(self, machine: Machine, number: int) -> None:
        self.machine, self.number = machine, number

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Handle):
            return NotImplemented
        return type(self) is type(other) and self.machine is other.machine and self.number == other.number

    def __hash__(self) -> int:
        return hash((type(self), id(self.machine), self.number))
