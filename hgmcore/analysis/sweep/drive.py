"""A sweep from its file to its table: what is done already stays, what is missing runs, here or on a cluster."""

from __future__ import annotations

import contextlib
import time

from hgmcore.analysis.sweep.cluster import Cluster
from hgmcore.analysis.sweep.processes import cores, run_here
from hgmcore.analysis.sweep.results import TABLE, Results, points_named, remove_table
from hgmcore.analysis.sweep.spec import load
from hgmcore.analysis.sweep.task import tasks_of

FORMAT = "hgmcore-sweep 1"


def sweep(path, directory, *, scheduler=None, processes=None, progress=None) -> dict:
    """Run what the TOML file `path` describes and is not in `directory` yet; the results stand there as Parquet.

    scheduler: address of a Dask scheduler whose workers run the tasks; default: `processes` processes of this machine,
    one for each CPU if that is None. progress: called as progress(tasks done, tasks in all, what). Returns
    `hgmcore-sweep 1`; `hgmcore help json` has its schema. Before anything runs, SpecError (a ValueError) where the file
    or an input cannot be used, ValueError where the scheduler cannot or another sweep holds the directory, OSError
    where a file cannot be read or written. Interrupted, it leaves what is done in the directory.
    """
    begun = time.monotonic()
    spec = load(path)
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(Cluster(scheduler)) if scheduler else None
        tasks = tasks_of(spec, cluster and cluster.keep)
        different = {task.id: task for task in tasks}
        results = stack.enter_context(Results(directory))
        remove_table(directory)
        missing = [task for task_id, task in different.items() if task_id not in results]
        try:
            _run(missing, results, cluster, processes or cores(), len(different), progress)
        finally:
            rows = results.write_table(spec.points, tasks)
        errors = results.errors()
        failed = [{"task": task.id, "point": points_named(point), "error": errors[task.id]}
                  for point, task in zip(spec.points, tasks, strict=True) if task.id in errors]
        return {"format": FORMAT, "spec": str(path), "table": str(results.directory / TABLE), "rows": rows,
                "points": len(spec.points), "tasks": len(different), "ran": len(missing), "schemes": len(spec.schemes),
                "failed": failed, "seconds": round(time.monotonic() - begun, 3)}


def _run(missing, results, cluster, processes, total, progress):
    report = progress or (lambda done, total, what: None)
    done = total - len(missing)
    report(done, total, "sweeping")
    running = cluster.run(missing) if cluster else run_here(missing, processes)
    with contextlib.closing(running):
        for task, numbers, error in running:
            results.add(task.id, numbers, None if error is None else str(error) or type(error).__name__)
            done += 1
            report(done, total, "sweeping")
