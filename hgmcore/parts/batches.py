"""Operations of one machine as arrays: what a call with a list or an array of offsets runs, in one crossing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hgmcore.core.calls import Calls, size
from hgmcore.core.core import SchemeError
from hgmcore.core.machine import RESULT
from hgmcore.core.records import Records
from hgmcore.trace.statements import NAMES, OPERATION

if TYPE_CHECKING:
    from hgmcore.core.core import Core

Size: TypeAlias = int | np.integer[Any] | str
"""A number of bytes: an int, what stands for one, or a text such as "4K"."""

Sizes: TypeAlias = NDArray[np.integer[Any]] | list[int] | list[str] | tuple[int | str, ...] | range
"""Several of them: an array of integers, a list, a tuple or a range."""

Outcomes: TypeAlias = NDArray[np.void]
"""An array of OUTCOME."""

OUTCOME = np.dtype([("done", RESULT["done"]), ("errno", RESULT["errno"]), ("event", RESULT["event"])])
"""dtype of what an operation came to: bytes done, errno (0: none), event (0: none, 1: minor)."""


def several(what: str, values: Any) -> NDArray[np.uint64]:
    """Numbers, or sizes as texts, as an array of one dimension. TypeError or ValueError names `what` they are."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
        array = values
    elif isinstance(values, (list, tuple, range, np.ndarray)):
        try:
            array = np.array([size(value) for value in values], dtype=object)
        except TypeError:
            raise TypeError(f"{what}: integers, or texts such as \"4K\", are expected in an array or list") from None
    else:
        array = np.array(size(values))
    if array.ndim > 1 or array.size and (array.min() < 0 or array.max() >= 1 << 64):
        raise ValueError(f"{what}: a one-dimensional array of integers from 0 on is expected")
    return array.astype(np.uint64)


class Batches(Calls):
    """Calls, and operations in arrays."""

    core: Core

    def run(self, operations: Any, function: Any = None, *more: Any) -> Any:
        """Run Records, or an array of OPERATION, by Core.run or another method of the core; returns what that does."""
        try:
            found = (function or self.core.run)(self.engine, operations, self.operations, *more)
        except (ImportError, RuntimeError, TypeError, ValueError):    # nothing ran
            raise
        except BaseException as error:    # the scheme failed, memory ran out, or a signal came
            self._ran(operations)
            if isinstance(error, SchemeError):
                error.op = NAMES[error.op]
            raise
        self._ran(operations)
        return found

    def _ran(self, operations):
        self.operations += self.core.ran
        if self.journal is not None:
            records = operations.operations if isinstance(operations, Records) else operations
            self.journal.append(records[:self.core.ran].tobytes())

    def batch(self, op: int, target: int, offset: Any, length: Any, arg: int, flags: int) -> Outcomes:
        """Run an operation once for each of the offsets and lengths, of which one may stand for all.

        length: None: up to the mapping's end. Returns an array (n,) of OUTCOME; a refusal is no exception.
        """
        offsets = several("offset", offset)
        lengths = np.uint64(self.length(target)) - offsets if length is None else several("length", length)
        if length is None and (offsets > np.uint64(self.length(target))).any():
            raise ValueError("offset: one lies behind the mapping's end")
        try:
            offsets, lengths = np.broadcast_arrays(offsets, lengths)
        except ValueError:
            raise ValueError(f"{offsets.size} offsets and {lengths.size} lengths: as many of each, or one") from None
        records = np.zeros(offsets.shape, OPERATION)
        records["offset"], records["length"], records["target"] = offsets, lengths, target
        records["op"], records["arg"], records["flags"] = op, arg, flags
        before, first = self.core.nr_results, self.operations
        self.run(records)
        out = np.zeros(len(records), OUTCOME)
        out["done"] = self.core.asked(self.engine, records)
        results = self.core.results(before)
        results = results[results["index"] >= first]    # not that of a `fail` before, which never fired
        at = (results["index"] - np.uint64(first)).astype(np.int64)
        for key in OUTCOME.names or ():
            out[key][at] = results[key]
        return out
