"""Snapshots of a machine, and what a `with` block of one does."""

from __future__ import annotations

import weakref
from types import TracebackType
from typing import TYPE_CHECKING

from hgmcore.core.snapshot import Snapshot as CoreSnapshot

if TYPE_CHECKING:
    from hgmcore.api import Machine
    from hgmcore.core.core import Engine
    from hgmcore.parts.declares import Declared


class Snapshot:
    """A machine as it was at one moment (`Machine.snapshot`). It holds copies, so the machine may go on and may end.

    In a `with` statement the machine is at the block's end what it was when the snapshot was taken, also where the
    block raises.

    Attributes
    ----------
    operations : int
        How many operations the machine had run.
    nbytes : int
        Memory that the snapshot takes, in bytes.
    """

    kind: tuple[Engine, str, dict[str, str]]
    operations: int
    declared: Declared
    cost_from: int
    journal: list[bytes] | None
    copy: CoreSnapshot

    def __init__(self, machine: Machine) -> None:
        self.kind, self.operations = machine._kind(), machine.operations
        self.declared = machine._declared_now()
        self.cost_from = machine._cost_from
        self.journal = None if machine._calls.journal is None else list(machine._calls.journal)
        self.copy = CoreSnapshot(machine.core)
        self._machine = weakref.ref(machine)

    @property
    def nbytes(self) -> int:
        """Memory that the snapshot takes, in bytes."""
        return self.copy.nbytes

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 traceback: TracebackType | None) -> None:
        machine = self._machine()
        if machine is not None and not machine.closed:
            machine.restore(self)

    def __repr__(self) -> str:
        return f"<Snapshot of a {self.kind[0].name} machine after {self.operations} operations, {self.nbytes} bytes>"


class Restored:
    """What `Machine.restore` returns: in a `with` statement the machine is the snapshot again at the block's end."""

    def __init__(self, machine: Machine, snapshot: Snapshot) -> None:
        self._machine, self._snapshot = machine, snapshot

    def __enter__(self) -> Machine:
        return self._machine

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 traceback: TracebackType | None) -> None:
        if not self._machine.closed:
            self._machine.restore(self._snapshot)
