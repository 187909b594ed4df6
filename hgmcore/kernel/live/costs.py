"""What the running kernel's own work takes: operations on 32 MiB in 2M folios, timed, less what its scheme counts.

The kernel's scheme is mm_id (CONFIG_PAGE_MAPCOUNT). fork, zap, collapse and fault-around update the counts of a run at
once; UFFDIO_CONTINUE updates them page by page. What remains is K(op), the same under every scheme. Each number is the
median of repetitions in CPU time of the thread. Its interval comes from their 10th and 90th percentiles, at least 3 %
either way, and from the doubt of what was taken off.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from hgmcore.kernel.live import calls, kernel
from hgmcore.kernel.live.files import FileSystem, ShmemFile
from hgmcore.kernel.live.kernel import ADVICE, HUGE, MAP_FLAGS, PAGE, PROT
from hgmcore.model.linear import NORMAL, Value

REPETITIONS, NEEDED = 15, 6
"""Repetitions of each operation, and how many of them must be undisturbed."""

WIDEN = 0.03
HUGES, PAGES = 16, 512
SIZE = HUGES * HUGE
ADDRESS = 0x30_0000_0000
IOCTL_CONTINUE = 0xC020AA07
SOME = 480
"""Base pages of one folio that single calls are timed for: those behind the first ones."""

FIRST = 16

LEAF = {"atomic": 4, "plain": 3, "step": 1, "stat": 1}
RUN = {"atomic": 515, "plain": 4, "step": 1, "stat": 1}
FORKED = {"atomic": 514, "plain": 5, "step": 1}
COPIED = {"atomic": 5, "plain": 3, "step": 2, "stat": 1}
"""Events of mm_id that are taken off: of one leaf, of a run of 512 new or last ones, of a fork of 512, of a copy."""


class NotShown(Exception):
    """An operation that could not be timed, and why."""


def measured(name, once) -> Value:
    """The Value of `once`, a function to (ns, disturbed). NotShown."""
    found = [ns for ns, disturbed in (once() for _ in range(REPETITIONS)) if not disturbed]
    if len(found) < NEEDED:
        raise NotShown(f"disturbed: {REPETITIONS - len(found)} of {REPETITIONS} repetitions were interrupted")
    low, middle, high = np.percentile(found, [10, 50, 90]).tolist()
    return Value(middle, max(0.0, min(low, middle * (1 - WIDEN))), max(high, middle * (1 + WIDEN)), "measured", name)


def combined(source, *terms) -> Value:
    """The sum of (factor, Value) pairs, which are independent; not below 0."""
    ns = sum(factor * value.ns for factor, value in terms)
    sd = sum((factor * value.sd) ** 2 for factor, value in terms) ** 0.5
    return Value(max(0.0, ns), max(0.0, ns - NORMAL * sd), max(0.0, ns + NORMAL * sd), "measured", source)


def kernel_costs(costs) -> tuple[dict, dict]:
    """({parameter: Value} of [kernel] and "copy", {row or "copy": why it is missing}) of the running kernel.

    costs: {class: Value} of the profile, with which the accounting is taken off. ValueError: a cost that is to be
    taken off is not known. OSError: the kernel refuses what `conditions` promised.
    """
    lacking = [name for name in LEAF if name not in costs]
    if lacking:
        raise ValueError(f"--kernel: the cost of {', '.join(lacking)} is not known, and is to be taken off")
    times, missing = {}, {}
    for group in (_of_shmem, _of_anonymous, _of_fork):
        group(times, missing)
    return _rows(times, missing, costs)


def _rows(times, missing, costs):
    """The rows that the times allow; events are taken off."""
    def off(events, share=1.0):
        return [(-count * share, costs[name]) for name, count in events.items()]

    found, why = {}, {}

    def row(parameter, source, needs, *terms):
        absent = [name for name in needs if name not in times]
        if absent:
            why.setdefault(parameter.removeprefix("kernel.").split(".")[0], missing[absent[0]])
            return
        found[parameter] = combined(source(*(times[name].ns for name in needs)),
                                    *((factor, times[name]) for name, factor in zip(needs, terms)),
                                    *(term for rest in terms[len(needs):] for term in rest))

    row("kernel.continue.call", "an ioctl of 1 page {:,.0f} ns, of 256 {:,.0f}".format, ("one", "many"),
        256 / 255, -1 / 255)
    row("kernel.continue.leaf", "an ioctl of 1 page {:,.0f} ns, of 256 {:,.0f}".format, ("one", "many"),
        -1 / 255, 1 / 255, off(LEAF))
    row("kernel.fault_run.call", "a fault that maps a PMD, {:,.0f} ns".format, ("pmd",), 1, off(LEAF))
    row("kernel.fault_run.leaf", "a fault that maps 512 PTEs, {:,.0f} ns; a PMD, {:,.0f} ns".format, ("run", "pmd"),
        1 / PAGES, -1 / PAGES, off(RUN, 1 / PAGES), off(LEAF, -1 / PAGES),
        [(-1 / PAGES, costs["table_alloc"])] if "table_alloc" in costs else [])
    run_leaf = found.get("kernel.fault_run.leaf", Value(0, 0, 0))
    row("kernel.fault.call", "a touch that maps 1 PTE, {:,.0f} ns".format, ("fault",), 1, off(LEAF), [(-1, run_leaf)])
    if "kernel.fault.call" in found and run_leaf.ns:
        found["kernel.fault.leaf"] = run_leaf
    row("kernel.write.call", "a write of one byte that leaves the page, {:,.0f} ns".format, ("reused",), 1)
    row("kernel.memset.call", "a write of all of a page that is left, {:,.0f} ns".format, ("filled",), 1)
    row("copy", "a write that copies, {:,.0f} ns, less one that does not, {:,.0f}".format, ("copied", "reused"),
        1, -1, off(COPIED))
    row("kernel.dontneed.leaf", "{:.2f} ns a PTE in 32 MiB".format, ("zapped",), 1, off(RUN, 1 / PAGES))
    zap_leaf = found.get("kernel.dontneed.leaf", Value(0, 0, 0))
    for name, leaf, times_of in (("dontneed", None, None), ("munmap", "unmapped", "{:.2f} ns a PTE in 32 MiB"),
                                 ("munmap_freed", "freed", "{:.2f} ns a PTE of anonymous 2M folios that are freed")):
        row(f"kernel.{name}.call", "MADV_DONTNEED of 4K, {:,.0f} ns".format, ("dontneed",), 1, off(LEAF),
            [(-1, zap_leaf)])
        if leaf:
            row(f"kernel.{name}.leaf", times_of.format, (leaf,), 1, off(RUN, 1 / PAGES))
    row("kernel.dontneed_anon.call", "{:,.0f} ns for 4K of anonymous memory".format, ("dontneed_anon",), 1, off(LEAF))
    row("kernel.fork.call", "a fork of a bare interpreter, {:,.0f} ns".format, ("fork",), 1)
    row("kernel.fork.leaf", "{:,.0f} ns more for 32 MiB".format, ("fork_more",), 1 / (SIZE // PAGE),
        off(FORKED, 1 / PAGES))
    few, many = 8, PAGES
    row("kernel.collapse.call", "in place, {:,.0f} ns with 8 PTEs, {:,.0f} with 512".format, ("few", "full"),
        1 + few / (many - few), -few / (many - few))
    row("kernel.collapse.leaf", "in place, {:,.0f} ns with 8 PTEs, {:,.0f} with 512".format, ("few", "full"),
        -1 / (many - few), 1 / (many - few), off(RUN, 1 / PAGES))
    row("kernel.split.leaf", "a PMD split, {:,.0f} ns".format, ("split",), 1 / PAGES, off(RUN, 1 / PAGES))
    sources = {}
    for name, value in found.items():
        sources.setdefault(name.rpartition(".")[0], {})[value.source] = None
    return {name: replace(value, source="; ".join(sources[name.rpartition(".")[0]]))
            for name, value in found.items()}, why


def _keep(times, missing, name, once, source=""):
    try:
        times[name] = measured(source or name, once)
    except NotShown as error:
        missing[name] = str(error)


def _advise(advice, address=ADDRESS, length=SIZE):
    kernel.checked(advice, kernel.madvise(address, length, ADVICE[advice]))


@contextlib.contextmanager
def _mapped(address, length, flags, fd=-1, offset=0):
    kernel.checked("mmap", kernel.mmap(address, length, PROT["rw"], flags, fd, offset))
    try:
        yield
    finally:
        kernel.munmap(address, length)


def _all_there(address=ADDRESS):
    """Is all of the 32 MiB mapped, so that no access faults any more? NotShown if not."""
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    calls.touch(address, SIZE // PAGE, PAGE, False)
    if resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before > HUGES:
        raise NotShown("the kernel did not map whole folios")


def _series(name, arguments, n, step, moves=0):
    """As calls.series, (ns, disturbed). NotShown: the kernel refused."""
    ns, disturbed, failed = calls.series(name, arguments, n, step, moves)
    if failed:
        raise NotShown(f"{failed} of {n} calls of {name}() failed")
    return ns, disturbed


def _of_shmem(times, missing):
    with contextlib.ExitStack() as stack:
        filesystem = FileSystem()
        stack.callback(filesystem.close)
        file = ShmemFile(filesystem, 0, SIZE, HUGE)
        stack.callback(file.close)
        shared = MAP_FLAGS["SHARED"]
        with _mapped(ADDRESS, SIZE, shared, file.fd):
            def populated(advice="NOHUGEPAGE"):
                _advise("DONTNEED")
                _advise(advice)
                _advise("POPULATE_READ")

            def faults(advice):
                _advise("DONTNEED")
                _advise(advice)
                found = calls.touch(ADDRESS, HUGES, HUGE, False)
                _all_there()
                return found

            def dontneed():
                populated()
                return _series("madvise", (ADDRESS + FIRST * PAGE, PAGE, ADVICE["DONTNEED"]), SOME, PAGE)

            def zapped():
                populated()
                ns, disturbed = _series("madvise", (ADDRESS, SIZE, ADVICE["DONTNEED"]), 1, 0)
                return ns / (SIZE // PAGE), disturbed

            def collapsed(ptes):
                populated()
                if ptes < PAGES:
                    for start in range(ADDRESS, ADDRESS + SIZE, HUGE):
                        _advise("DONTNEED", start + ptes * PAGE, HUGE - ptes * PAGE)
                _advise("HUGEPAGE")
                return _series("madvise", (ADDRESS, HUGE, ADVICE["COLLAPSE"]), HUGES, HUGE)

            _keep(times, missing, "run", lambda: faults("NOHUGEPAGE"))
            _keep(times, missing, "pmd", lambda: faults("HUGEPAGE"))
            _keep(times, missing, "dontneed", dontneed)
            _keep(times, missing, "zapped", zapped)
            _keep(times, missing, "few", lambda: collapsed(8))
            _keep(times, missing, "full", lambda: collapsed(PAGES))
            _advise("NOHUGEPAGE")
            _continues(times, missing)

        def unmapped():
            with _mapped(ADDRESS, SIZE, shared, file.fd):
                _advise("NOHUGEPAGE")
                _advise("POPULATE_READ")
                ns, disturbed = _series("munmap", (ADDRESS, SIZE, 0), 1, 0)
            return ns / (SIZE // PAGE), disturbed

        def fault():    # of a VMA that is misaligned against the folios, so that a write maps one page
            with _mapped(ADDRESS + PAGE, HUGE, shared, file.fd):
                calls.touch(ADDRESS + PAGE, 1, PAGE, True)
                return calls.touch(ADDRESS + FIRST * PAGE, SOME, PAGE, True)

        _keep(times, missing, "unmapped", unmapped)
        _keep(times, missing, "fault", fault)


def _continues(times, missing):
    """UFFDIO_CONTINUE of one page, and of 256, of the mapping that stands."""
    uffd = kernel.checked("userfaultfd", kernel.userfaultfd(["MINOR_SHMEM", "SIGBUS"])[0])
    try:
        kernel.checked("UFFDIO_REGISTER", kernel.uffd_register(uffd, ADDRESS, SIZE, kernel.UFFD_MODES["MINOR"]))

        def once(pages, starts):
            _advise("DONTNEED")
            request = np.zeros((len(starts), 4), np.uint64)
            request[:, 0], request[:, 1] = starts, pages * PAGE
            tables = np.zeros((HUGES, 4), np.uint64)    # each gets one page first, and so is there
            tables[:, 0], tables[:, 1] = ADDRESS + np.arange(HUGES) * HUGE, PAGE
            _series("ioctl", (uffd, IOCTL_CONTINUE, tables.ctypes.data), HUGES, 32, 2)
            return _series("ioctl", (uffd, IOCTL_CONTINUE, request.ctypes.data), len(starts), 32, 2)

        _keep(times, missing, "one", lambda: once(1, ADDRESS + (FIRST + np.arange(SOME)) * PAGE))
        _keep(times, missing, "many", lambda: once(256, ADDRESS + PAGE + np.arange(8) * HUGE))
        kernel.checked("UFFDIO_UNREGISTER", kernel.uffd_unregister(uffd, ADDRESS, SIZE))
    finally:
        os.close(uffd)


def _of_anonymous(times, missing):
    flags = MAP_FLAGS["PRIVATE"] | MAP_FLAGS["ANONYMOUS"]

    @contextlib.contextmanager
    def folios():
        """32 MiB of 2M folios, each mapped by its PMD."""
        with _mapped(ADDRESS, SIZE, flags):
            _advise("HUGEPAGE")
            calls.touch(ADDRESS, HUGES, HUGE, True)
            _all_there()
            yield

    def split_all():
        found = _series("mprotect", (ADDRESS, PAGE, PROT["r"]), HUGES, HUGE)
        kernel.checked("mprotect", kernel.mprotect(ADDRESS, SIZE, PROT["rw"]))
        return found

    def split():
        with folios():
            return split_all()

    def freed():
        with folios():
            split_all()
            ns, disturbed = _series("munmap", (ADDRESS, SIZE, 0), 1, 0)
            return ns / (SIZE // PAGE), disturbed

    def dontneed():
        with folios():
            split_all()
            return _series("madvise", (ADDRESS + FIRST * PAGE, PAGE, ADVICE["DONTNEED"]), SOME, PAGE)

    def written(child_stays, whole_pages=False):
        with folios():
            split_all()
            child = os.fork()
            if child == 0:
                signal.pause()
            if not child_stays:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            try:
                if whole_pages:
                    return calls.fill(ADDRESS + FIRST * PAGE, SOME)
                return calls.touch(ADDRESS + FIRST * PAGE, SOME, PAGE, True)
            finally:
                if child_stays:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)

    _keep(times, missing, "split", split)
    _keep(times, missing, "freed", freed)
    _keep(times, missing, "dontneed_anon", dontneed)
    _keep(times, missing, "reused", lambda: written(False))
    _keep(times, missing, "filled", lambda: written(False, whole_pages=True))
    _keep(times, missing, "copied", lambda: written(True))


FORKS = """
import importlib.machinery, importlib.util, json, mmap, sys
loader = importlib.machinery.ExtensionFileLoader("hgmcore.kernel.live.calls", sys.argv[1])
calls = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
loader.exec_module(calls)
memory = mmap.mmap(-1, int(sys.argv[2]) + (2 << 20), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
address = -(-calls.address(memory) // (2 << 20)) * (2 << 20)
def forks():
    return [calls.fork() for _ in range(int(sys.argv[3]))]
before = forks()
calls.series("madvise", (address, int(sys.argv[2]), 14), 1, 0)
calls.touch(address, int(sys.argv[2]) >> 21, 2 << 20, True)
calls.series("mprotect", (address, 4096, 1), int(sys.argv[2]) >> 21, 2 << 20)
calls.series("mprotect", (address, int(sys.argv[2]), 3), 1, 0)
print(json.dumps([before, forks()]))
"""
"""A bare interpreter forks with and without 32 MiB of 2M folios that are mapped by PTEs."""


def _of_fork(times, missing):
    done = subprocess.run([sys.executable, "-E", "-S", "-B", "-c", FORKS, str(Path(calls.__file__)), str(SIZE),
                           str(2 * REPETITIONS)], capture_output=True, text=True, check=False)
    if done.returncode:
        missing["fork"] = missing["fork_more"] = "a bare interpreter could not fork"
        return
    without, with_folios = ([(ns, disturbed) for ns, disturbed in each] for each in json.loads(done.stdout))
    _keep(times, missing, "fork", iter(without).__next__)
    _keep(times, missing, "with", iter(with_folios).__next__)
    if "fork" not in times or "with" not in times:
        missing["fork_more"] = missing.get("fork") or missing["with"]
        return
    times["fork_more"] = combined("", (1, times.pop("with")), (-1, times["fork"]))


def with_kernel(profile):
    """The profile with the running kernel's [kernel], and what of it is missing. ValueError as kernel_costs()."""
    found, missing = kernel_costs(profile.costs)
    if not any(name.startswith("kernel.") for name in found):
        raise ValueError("--kernel: no operation could be timed: " + "; ".join(dict.fromkeys(missing.values())))
    return replace(profile, kind="kernel", costs={**profile.costs, **found},
                   not_measurable={**profile.not_measurable, **{
                       name if name == "copy" else f"kernel.{name}": why for name, why in missing.items()}})
