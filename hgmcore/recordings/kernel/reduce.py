"""Make the recordings of this directory: python reduce.py RECORDING.jsonl..

Leaves out what differs from run to run (times, frame numbers, the system's memory, the process's other memory) and
what pages are called (page flags); says where a recording comes from. See README.md.
"""

import hashlib
import io
import json
import lzma
import os
import sys
from pathlib import Path

from hgmcore.importers.kernel_recording import read_records

REGION = ("map", "mapcount", "phys", "excl", "smaps", "vmas")
RECORDED = "November 2026, from pagemap, PAGEMAP_SCAN, kpagecount and smaps"
MACHINES = {
    "6.18": "KVM guest with 2 CPUs; per-page map counts and owner tracking (CONFIG_PAGE_MAPCOUNT, CONFIG_MM_ID)",
    "6.12": "Debian's kernel in a KVM guest with 2 NUMA nodes; per-page map counts",
}


def reduced(record, digest):
    """A record without what is left out; digest: sha256 of the file that it stands in."""
    if record["t"] == "scenario":
        machine = next(text for version, text in MACHINES.items() if record["kernel"].startswith(version))
        return {**record, "machine": machine, "recorded": RECORDED,
                "licence": "that of hgmcore", "reduced_from_sha256": digest}
    if record["t"] == "op":
        return {key: value for key, value in record.items() if key not in ("ns", "features")}
    if record["t"] == "obs":
        procs = {name: {"regions": {region: {key: seen[key] for key in REGION}
                                    for region, seen in process["regions"].items()},
                        "status_delta": {"VmPTE": process["status_delta"]["VmPTE"]}}
                 for name, process in record["procs"].items()}
        files = {name: {key: seen[key] for key in ("phys", "mapcount")} for name, seen in record["files"].items()}
        return {"t": "obs", "i": record["i"], "procs": procs, "files": files}
    return record


def main(paths):
    for path in paths:
        data = Path(path).read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        lines = [json.dumps(reduced(record, digest), separators=(",", ":")) + "\n"
                 for record in read_records(io.BytesIO(data), path)]
        target = Path(__file__).parent / (os.path.basename(path) + ".xz")
        target.write_bytes(lzma.compress("".join(lines).encode(), preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    main(sys.argv[1:])
