"""A guest's life: the recorded postcopy, the recorded balloon, and generated phases that follow in such a life."""

from __future__ import annotations

import numpy as np

from hgmcore import recordings
from hgmcore.sizes import parse_named
from hgmcore.trace import Trace
from hgmcore.trace.header import NO_TIME
from hgmcore.trace.statements import CODES, MINOR, OPERATION, SHARED, WP
from hgmcore.trace.writer import Writer
from hgmcore.workloads.story import PREFIX, asks

GIB, TABLE, PIECE = 1 << 30, 2 << 20, 4096
ARRIVAL, BALLOON = "qemu-postcopy_redis_4k", "qemu-balloon_redis_4k"
SAMPLE = 20_000  # pieces that a second process maps


@asks("Which scheme costs and breaks what over a guest's life: postcopy, balloon, fork, migration, failures?")
def guest_life(seed: int | str = 1) -> Trace:
    """A guest of 1G, mapped in pieces of 4K, from its arrival by postcopy on.

    Phases `postcopy_recorded` and `balloon_recorded` are recordings of QEMU (recording:qemu-postcopy_redis_4k and
    qemu-balloon_redis_4k), operation by operation; all others are generated and named `.._generated`: a second block
    of memory whose `continue`s fail half-way, a fork that copies page tables, a back end that maps a sample of the
    pieces, migration while shared and after, a 4K memory failure in the second block, a truncation of it under its
    mappings, and a collapse.

    seed: of the back end's sample.
    """
    rng, writer = np.random.default_rng(parse_named("seed", seed)), Writer("x86-64")
    observe = lambda: writer.emit("observe", 0)  # noqa: E731
    writer.phase("setup")
    ram = writer.file("mem0", GIB, 1)
    dimm = writer.file("dimm1", GIB, 1)
    for file in (ram, dimm):
        writer.emit("populate", file, 0, 1)
    qemu = writer.mmap("qemu", "mem0", ram, 0, GIB, SHARED | MINOR)
    writer.emit("split", qemu, 0, GIB)

    writer.phase("postcopy_recorded")
    _recorded(writer, ARRIVAL, ("continue", "observe"), qemu)

    writer.phase("half_way_generated")  # every `continue` spans two page tables, and the last allocation fails
    block = writer.mmap("qemu", "dimm1", dimm, 0, GIB, SHARED | MINOR)
    writer.emit("split", block, 0, GIB)
    for nth in range(16):
        writer.emit("fail", 0, 2 if nth else 3)
        writer.emit("continue", block, (2 * nth + 1) * TABLE - PIECE, 2 * PIECE)
    observe()
    _many(writer, "continue", block, np.arange(64 * TABLE, 68 * TABLE, PIECE), PIECE)
    observe()

    writer.phase("balloon_recorded")
    writer.emit("unregister", qemu)
    _recorded(writer, BALLOON, ("dontneed", "touch", "observe"), qemu)

    writer.phase("fork_generated")
    writer.emit("register", qemu, flags=MINOR | WP)
    child = writer.fork("qemu", "child")
    observe()
    _many(writer, "dontneed", writer.child_mapping(child, qemu), np.arange(0, 64 * TABLE, PIECE), PIECE)
    observe()
    writer.exit(child)
    observe()

    writer.phase("back_end_generated")
    other = writer.mmap("backend", "mem0", ram, 0, GIB, SHARED | MINOR)
    writer.emit("split", other, 0, GIB)
    _many(writer, "continue", other, rng.choice(GIB // PIECE, SAMPLE, replace=False) * PIECE, PIECE)
    observe()

    writer.phase("migrate_generated")
    writer.emit("migrate", qemu, 0, GIB)
    observe()
    writer.exit("backend")
    writer.emit("migrate", qemu, 0, GIB)
    observe()

    writer.phase("memory_failure_generated")
    writer.emit("hwpoison", block, 65 * TABLE)
    writer.emit("touch", block, 65 * TABLE)
    observe()

    writer.phase("truncate_generated")
    writer.emit("truncate", dimm, 0)
    observe()

    writer.phase("collapse_generated")
    writer.emit("collapse", qemu, 0, GIB)
    observe()
    return writer.trace(PREFIX + "guest_life", {
        "workload": f"guest_life,seed={seed}", "recorded": f"{ARRIVAL}, {BALLOON}",
        "generated": "phases whose names end in _generated",
        "licence": recordings.provenance(ARRIVAL)["licence"]})


def _many(writer, op, mapping, offsets, length):
    records = np.zeros(len(offsets), OPERATION)
    records["op"], records["target"], records["offset"], records["length"] = CODES[op], mapping, offsets, length
    writer.extend(records)


def _recorded(writer, name, ops, mapping):
    """The operations `ops` of a recording of one mapping, with their threads; its own first install is left out."""
    trace = recordings.load(name)
    kept = np.isin(trace.operations["op"], [CODES[op] for op in ops])
    records = trace.operations[kept].copy()
    records["target"][records["op"] != CODES["observe"]] = mapping
    last = len(records) - (records["op"][-1] == CODES["observe"])  # the one behind the collapse
    time = NO_TIME if trace.time is None else trace.time[kept][:last]
    writer.extend(records[:last], 0 if trace.thread is None else trace.thread[kept][:last], time)
