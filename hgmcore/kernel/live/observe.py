"""Observations of the kernel's counts for processes and files, in the format of the kernel recordings.

Arrays over 4K pages are runs [first, count, value]; pages that are not mapped (not in the page cache) are left out.
"""

import os
import re
import struct

import numpy as np

from hgmcore.kernel.live import kernel
from hgmcore.kernel.live.kernel import PAGE
from hgmcore.kernel.live.references import References

COUNTS = "/proc/kpagecount"
_PAGEMAP_SCAN = 0xC0606610
_PRESENT, _HUGE = 1 << 3, 1 << 6          # categories of PAGEMAP_SCAN
_FRAME, _EXCLUSIVE, _FILE = (1 << 55) - 1, 56, 61
_FLAGS = {"MMAP": 11, "ANON": 12, "HEAD": 15, "TAIL": 16, "HUGE": 17, "THP": 22, "ZERO": 24}
_KFLAGS, _LARGE = sum(1 << bit for bit in _FLAGS.values()), 1 << _FLAGS["HUGE"] | 1 << _FLAGS["THP"]
_HEADER = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S+) .*\n", re.M)
_FIELD = re.compile(r"^(\w+):\s*(.*?)\s*$", re.M)
_NOT_SMAPS = ("Size", "KernelPageSize", "MMUPageSize", "Locked")    # the last: set in batches, each CPU by itself
_STATUS = ("RssAnon", "RssFile", "RssShmem", "VmPTE", "HugetlbPages")


def runs(pages, values, counting=None):
    """[[first, count, value], ...] of parallel arrays; with `counting`, an array that goes up by one inside a run,
    [[first, count, value, counting at first], ...]."""
    if not len(pages):
        return []
    new = np.ones(len(pages), bool)
    new[1:] = (pages[1:] != pages[:-1] + 1) | (values[1:] != values[:-1])
    if counting is not None:
        new[1:] |= counting[1:] != counting[:-1] + 1
    starts = np.flatnonzero(new)
    counts = np.append(starts[1:], len(pages)) - starts
    columns = [pages[starts], counts, values[starts]] + ([] if counting is None else [counting[starts]])
    return [list(row) for row in zip(*(column.tolist() for column in columns))]


class Observer:
    """Reads the kernel's counts. Huge pages get the names B0, B1, ... as they are met, small pages indices of S."""

    def __init__(self):
        self.counts = os.open(COUNTS, os.O_RDONLY | os.O_CLOEXEC)
        self.flags = os.open("/proc/kpageflags", os.O_RDONLY | os.O_CLOEXEC)
        self.blocks, self.small = _Numbers(), _Numbers()
        try:
            self.references = References()
        except OSError:
            self.references = None

    def close(self):
        if self.references:
            self.references.close()
        os.close(self.counts)
        os.close(self.flags)

    def forget(self):
        """Begin anew with the names."""
        self.blocks.forget()
        self.small.forget()

    def observe(self, processes, files):
        """An `obs` of {name: (Process, {region: [address, length]}, status at its start)} and {name: File}."""
        seen = {}
        for name, (process, regions, before) in processes.items():
            status = self.status(process)
            vmas = smaps(process.smaps, max((a + n for a, n in regions.values()), default=0))
            seen[name] = {
                "regions": {r: {**self._region(process, *place), **_of_region(vmas, *place)}
                            for r, place in regions.items()},
                "status": status,
                "status_delta": {key: value - before[key] for key, value in status.items()}}
        return {"procs": seen, "files": {name: self.file(file) for name, file in files.items()}}

    def status(self, process):
        """Of /proc/PID/status what counts pages, kB."""
        text = os.pread(process.status, 1 << 14, 0).decode()
        return {key: int(value.split()[0]) for key, _, value in (line.partition(":") for line in text.splitlines())
                if key in _STATUS}

    def _region(self, process, address, length):
        pages = length // PAGE
        entries = np.frombuffer(os.pread(process.pagemap, 8 * pages, 8 * (address // PAGE)), "<u8")
        mapped = np.flatnonzero(entries >> np.uint64(63))
        zero = self._read(self.flags, (entries[mapped] & _FRAME).astype(np.int64)) >> _FLAGS["ZERO"] & 1
        mapped = mapped[zero == 0]  # nobody counts the zero page: not in Rss, no map count
        entries = entries[mapped]
        huge = np.zeros(pages, bool)
        for start, end in huge_ranges(process.pagemap, address, length):
            huge[(start - address) // PAGE:(end - address) // PAGE] = True
        of_frames = self._of_frames(mapped, (entries & _FRAME).astype(np.int64))
        del of_frames["sum_mapcount"]
        return {"map": runs(mapped, np.where(huge[mapped], "HUGE", "PTE")), **of_frames,
                "excl": runs(mapped, (entries >> _EXCLUSIVE & 1).astype(bool)),
                "file": runs(mapped, (entries >> _FILE & 1).astype(bool))}

    def file(self, file):
        """The pages in the page cache of a file, mapped or not."""
        return self._of_frames(*file.cache())

    def _of_frames(self, pages, frames):
        counts, flags = self._read(self.counts, frames), self._read(self.flags, frames)
        kinds = runs(pages, flags & _KFLAGS)
        for run in kinds:
            run[2] = "|".join(name for name, bit in _FLAGS.items() if run[2] >> bit & 1)
        same = np.zeros(len(pages), np.int8)
        heads = flags >> _FLAGS["HEAD"] & 1 == 1
        refs = {"refs": runs(pages[heads], self.references.of(frames[heads]))} if self.references else {}
        return {**refs, "phys": self._names(pages, frames, flags),
                "pfn": [[first, count, frame] for first, count, _, frame in runs(pages, same, frames)],
                "mapcount": runs(pages, counts), "kflags": kinds, "sum_mapcount": int(counts.sum())}

    def _read(self, fd, frames):
        """The words of a /proc/kpage* file for each of `frames`."""
        out = np.zeros(len(frames), np.uint64)
        starts = np.flatnonzero(frames[1:] != frames[:-1] + 1) + 1
        for start, end in zip([0, *starts.tolist()], [*starts.tolist(), len(frames)] if len(frames) else []):
            out[start:end] = np.frombuffer(os.pread(fd, 8 * (end - start), 8 * int(frames[start])), "<u8")
        return out.astype(np.int64)

    def _names(self, pages, frames, flags):
        """[[first, count, block, index in it], ...]; a page that once was of a huge page keeps that name."""
        self.blocks.meet(frames[flags & _LARGE != 0] >> 9)
        block = self.blocks.of(frames >> 9)
        self.small.meet(frames[block < 0])
        index = np.where(block < 0, self.small.of(frames), frames & 511)
        return [[first, count, "S" if number < 0 else f"B{number}", at]
                for first, count, number, at in runs(pages, block, index)]


class _Numbers:
    """Numbers things 0, 1, ... in order of appearance; -1 stands for a thing that did not appear."""

    def __init__(self):
        self._of, self._met = np.full(1 << 16, -1, np.int32), []

    def forget(self):
        for keys in self._met:
            self._of[keys] = -1
        self._met.clear()

    def meet(self, keys):
        new = keys[self.of(keys) < 0]
        if len(new):
            new = new[np.sort(np.unique(new, return_index=True)[1])]
            known = sum(map(len, self._met))
            self._of[new] = np.arange(known, known + len(new))
            self._met.append(new)

    def of(self, keys):
        most = int(keys.max(initial=0)) + 1
        if most > len(self._of):
            self._of = np.concatenate((self._of, np.full(most - len(self._of), -1, np.int32)))
        return self._of[keys]


def huge_ranges(pagemap, address, length):
    """[(start, end), ...] that leaves above the PTE level map."""
    vector = np.zeros((length // PAGE + 1, 3), np.uint64)
    argument = struct.pack("=12Q", 96, 0, address, address + length, 0, vector.ctypes.data, len(vector), 0, 0,
                           _PRESENT | _HUGE, 0, _PRESENT | _HUGE)
    found = kernel.checked("PAGEMAP_SCAN", kernel.ioctl(pagemap, _PAGEMAP_SCAN, argument))
    return vector[:found, :2].astype(np.int64).tolist()


def smaps(fd, end):
    """[(start, end, permissions, flags, {field: kB}), ...] of /proc/PID/smaps below `end`."""
    text, at = b"", 0
    while True:  # regions lie below everything else of a worker: no need to have the kernel walk the rest
        block = os.pread(fd, PAGE, at)
        text, at = text + block, at + len(block)
        if not block or any(int(start, 16) >= end for start, _, _ in _HEADER.findall(text.decode())):
            break
    found = []
    for header, lines in _vmas(text):
        start, stop = int(header[1], 16), int(header[2], 16)
        if start >= end:
            break
        fields = dict(_FIELD.findall(lines))
        flags = fields.pop("VmFlags")
        found.append((start, stop, header[3], flags.strip(),
                      {key: int(value.split()[0]) for key, value in fields.items() if value.endswith(" kB")}))
    return found


def _vmas(text):
    """(match of the header, the lines that follow) of every mapping."""
    text = text.decode(errors="replace")
    headers = list(_HEADER.finditer(text))
    for header, after in zip(headers, headers[1:] + [None]):
        yield header, text[header.end():after.start() if after else len(text)]


def _of_region(vmas, address, length):
    """The sum over the mappings of a region, and what they are: [[start, end, permissions, flags], ...]."""
    inside = [vma for vma in vmas if address <= vma[0] < address + length]
    total = {"Rss": 0, "Pss": 0}
    for _, _, _, _, fields in inside:
        for key, value in fields.items():
            if value and key not in _NOT_SMAPS:
                total[key] = total.get(key, 0) + value
    return {"smaps": total,
            "vmas": [[start - address, end - address, perms, flags] for start, end, perms, flags, _ in inside]}
