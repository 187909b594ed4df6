"""Recordings of real programs that ship with the package, as binary traces.

Each trace's provenance says how it was recorded and imported, from which file, and under which licence it is
given; `provenance` reads it without the trace.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from hgmcore.sizes import quoted
from hgmcore.trace import Trace, binary


class Recording(NamedTuple):
    """name: as in recording:NAME. description: one line."""

    name: str
    description: str

    @property
    def path(self) -> Path:
        """The binary trace."""
        return Path(__file__).parent / f"{self.name}.parquet"


RECORDINGS = (
    Recording("qemu-postcopy_redis_4k",
              "QEMU postcopy migration of a 1G guest that runs redis: 257,561 pages, 579 of them waited for"),
    Recording("qemu-balloon_redis_4k",
              "QEMU balloon in a 1G guest that runs redis: 98,304 pages of 4K taken one by one, and given back"),
    Recording("postgres_hugepages_pgbench",
              "PostgreSQL on hugetlb pages under pgbench: 96 processes share 90 huge pages, by 95 forks"),
    Recording("python_fork_pool",
              "Python with a pool of three forked workers, on anonymous memory: 45,642 page faults"),
)
NAMES = tuple(recording.name for recording in RECORDINGS)
DEFAULT = "qemu-postcopy_redis_4k"


def find(name: str) -> Recording:
    """The Recording called `name`. ValueError lists the known names."""
    if name not in NAMES:
        raise ValueError(f"unknown recording {quoted(name)} (known: {', '.join(NAMES)})")
    return RECORDINGS[NAMES.index(name)]


def load(name: str) -> Trace:
    """The Trace of recording `name`. ValueError for an unknown name; ImportError without pyarrow."""
    trace = Trace.load(find(name).path)
    trace.name = f"recording:{name}"
    return trace


def provenance(name: str) -> dict[str, str]:
    """Where recording `name` comes from."""
    return binary.read_header(find(name).path).provenance
