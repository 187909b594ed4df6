"""What is in a trace, in a few plain facts."""

from __future__ import annotations

import numpy as np

from hgmcore.trace import wellformed
from hgmcore.trace.statements import NAMES


def describe(trace):
    """What a trace is, as plain JSON types: name, size, files, processes, operations by kind, provenance."""
    header, threads = trace.header, set()
    counts = np.zeros(len(NAMES), dtype=np.int64)
    for part in trace.chunks(wellformed.CHUNK):
        counts += np.bincount(trace.operations["op"][part], minlength=len(NAMES))
        threads.update(() if trace.thread is None else np.unique(trace.thread[part]).tolist())
    return {
        "name": trace.name,
        "operations": len(trace),
        "by_operation": {NAMES[op]: int(counts[op]) for op in np.argsort(-counts, kind="stable")
                         if counts[op]},
        "geometry": header.geometry,
        "files": [{"name": f.name, "page_size": f.page_size, "pages": f.pages, "kind": f.kind}
                  for f in header.files],
        "processes": list(header.processes),
        "mappings": len(header.mappings),
        "threads": len(threads) or 1,
        "provenance": dict(header.provenance),
    }
