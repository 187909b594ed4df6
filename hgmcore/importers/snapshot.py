"""Print what a process has mapped: `python3 -m hgmcore.importers.snapshot PID`, as root, for `hgmcore import pagemap`.

Lines are `V START-END PERMISSIONS OFFSET INODE NAME` for a VMA, and then for its pages, in runs of which all is
alike and which end where a huge folio does, `P 0xADDRESS PAGES PFN map=COUNT x=EXCLUSIVE sd=SOFT_DIRTY FLAGS`, or
`S 0xADDRESS ENTRY` for a page that is swapped out. COUNT is that of /proc/kpagecount.
"""

from __future__ import annotations

import errno
import os
import sys

import numpy as np

PAGE = os.sysconf("SC_PAGE_SIZE")
FLAGS = {"anon": 12, "huge": 17, "hwpoison": 19, "ksm": 21, "thp": 22, "zero": 24}  # bits of /proc/kpageflags
HEAD = 15
_CHUNK = 1 << 16  # pages
_FRAME = np.uint64((1 << 55) - 1)  # of an entry of pagemap


def snapshot(pid: int, out) -> None:
    """Write the snapshot of a process to a text stream. Raises OSError where /proc cannot be read or hides frames."""
    with (open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/pagemap", "rb", 0) as pagemap,
          open("/proc/kpagecount", "rb", 0) as counts, open("/proc/kpageflags", "rb", 0) as flags):
        print("# pagemap snapshot: V vma / P vaddr npages pfn mapcount excl softdirty flags", file=out)
        for line in maps:
            borders, permissions, offset, _, inode, *name = line.rstrip("\n").split(None, 5)
            if name == ["[vsyscall]"]:
                continue
            print("V", borders, permissions, offset, inode, *name, file=out)
            start, end = (int(border, 16) for border in borders.split("-"))
            for at in range(start, end, _CHUNK * PAGE):
                entries = _read(pagemap, at // PAGE, min(_CHUNK, (end - at) // PAGE))
                if ((entries >> np.uint64(63) == 1) & (entries & _FRAME == 0)).any():
                    raise OSError(errno.EPERM, "the kernel shows page frames only to CAP_SYS_ADMIN", pagemap.name)
                _print(at, entries, counts, flags, out)


def _print(start, entries, counts, flags, out):
    """Print the runs of the pages from `start` on, given their entries in pagemap."""
    present, pfn = entries >> np.uint64(63) == 1, entries & _FRAME
    mapped, kind = (np.zeros(len(entries), dtype=np.uint64) for _ in range(2))
    there = np.flatnonzero(present)
    for first, last in _runs(np.diff(pfn[there].astype(np.int64)) == 1) if len(there) else ():
        part = there[first:last]
        mapped[part] = _read(counts, int(pfn[part[0]]), len(part))
        kind[part] = _read(flags, int(pfn[part[0]]), len(part))
    keep = sum(1 << bit for bit in FLAGS.values())
    state = np.stack([present, np.where(present, pfn - np.arange(len(pfn), dtype=np.uint64), 0), mapped,
                      kind & np.uint64(keep), entries >> np.uint64(55) & np.uint64(3)])
    same = (state[:, 1:] == state[:, :-1]).all(axis=0)
    is_head = kind & np.uint64(1 << HEAD) != 0
    same &= ~(is_head & (kind & np.uint64(1 << FLAGS["huge"] | 1 << FLAGS["thp"]) != 0))[1:]
    for first, last in _runs(same):
        if present[first]:
            names = ",".join(name for name, bit in FLAGS.items() if int(kind[first]) >> bit & 1)
            bits = int(entries[first]) >> 55
            print("P", hex(start + first * PAGE), last - first, pfn[first], f"map={mapped[first]}",
                  f"x={bits >> 1 & 1}", f"sd={bits & 1}", names or "-", file=out)
        else:
            for at in np.flatnonzero(entries[first:last] >> np.uint64(62) & np.uint64(1)):
                print("S", hex(start + (first + int(at)) * PAGE), hex(int(pfn[first + at])), file=out)


def _runs(same):
    """[first, last) of each run of items; same[i] says that item i + 1 belongs to the run of item i."""
    edges = np.flatnonzero(~same) + 1
    count = len(same) + 1
    return list(zip([0, *edges.tolist()], [*edges.tolist(), count]))


def _read(file, index, count):
    """`count` words of 64 bits from `index` on; zeros where the kernel returns fewer."""
    data = os.pread(file.fileno(), count * 8, index * 8)
    return np.frombuffer(data.ljust(count * 8, b"\0"), dtype="<u8")


def main():
    if len(sys.argv) != 2 or not sys.argv[1].isdecimal():
        sys.exit("usage: python3 -m hgmcore.importers.snapshot PID")
    try:
        snapshot(int(sys.argv[1]), sys.stdout)
    except OSError as error:
        sys.exit(f"hgmcore: error: {error.filename or 'snapshot'}: {error.strerror or error}")


if __name__ == "__main__":
    main()
