"""Options of importers of system calls and page faults, which make a trace of the processes as they are, or a guest."""

from __future__ import annotations

from typing import NamedTuple

from hgmcore.sizes import quoted


class Option(NamedTuple):
    """A keyword of an importer's `read`."""

    name: str
    default: object
    help: str


GUEST = (
    Option("page_size", "1G", "huge page that the guest's memory is mapped from"),
    Option("piece", "4K", "what a first touch maps"),
    Option("background", "0", "pieces that a background stream brings for each piece that is touched; "
                                        "0: only what is touched comes"),
    Option("later", "drop", "what becomes of a touch of a piece that is there: drop, or touch"),
    Option("observations", 8, "observations before the one at the end, evenly spaced"),
    Option("geometry", "x86-64", "page tables to map with"),
)
"""What every importer that can make a guest takes, and hands to Guest as keywords."""

OPTIONS = (
    Option("kinds", "hugetlb,shmem,anon", "memory to take: any of hugetlb (MAP_HUGETLB, hugetlbfs, "
                     "MFD_HUGETLB, SHM_HUGETLB), shmem (memfd, /dev/shm, shared anonymous), anon (private anonymous)"),
    Option("hugetlb", "2M", "size of hugetlb pages where a recording does not tell it"),
    Option("folio", "2M", "size of the folios of shmem and anon memory, which no recording tells; what is "
                                    "smaller is of base pages"),
    Option("geometry", "x86-64", "page tables to map with"),
)

WAYS = (
    Option("as", "touch", "touch: all processes as they are; guest: a postcopied guest that runs them"),
    *(Option(option.name, option.default, f"as=touch: {option.help}") for option in OPTIONS[:-1]),
    *(Option(option.name, option.default, f"as=guest: {option.help}") for option in GUEST
      if option.name not in ("observations", "geometry")),
    Option("observations", 8, "observations, evenly spaced; as=guest has one more at the end"),
    OPTIONS[-1],
)
"""Options of importers that give either."""

OF_TOUCH = (*(option.name for option in OPTIONS), "observations")
OF_GUEST = tuple(option.name for option in GUEST)


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
