"""The running kernel as a maker of recordings: operations in, the steps of a kernel recording out."""

import platform
import time

from hgmcore.kernel.live import kernel
from hgmcore.kernel.live.files import KINDS, FileSystem
from hgmcore.kernel.live.kernel import HUGE
from hgmcore.kernel.live.observe import Observer
from hgmcore.kernel.live.processes import Nursery

_BASE = 0x10_0000_0000  # regions lie a GiB apart, below all else, at the same addresses in every process
_RESULTS = ("t", "i", "ret", "errno", "ns", "mapped", "accessed", "features")


class _Process:
    """A worker, its regions {name: [address, length]} and its status before it had any."""

    def __init__(self, worker, regions, before):
        self.worker, self.regions, self.before = worker, regions, before


class Session:
    """Processes, files and observations of one run; everything it makes is gone at the end of its `with`."""

    def __enter__(self):
        self._observer = Observer()
        self._filesystem = FileSystem()
        self._nursery = Nursery().__enter__()
        self._slots, self._files, self._processes = {}, {}, {}
        return self

    def __exit__(self, *exception):
        self._nursery.__exit__(*exception)
        self._close_files()
        self._filesystem.close()
        self._observer.close()

    def _close_files(self):
        while self._files:
            self._files.popitem()[1].close()

    def record(self, sequence, name="live", doc="", observe=True):
        """Do `sequence` and yield the steps of its recording, observations with `observe` only.

        A sequence is the statements of a recording without results: files, processes, operations. An operation on
        a process, region or file that does not exist (in a sequence from which steps were taken) is left out.
        """
        self._slots.clear()
        self._observer.forget()
        yield {"t": "scenario", "name": name, "doc": doc, "kernel": platform.release()}
        step = 0
        try:
            for statement in sequence:
                if statement["t"] == "file":
                    kind = KINDS[statement["kind"]]
                    self._files[statement["file"]] = kind(self._filesystem, len(self._files), statement["size"],
                                                          statement["page"], statement.get("cached"))
                    yield statement
                elif statement["t"] == "proc":
                    worker = self._nursery.fork()[1]
                    self._processes[statement["proc"]] = _Process(worker, {}, self._observer.status(worker))
                    yield statement
                elif statement["t"] == "op" and self._possible(statement):
                    step += 1
                    op = {key: value for key, value in statement.items() if key not in _RESULTS}
                    yield {"t": "op", "i": step, **op, **self._do(op)}
                    if observe and op["op"] != "uffd_open":
                        yield {"t": "obs", "i": step, **self._observe()}
        finally:
            self._processes.clear()
            self._nursery.end_all()
            self._close_files()

    def overhead(self, times):
        """ns of overhead in a measured operation: the least of `times` system calls that do nothing."""
        worker = self._nursery.fork()[1]
        least = min(worker.ask({"op": "nothing"})["ns"] for _ in range(times))
        self._nursery.end(worker)
        return least

    def _possible(self, op):
        if op["proc"] == "driver":
            return op["region"] in self._files
        process = self._processes.get(op["proc"])
        if process is None or op.get("child") in self._processes or op.get("file") not in (None, *self._files):
            return False
        new = op.get("to", op["region"] if op["op"] == "mmap" else None)
        if new in process.regions:
            return False
        return op["op"] in ("mmap", "fork", "exit", "uffd_open") or op["region"] in process.regions

    def _observe(self):
        processes = {name: (p.worker, p.regions, p.before) for name, p in sorted(self._processes.items())}
        return self._observer.observe(processes, self._files)

    def _do(self, op):
        """The results of one operation, as its kind has them in a recording."""
        if op["proc"] == "driver":
            return self._do_driver(op)
        process = self._processes[op["proc"]]
        if op["op"] == "exit":
            self._nursery.end(self._processes.pop(op["proc"]).worker)
            return {"ret": 0, "errno": ""}
        if op["op"] == "fork":
            result, worker = self._nursery.fork(process.worker)
            regions = {name: list(place) for name, place in process.regions.items()}
            self._processes[op["child"]] = _Process(worker, regions, process.before)
            return {**result, "ret": 1}
        return self._do_memory(op, process)

    def _do_driver(self, op):
        file = self._files[op["region"]]
        start = time.perf_counter_ns()
        if op["op"] == "fallocate":
            result = kernel.fallocate(file.fd, kernel.FALLOCATE[op["mode"]], op["off"], op["len"])
        else:
            result = kernel.ftruncate(file.fd, op["len"])
        ns = time.perf_counter_ns() - start
        return {"ret": result, "errno": kernel.error() if result == -1 else "", "ns": ns}

    def _do_memory(self, op, process):
        region, fd = op.get("region"), None
        request = dict(op)
        if op["op"] == "mmap":
            process.regions[region] = [self._place(region) + op["addr_mod_2M"], op["len"]]
            fd = self._files[op["file"]].fd if "file" in op else None
        if region:
            request["address"] = process.regions[region][0] + op["off"]
        if "to" in op:
            request["to_address"] = self._place(op["to"]) + op.get("to_mod_2M", request["address"] % HUGE)
        result = process.worker.ask(request, fd)
        if op["op"] == "mmap" and result["ret"] == -1:
            del process.regions[region]
        if op["op"] == "mremap" and result["ret"] == 0:
            if "to" in op:
                process.regions[op["to"]] = [request["to_address"], op["newlen"]]
            else:
                place = process.regions[region]
                place[1] = max(place[1], op["off"] + op["newlen"])
        return result

    def _place(self, region):
        return _BASE + (self._slots.setdefault(region, len(self._slots)) << 30)
