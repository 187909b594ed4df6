"""The processor that this program runs on, as /proc and /sys show it: names, caches, how far CPUs are from another."""

from __future__ import annotations

import os
import platform
from pathlib import Path

CPUS = Path("/sys/devices/system/cpu")


def first_line(path) -> str | None:
    """The first line of a file, None where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()[0].strip()
    except (OSError, IndexError):
        return None


def cpu_list(text) -> set:
    """ "0-3,8" as a set of numbers."""
    found = set()
    for part in filter(None, (text or "").split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def cache(cpu: int, level: int, what: str) -> str | None:
    """ "size" or "shared_cpu_list" of a CPU's data or unified cache of a level."""
    for index in sorted((CPUS / f"cpu{cpu}/cache").glob("index*")):
        if first_line(index / "level") == str(level) and first_line(index / "type") in ("Data", "Unified"):
            return first_line(index / what)
    return None


def cache_bytes(cpu: int, level: int) -> int | None:
    """Bytes of a cache, None where /sys does not say."""
    text = cache(cpu, level, "size")
    if not text or not text[:-1].isdigit():
        return None
    return int(text[:-1]) << {"K": 10, "M": 20, "G": 30}.get(text[-1], 0)


def distance(one: int, other: int) -> str:
    """How far two CPUs are from each other, one of profile.DISTANCES, as far as /sys shows it."""
    topology = [CPUS / f"cpu{cpu}/topology" for cpu in (one, other)]
    if other in cpu_list(first_line(topology[0] / "thread_siblings_list")):
        return "sibling"
    if other in cpu_list(cache(one, 3, "shared_cpu_list")):
        return "l3"
    sockets = [first_line(path / "physical_package_id") for path in topology]
    return "socket" if sockets[0] == sockets[1] else "remote"


def pairs(cpus) -> dict:
    """{distance: (CPU, CPU)}, one pair for each distance that there is, the first CPU in each."""
    first, *others = sorted(cpus)
    found = {}
    for other in others:
        found.setdefault(distance(first, other), (first, other))
    return found


def cpuinfo() -> dict:
    """The fields of the first processor in /proc/cpuinfo."""
    found = {}
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return found
    for line in lines:
        key, _, value = line.partition(":")
        if not line.strip():
            break
        found[key.strip()] = value.strip()
    return found


def processor(cpus) -> dict:
    """What a profile says of the processor; l2_bytes is 1 MiB where /sys does not say."""
    info, first = cpuinfo(), min(cpus)
    flags = info.get("flags", info.get("Features", "")).split()
    model = info.get("model name", platform.processor() or platform.machine())
    return {"vendor": info.get("vendor_id", platform.machine()), "model": model,
            "cpus": os.cpu_count() or len(cpus), "l2_bytes": cache_bytes(first, 2) or 1 << 20,
            "virtual": "hypervisor" in flags, "kernel": platform.release()}
