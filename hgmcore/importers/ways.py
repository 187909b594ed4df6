"""Options of importers of system calls and page faults, which make a trace of the processes as they are, or a guest."""

from __future__ import annotations

from hgmcore import importers
from hgmcore.importers import guest
from hgmcore.sizes import quoted

OPTIONS = (
    importers.Option("kinds", "hugetlb,shmem,anon", "memory to take: any of hugetlb (MAP_HUGETLB, hugetlbfs, "
                     "MFD_HUGETLB, SHM_HUGETLB), shmem (memfd, /dev/shm, shared anonymous), anon (private anonymous)"),
    importers.Option("hugetlb", "2M", "size of hugetlb pages where a recording does not tell it"),
    importers.Option("folio", "2M", "size of the folios of shmem and anon memory, which no recording tells; what is "
                                    "smaller is of base pages"),
    importers.Option("geometry", "x86-64", "page tables to map with"),
)

WAYS = (
    importers.Option("as", "touch", "touch: all processes as they are; guest: a postcopied guest that runs them"),
    *(importers.Option(option.name, option.default, f"as=touch: {option.help}") for option in OPTIONS[:-1]),
    *(importers.Option(option.name, option.default, f"as=guest: {option.help}") for option in guest.OPTIONS
      if option.name not in ("observations", "geometry")),
    importers.Option("observations", 8, "observations, evenly spaced; as=guest has one more at the end"),
    OPTIONS[-1],
)
"""Options of importers that give either."""

OF_TOUCH = (*(option.name for option in OPTIONS), "observations")
OF_GUEST = tuple(option.name for option in guest.OPTIONS)


def way_of(given, default="touch") -> tuple[str, dict]:
    """(what `as` is, the options `given` that mean something then). Raises ValueError for one that means nothing."""
    way = given.get("as", default)
    if way not in ("touch", "guest"):
        raise ValueError(f"as: {quoted(way)} is not one of touch, guest")
    unused = set(OF_TOUCH) - set(OF_GUEST) if way == "guest" else set(OF_GUEST) - set(OF_TOUCH)
    for option in WAYS:
        if option.name in unused and str(given.get(option.name, option.default)) != str(option.default):
            raise ValueError(f"{option.name}: means nothing with as={way}")
    return way, {name: value for name, value in given.items() if name != "as" and name not in unused}
