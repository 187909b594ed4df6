"""Tasks on processes of this machine. A process that dies costs the task that it was at, and is replaced."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from multiprocessing.connection import wait

from hgmcore.analysis.sweep.task import run

ATTEMPTS = 2
"""Processes that a task may cost before it counts as failed."""


def cores() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


class WorkerDied(RuntimeError):
    """The processes that ran a task died at it."""


def run_here(tasks, processes, work=run):
    """Run tasks on `processes` processes; yields (task, numbers, None) or (task, None, exception) as each is done.

    Processes end with the generator. work: a function of a task that other processes can import.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__])
    waiting, deaths = deque(tasks), {}
    workers = []
    try:
        workers = [_Worker(context, work) for _ in range(min(processes, len(waiting)))]
        for worker in workers:
            worker.begin(waiting.popleft())
        while busy := {worker.connection: worker for worker in workers if worker.task is not None}:
            for connection in wait(list(busy)):
                worker = busy[connection]
                task, answer = worker.task, worker.answer()
                if answer is None:
                    workers[workers.index(worker)] = worker = _Worker(context, work)
                    deaths[task.id] = deaths.get(task.id, 0) + 1
                    if deaths[task.id] < ATTEMPTS:
                        waiting.append(task)
                    else:
                        answer = None, WorkerDied(f"{ATTEMPTS} processes died at it")
                if waiting:
                    worker.begin(waiting.popleft())
                if answer:
                    yield task, *answer
    finally:
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join()


class _Worker:
    """A process that runs one task at a time."""

    def __init__(self, context, work):
        self.task = None
        self.connection, there = context.Pipe()
        self.process = context.Process(target=_serve, args=(there, work), daemon=True)
        self.process.start()
        there.close()

    def begin(self, task):
        self.task = task
        try:
            self.connection.send(task)
        except OSError:    # it died while it had nothing to do: answer() will say so
            pass

    def answer(self):
        """(numbers, None) or (None, exception) of the task, None if the process died."""
        self.task = None
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            return None


def _serve(connection, work):
    signal.signal(signal.SIGINT, signal.SIG_IGN)    # Ctrl-C is the sweep's, which ends this process
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer = work(task), None
        except Exception as error:
            answer = None, RuntimeError(f"{type(error).__name__}: {error}")
        connection.send(answer)
