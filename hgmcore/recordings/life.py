"""A guest's life: the recorded postcopy, the recorded balloon, and generated phases that follow in such a life."""

from __future__ import annotations

import numpy as np

from hgmcore import recordings
from hgmcore.sizes import parse_named
from hgmcore.trace.header import NO_TIME
from hgmcore.trace.statements import CODES, MINOR, OPERATION, SHARED, WP
from hgmcore.trace.writer import Sink
from hgmcore.workloads.story import PREFIX, asks

GIB, TABLE, PIECE = 1 << 30, 2 << 20, 4096
ARRIVAL, BALLOON = "qemu-postcopy_redis_4k", "qemu-balloon_redis_4k"
SAMPLE = 20_000  # pieces that a second process maps


@asks("Which scheme costs and breaks what over a guest's life: postcopy, balloon, fork, migration, failures?")
def guest_life(seed=1):
    """A guest of 1G, mapped in pieces of 4K, from its arrival by postcopy on.

    Phases `postcopy_recorded` and `balloon_recorded` are recordings of QEMU (recording:qemu-postcopy_redis_4k and
    qemu-balloon_redis_4k), operation by operation; all others are generated and named `.._generated`: a second block
    of memory whose `continue`s fail half-way, a fork that copies page tables, a back end that maps a sample of the
    pieces, migration while shared and after, a 4K memory failure in the second block, a truncation of it under its
    mappings, and a collapse.

    seed: of the back end's sample.
    """
    rng, sink = np.random.default_rng(parse_named("seed", seed)), Sink("x86-64")
    observe = lambda: sink.emit("observe", 0)  # noqa: E731
    sink.phase("setup")
    ram = sink.file("mem0", GIB, 1)
    dimm = sink.file("dimm1", GIB, 1)
    for file in (ram, dimm):
        sink.emit("populate", file, 0, 1)
    qemu = sink.mmap("qemu", "mem0", ram, 0, GIB, SHARED | MINOR)
    sink.emit("split", qemu, 0, GIB)

    sink.phase("postcopy_recorded")
    _recorded(sink, ARRIVAL, ("continue", "observe"), qemu)

    sink.phase("half_way_generated")  # every `continue` spans two page tables, and the last allocation fails
    block = sink.mmap("qemu", "dimm1", dimm, 0, GIB, SHARED | MINOR)
    sink.emit("split", block, 0, GIB)
    for nth in range(16):
        sink.emit("fail", 0, 2 if nth else 3)
        sink.emit("continue", block, (2 * nth + 1) * TABLE - PIECE, 2 * PIECE)
    observe()
    _many(sink, "continue", block, np.arange(64 * TABLE, 68 * TABLE, PIECE), PIECE)
    observe()

    sink.phase("balloon_recorded")
    sink.emit("unregister", qemu)
    _recorded(sink, BALLOON, ("dontneed", "touch", "observe"), qemu)

    sink.phase("fork_generated")
    sink.emit("register", qemu, flags=MINOR | WP)
    child = sink.fork("qemu", "child")
    observe()
    _many(sink, "dontneed", sink.child_mapping(child, qemu), np.arange(0, 64 * TABLE, PIECE), PIECE)
    observe()
    sink.exit(child)
    observe()

    sink.phase("back_end_generated")
    other = sink.mmap("backend", "mem0", ram, 0, GIB, SHARED | MINOR)
    sink.emit("split", other, 0, GIB)
    _many(sink, "continue", other, rng.choice(GIB // PIECE, SAMPLE, replace=False) * PIECE, PIECE)
    observe()

    sink.phase("migrate_generated")
    sink.emit("migrate", qemu, 0, GIB)
    observe()
    sink.exit("backend")
    sink.emit("migrate", qemu, 0, GIB)
    observe()

    sink.phase("memory_failure_generated")
    sink.emit("hwpoison", block, 65 * TABLE)
    sink.emit("touch", block, 65 * TABLE)
    observe()

    sink.phase("truncate_generated")
    sink.emit("truncate", dimm, 0)
    observe()

    sink.phase("collapse_generated")
    sink.emit("collapse", qemu, 0, GIB)
    observe()
    return sink.trace(PREFIX + "guest_life", {
        "workload": f"guest_life,seed={seed}", "recorded": f"{ARRIVAL}, {BALLOON}",
        "generated": "phases whose names end in _generated",
        "licence": recordings.provenance(ARRIVAL)["licence"]})


def _many(sink, op, mapping, offsets, length):
    records = np.zeros(len(offsets), OPERATION)
    records["op"], records["target"], records["offset"], records["length"] = CODES[op], mapping, offsets, length
    sink.extend(records)


def _recorded(sink, name, ops, mapping):
    """The operations `ops` of a recording of one mapping, with their threads; its own first install is left out."""
    trace = recordings.load(name)
    kept = np.isin(trace.operations["op"], [CODES[op] for op in ops])
    records = trace.operations[kept].copy()
    records["target"][records["op"] != CODES["observe"]] = mapping
    last = len(records) - (records["op"][-1] == CODES["observe"])  # the one behind the collapse
    time = NO_TIME if trace.time is None else trace.time[kept][:last]
    sink.extend(records[:last], 0 if trace.thread is None else trace.thread[kept][:last], time)
