"""Tasks on an existing Dask cluster. The scheduler gives the tasks of a worker that dies to others."""

from __future__ import annotations

import itertools
import logging

from hgmcore.analysis.sweep.task import program, run

PATIENCE = 10
"""Seconds that a scheduler has to answer, and a worker to appear."""

AHEAD = 4
"""Tasks that the scheduler knows for each thread of its workers."""


class Cluster:
    """A connection to a scheduler, whose workers all have this hgmcore.

    ImportError: dask.distributed is missing. ValueError: no scheduler answers at `address`, it has no workers, or their
    hgmcore is another one.
    """

    def __init__(self, address):
        try:
            import distributed
        except ImportError as error:
            raise ImportError("--scheduler needs dask.distributed: pip install 'hgmcore[cli,dask]'") from error
        self.address, self._files = address, {}
        logging.getLogger("distributed").setLevel(logging.CRITICAL)    # failures are this module's to tell
        try:
            self.client = distributed.Client(address, timeout=PATIENCE, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(f"--scheduler {address}: no Dask scheduler answers ({type(error).__name__})") from None
        try:
            self._check_workers()
        except BaseException:
            self.client.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.client.close()

    def _check_workers(self):
        try:
            self.client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError:
            raise ValueError(f"--scheduler {self.address}: it has no workers") from None
        try:
            programs = self.client.run(program)
        except ImportError as error:
            raise ValueError(f"--scheduler {self.address}: its workers lack hgmcore ({error})") from None
        other = [worker for worker, found in programs.items() if found != program()]
        if other:
            raise ValueError(f"--scheduler {self.address}: worker {other[0]} has another hgmcore than this one")

    def keep(self, source, trace) -> None:
        """Take the Trace of an input that is a file, which workers may not have, to give it to them."""
        self._files[source] = trace

    def run(self, tasks):
        """Run tasks; yields (task, numbers, None) or (task, None, exception) as each is done."""
        from distributed import as_completed

        def submit(task):
            return self.client.submit(run, task, traces.get(task.source), key=f"hgmcore-{task.id}")

        wanted = {task.source: task.content for task in tasks}
        # As the result of a task, not scattered: the scheduler can make it again where the worker that has it dies.
        traces = {source: self.client.submit(_itself, trace, key=f"hgmcore-input-{wanted[source]}")
                  for source, trace in self._files.items() if source in wanted}
        waiting, known = iter(tasks), {}
        for task in itertools.islice(waiting, AHEAD * sum(self.client.nthreads().values())):
            known[submit(task)] = task
        completed = as_completed(list(known), loop=self.client.loop)
        try:
            for future in completed:
                task, error, numbers = known.pop(future), None, None
                try:
                    numbers = future.result()
                except Exception as failure:    # whatever a task raises, or KilledWorker, or the scheduler is gone
                    error = failure
                future.release()
                for more in itertools.islice(waiting, 1):
                    known[added := submit(more)] = more
                    completed.add(added)
                yield task, numbers, error
        finally:
            self.client.cancel(list(known))


def _itself(value):
    return value
