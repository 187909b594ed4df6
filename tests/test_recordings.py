"""The recordings that ship: what they hold, against what their recorders counted, and that they run."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hgmcore import compare, recordings
from hgmcore.analysis.errors import apart
from hgmcore.trace.statements import CODES, NAMES

LIMIT = 5 << 20  # bytes of all of them


def counts(trace):
    return Counter(NAMES[op] for op in trace.operations["op"])


def test_all_are_listed_and_small():
    folder = Path(recordings.__file__).parent
    assert {path.stem for path in folder.glob("*.parquet")} == set(recordings.NAMES)
    assert sum(path.stat().st_size for path in folder.glob("*.parquet")) < LIMIT
    assert len({recording.description for recording in recordings.RECORDINGS}) == len(recordings.NAMES)


@pytest.mark.parametrize("name", recordings.NAMES)
def test_provenance(name):
    provenance = recordings.provenance(name)
    assert provenance == recordings.load(name).header.provenance
    for key in ("recorder", "recorded", "importer", "options", "source", "counts"):
        assert provenance[key]
    assert provenance["licence"].startswith("BSD-3-Clause") and "no memory contents" in provenance["licence"]
    assert len(provenance["source_sha256"]) == 64


def test_balloon():
    trace = recordings.load("qemu-balloon_redis_4k")
    # 98,304 one-page discards; 196,608 addresses of pages, half of which go in and half come back.
    assert counts(trace) == {"continue": 1 << 18, "dontneed": 98_304, "touch": 98_304, "observe": 9, "file": 1,
                             "populate": 1, "mmap": 1, "split": 1, "unregister": 1, "collapse": 1}
    taken, back = (np.unique(trace.operations["offset"][trace.operations["op"] == CODES[op]])
                   for op in ("dontneed", "touch"))
    assert len(taken) == 98_304 and np.array_equal(taken, back)
    assert trace.header.files[0][1:3] == (1 << 30, 1)


def test_postgres():
    trace = recordings.load("postgres_hugepages_pgbench")
    touches = trace.operations[trace.operations["op"] == CODES["touch"]]
    # 1,785 faults of user space and 282 within the kernel, by 96 processes, on 90 huge pages.
    assert len(touches) == 1785 + 282
    assert len(np.unique(touches["offset"] >> np.uint64(21))) == 90
    assert len(np.unique(touches["target"])) == len(trace.header.processes) == 96
    assert counts(trace)["fork"] == 95 and trace.header.files[0][:2] == ("hugetlb", 2 << 20)


def test_python_fork_pool():
    trace = recordings.load("python_fork_pool")
    assert counts(trace)["touch"] == 45_642 and counts(trace)["fork"] == 3
    assert len(trace.header.processes) == 4 and {file.kind for file in trace.header.files} == {"anon"}


# Writes to stacks of threads, which are mapped without rights: their recorder saw no mprotect.
REFUSED = {"python_fork_pool": 16}


@pytest.mark.parametrize("name", recordings.NAMES)
def test_every_recording_runs(name):
    result = compare(recordings.load(name), schemes="mm_id,logical_counter", repeat=0)
    for scheme, found in result["schemes"].items():
        assert sum(found["refused"].values()) == REFUSED.get(name, 0), scheme
        assert not {"leaked_folios", "counter_underflows"} & found["errors"]["own"].keys()
    assert "page_mapcount_wrong_pages" not in result["schemes"]["mm_id"]["errors"]["per_page"]


def test_shares_of_many_processes_add_up_without_an_error():
    """Fractions of a page for each of up to 96 processes, summed in another order than the truth's."""
    result = compare(recordings.load("postgres_hugepages_pgbench"), "hugetlb,mm_id", repeat=0)
    assert not any("pss_error_bytes" in scheme["errors"]["consequences"] for scheme in result["schemes"].values())
    assert apart(2048.0, 1365.0 + 1 / 3) > 682
