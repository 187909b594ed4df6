"""A trace on several native threads: stretches of operations at the same time, all others in order."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np

from hgmcore.core.core import SchemeError
from hgmcore.core.view import View, join
from hgmcore.stretches import alone, layout, stretches
from hgmcore.trace.statements import NAMES

MOST = 256
"""Native threads."""

SHORT = 1000
"""A stretch of fewer operations beside those of its busiest thread runs in order: to start threads takes longer."""


def checked(threads) -> int:
    """`threads` if it is a number of native threads. ValueError."""
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MOST:
        raise ValueError(f"threads: {threads!r} is not a number from 1 to {MOST}")
    return threads


def dealt(thread, native: int) -> np.ndarray:
    """The native thread of each operation: the trace's threads, the busiest first, go to the one with least to do."""
    known, of, number = np.unique(thread, return_inverse=True, return_counts=True)
    share, load = np.zeros(len(known), np.uint16), [0] * native
    for one in np.argsort(-number, kind="stable").tolist():
        share[one] = load.index(min(load))
        load[share[one]] += int(number[one])
    return share[of]


class Threads:
    """Runs a trace's operations on a machine with `native` threads. A context manager.

    stretches: how many were run by several threads at the same time; operations: how many operations in them.
    """

    def __init__(self, machine, trace, native: int):
        self.machine, self.trace, self.native = machine, trace, checked(native)
        self.stretches = self.operations = 0
        if native > 1 and trace.thread is not None and not machine.engine.asks_cpu:
            self.worker = dealt(trace.thread, native)
            self.runs = self._runs()
            self.pool = ThreadPoolExecutor(native - 1)
        else:
            self.runs, self.pool = np.empty((0, 2), np.int64), None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.pool:
            self.pool.shutdown()

    def run(self, start: int, stop: int) -> int:
        """Run the operations of numbers [start, stop). Returns nanoseconds; raises as Machine.run."""
        elapsed, done = 0, start
        options, engine = self.machine.options, self.machine.engine
        for first, last in np.clip(self.runs[np.searchsorted(self.runs[:, 1], start, "right"):], start, stop).tolist():
            if first >= stop:
                break
            if not self._worthwhile(first, last):
                continue
            elapsed += self._in_order(done, first)
            bounds, together = stretches(
                self.trace.operations[first:last], self.worker[first:last], layout(self.machine),
                ordered=options["overflow_check"] != "none", first_come=engine.first_come)
            done = first
            for i, shared in enumerate(together):
                begin, end = first + bounds[i], first + bounds[i + 1]
                if self._worthwhile(begin, end):
                    elapsed += self._in_order(done, begin) + self._at_once(begin, end, shared)
                    done = end
        return elapsed + self._in_order(done, stop)

    def _runs(self):
        """Runs [first, last) of operations none of which stands alone, long enough to look at: an array (n, 2)."""
        edges = np.flatnonzero(np.diff(np.concatenate([[1], alone(self.trace.operations), [1]]).astype(np.int8)))
        runs = edges.reshape(-1, 2)
        return runs[runs[:, 1] - runs[:, 0] > SHORT]

    def _worthwhile(self, first, last):
        number = np.bincount(self.worker[first:last], minlength=1)
        return last - first - number.max() >= SHORT

    def _in_order(self, first, last):
        return self.machine.run(self.trace.records[first:last]) if last > first else 0

    def _at_once(self, first, last, together):
        """Run a stretch, each worker's operations in a view of its own."""
        operations, worker, core = self.trace.operations[first:last], self.worker[first:last], self.machine.core
        shares = [np.flatnonzero(worker == one) for one in np.unique(worker)]
        views = [View(core, operations[share].view(np.uint8), len(shares), together) for share in shares]
        others = [self.pool.submit(view.run, self.machine.engine) for view in views[1:]]
        try:
            views[0].run(self.machine.engine)
        except SchemeError as error:
            wait(others)
            raise self._told(error, shares[0])
        for other, share in zip(others, shares[1:]):
            try:
                other.result()
            except SchemeError as error:
                raise self._told(error, share)
        results = []
        for view, share in zip(views, shares):
            results.append(view.results())
            results[-1]["index"] = share[results[-1]["index"].astype(np.int64)] + self.machine.operations
        rows = np.concatenate(results)
        join(core, views, rows[np.argsort(rows["index"])])
        self.machine.operations += last - first
        self.stretches += 1
        self.operations += last - first
        return max(view.stop for view in views) - min(view.start for view in views)

    def _told(self, error, share):
        """An error of one thread's scheme, with the number and the name of the operation that the thread was at."""
        error.index, error.op = int(share[error.index]) + self.machine.operations, NAMES[error.op]
        return error
