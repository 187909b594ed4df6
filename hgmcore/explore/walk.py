"""A random walk over machines that have too many states to search: real geometries, many processes, shmem and
anonymous memory. What it finds is made as short as can be; what it does not find is not proved."""

from __future__ import annotations

import random
import time

from hgmcore import options, schemes
from hgmcore.explore.observed import Ground, judged, preamble
from hgmcore.explore.properties import BY_NAME, promise
from hgmcore.explore.running import NotOnAKernel, sequence_of_walk
from hgmcore.shrink import shortest
from hgmcore.sizes import format_size
from hgmcore.trace import TraceError

K, M, G = 2**10, 2**20, 2**30
STEPS = 60
"""Of one sequence."""
SHRINKING = 20.0
"""Seconds for making one sequence shorter."""
PROCESSES = "ABDEFGHI"
HGM = ("shared minor hgm", "shared minor hgm", "shared minor wp hgm", "shared minor")
GROUNDS = (
    Ground("hugetlb", "x86-64", (("F", 2 * M, 4, ""), ("G", 1 * G, 1, "")), (4 * K, 8 * K, 64 * K, 2 * M), HGM),
    Ground("arm64", "arm64-4k", (("F", 2 * M, 3, ""), ("G", 32 * M, 2, "")), (4 * K, 64 * K, 2 * M), HGM),
    # Fewer pages than fill a table: processes that share a page table (huge_pmd_share) are one mapping to a count.
    Ground("tiny", "tiny-4c", (("F", 16 * K, 3, ""),), (4 * K, 8 * K, 16 * K), HGM),
    Ground("shmem", "x86-64", (("F", 2 * M, 3, "shmem"),), (4 * K, 64 * K, 2 * M), ("shared", "shared minor")),
    Ground("anon", "x86-64", (), (4 * K, 64 * K, 2 * M), ("private",), anon=True),
)


def sequence(rng: random.Random, ground: Ground, steps: int = STEPS) -> list[str]:
    """Random statements: names are declared before they are used, all else may be refused. A process has one mapping of
    a file, as what is promised of sharing counts processes."""
    mappings, lines, unborn = {"A": {}, "B": {}}, [], list(PROCESSES[2:])

    def place(length):
        size = rng.choice(ground.sizes)
        first = rng.choice((0, 0, rng.randrange(max(1, length // size)))) * size
        return first, min(size * rng.choice((1, 1, 1, 2)), length - first)

    def add_mapping(process):
        name = f"v{len(mappings[process])}"
        flags = rng.choice(ground.flags)
        if ground.anon:
            length, words = 4 * M, f"anon:2M 0 4M {flags}"
        else:
            file, size, pages, _ = ground.files[len(mappings[process])]
            length, words = size * pages, f"{file} 0 {format_size(size * pages)} {flags}"
        mappings[process][name] = length
        lines.append(f"mmap {process} {name} {words}")

    for process in mappings:
        add_mapping(process)
    families = ["touch"] * 6 + ["dontneed"] * 4 + ["collapse", "munmap", "migrate", "mmap", "fork", "exit"]
    if not ground.anon:
        families += ["continue"] * 8 + ["populate"] * 3 + ["punch", "truncate", "pin", "unpin", "register"]
    while len(lines) < steps and mappings:
        family, process = rng.choice(families), rng.choice(list(mappings))
        if family in ("populate", "pin", "unpin", "punch", "truncate"):
            file, size, pages, _ = rng.choice(ground.files)
            page = rng.randrange(pages)
            words = {"punch": f"{format_size(page * size)} {format_size(size)}", "truncate": format_size(page * size)}
            lines.append(f"{family} {file} {words.get(family, f'{page} 1')}")
        elif family == "mmap" and len(mappings[process]) < (3 if ground.anon else len(ground.files)):
            add_mapping(process)
        elif family == "fork" and unborn:
            child = unborn.pop(0)
            lines.append(f"fork {process} {child}")
            mappings[child] = dict(mappings[process])
        elif family == "exit" and len(mappings) > 1:
            lines.append(f"exit {process}")
            del mappings[process]
        elif family in ("touch", "dontneed", "collapse", "munmap", "migrate", "continue", "register"):
            name, length = rng.choice(list(mappings[process].items()))
            first, size = place(length)
            words = {
                "touch": format_size(first) + rng.choice(("", " write")),
                "migrate": f"{format_size(first)} {format_size(size)}" + rng.choice(("", " all")),
                "register": "minor",
            }
            lines.append(f"{family} {process} {name} "
                         + words.get(family, f"{format_size(first)} {format_size(size)}"))
    return lines


def shrunk(engine, ground: Ground, lines, name: str, given) -> list[str]:
    """Fewer statements that break the same property."""
    end = time.monotonic() + SHRINKING

    def fails(candidate):
        if time.monotonic() > end:
            return False
        try:
            return any(name in found for _, found in judged(engine, ground, candidate, given))
        except (TraceError, ValueError):    # a name that nothing declares any more
            return False

    return shortest(lines, fails)


def walk(which, seconds: float, seed: int = 0, grounds=GROUNDS, progress=None, **given) -> dict:
    """Walk for so long, schemes in turn: {scheme: {"sequences", "steps", "properties": {name: {"promise", "ground",
    "trace", "length", "number"}}}}. number: of the sequence; a seed and a number give a sequence.

    A KeyboardInterrupt ends it, and memory that runs out ("out_of_memory"). ValueError: an option or scheme that there
    is not.
    """
    engines = [schemes.load(scheme) for scheme in which]
    for engine in engines:
        options.resolve(engine, given)
    found = {engine.name: {"sequences": 0, "steps": 0, "properties": {}} for engine in engines}
    end, number, out_of_memory = time.monotonic() + seconds, 0, False
    try:
        while time.monotonic() < end:
            ground = grounds[number % len(grounds)]
            lines = sequence(random.Random(f"{seed} {number}"), ground)
            for engine in engines:
                if engine.whole_only and (ground.anon or ground.files[0][3] == "shmem"):
                    continue    # its promises are of hugetlb pages alone
                _one(found[engine.name], engine, ground, lines, number, given)
                if progress:
                    progress(found)
            number += 1
    except KeyboardInterrupt:
        pass
    except MemoryError:
        out_of_memory = True
    return {"format": "hgmcore-walk 1", "seed": seed, "options": given, "out_of_memory": out_of_memory,
            "schemes": found}


def _one(entry, engine, ground, lines, number, given):
    entry["sequences"] += 1
    for length, names in judged(engine, ground, lines, given):
        entry["steps"] += 1
        for name in sorted(names - entry["properties"].keys()):
            short = shrunk(engine, ground, lines[:length], name, given)
            statements = [*preamble(ground)[1:], *short]
            try:
                live = {"live": sequence_of_walk(ground.geometry, statements[1:], f"{engine.name}, a walk: {name}")}
            except NotOnAKernel as reason:
                live = {"not_live": str(reason)}
            kernel = live.get("not_live") or "hgmcore validate --live --sequence FILE.live.jsonl"
            words = "".join(f" --option {key}={value}" for key, value in given.items())
            entry["properties"][name] = {
                "promise": promise(engine, name),
                "ground": ground.name,
                "number": number,
                "length": len(short),
                "trace": "\n".join([
                    "hgmcore-trace 1",
                    f"# {name}: {BY_NAME[name].text}; scheme {engine.name}; found by a random walk",
                    f"# hgmcore replay FILE --scheme {engine.name}{words} --operations all",
                    f"# on a running kernel: {kernel}",
                    *statements]) + "\n",
                **live,
            }
