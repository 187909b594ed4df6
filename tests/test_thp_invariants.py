"""What must hold of shmem and anonymous memory after any sequence in which allocations fail, whatever is counted.

When every process has exited, every file is truncated to nothing and pins are dropped, no folio and no page table is
left, nothing was freed while mapped and no count went below zero; subtree_posted promises this of references alone.
"""
import random

import pytest
from comparing import replay_in_core
from model import SCHEMES
from test_invariants import MISCOUNTS, check_promises

K, M = 2**10, 2**20
EXACT = {"mm_id", "rmap_id", "nr_pages_mapped", "large_mapcount", "double_map"}  # each base page's own count
MAPPINGS = {"v": "F 0 4M shared minor", "u": "F 4K 3M shared", "h": "H 0 2M shared minor wp",
            "a": "anon:2M 0 4M private", "s": "anon:4K 0 2M private"}
OPERATIONS = (["continue"] * 4 + ["read"] + ["write"] * 3 + ["dontneed"] * 3 + ["collapse"] * 2
              + ["munmap", "mprotect", "fork", "exit", "punch", "truncate", "move", "grow", "pin"])


def sequence(seed, steps=120):
    """Statements at random, with observations among them; and what undoes everything."""
    pick = random.Random(seed)
    alive, processes, moved = ["A", "B"], ["A", "B"], 0
    lines = ["file F 2M 2 shmem", "file H 4K 512 shmem", "populate F 0 2", "populate H 0 64"]
    lines += [f"mmap {process} {name} {what}" for process in processes for name, what in MAPPINGS.items()]
    for number in range(steps):
        process, name = pick.choice(alive or ["A"]), pick.choice("vvuhaaas")
        at = pick.choice([0, 4 * K, 64 * K, 1020 * K, 2 * M - 4 * K, 2 * M, 2 * M + 8 * K])
        length = pick.choice([4 * K, 4 * K, 64 * K, 1 * M, 2 * M, 4 * M])
        kind = pick.choice(OPERATIONS)
        if pick.random() < 0.1:
            lines.append(f"fail {pick.choice([1, 1, 2, 3])}")
        if kind in ("continue", "dontneed", "munmap", "collapse"):
            length = min(length, 64 * K) if kind == "munmap" else length
            lines.append(f"{kind} {process} {name} {at} {length}")
        elif kind in ("read", "write"):
            lines.append(f"touch {process} {name} {at}" + (" write" if kind == "write" else ""))
        elif kind == "mprotect":
            lines += [f"mprotect {process} {name} {at} {length} {rights}"
                      for rights in pick.choice((["r"], ["r", "rw"], ["rw"]))]
        elif kind == "fork" and len(processes) < 6 and alive:
            child = f"D{len(processes)}"
            lines.append(f"fork {process} {child}")
            processes.append(child)
            alive.append(child)
        elif kind == "exit" and len(alive) > 1:
            alive.remove(process)
            lines.append(f"exit {process}")
        elif kind == "punch":
            where, length = pick.choice([0, 4 * K, 400 * K, M]), pick.choice([4 * K, 70000, M])
            lines.append(f"punch {pick.choice('FFH')} {where} {length}")
        elif kind == "truncate":
            lines += [f"truncate F {pick.choice([0, 5000, M, 3 * M])}", "truncate F 4M"]
        elif kind == "move":
            moved += 1
            lines.append(f"mremap {process} {name} {at} {pick.choice([4 * K, 64 * K, M, 2 * M])} m{moved}")
        elif kind == "grow":
            lines.append(f"mremap {process} {name} {pick.choice([M, 3 * M, 6 * M])}")
        elif kind == "pin":
            lines += ["pin F 0 2", "punch F 400K 4K", f"collapse {process} {name} 0 2M", "unpin F 0 2"]
        if number % 10 == 9:
            lines.append("observe")
    undo = [f"exit {process}" for process in alive] + ["truncate F 0", "truncate H 0", "observe"]
    return "\n".join(lines + undo)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_left(scheme, seed):
    around = ("none", "16", "folio")[seed]
    ran = replay_in_core(sequence(seed), scheme, fault_around=around, batch="yes" if seed == 1 else "no")
    assert sum(error is None for error, _, _ in ran.operations) > 60, "most sequences do something"
    for seen in ran.observations:
        assert seen["freed_while_mapped"] == 0
        for folio in seen["folios"]:
            if folio["pages"] == 1:
                assert folio["page_mapcount"] == [(0, 1, folio["truth"]["leaves"])]
            elif scheme in EXACT:
                assert folio["page_mapcount"] == folio["truth"]["page_mapcount"]
            check_promises(scheme, folio)
    last, cost = ran.observations[-1], ran.cost
    assert last["folios"] == [] and all(sum(row["page_tables"].values()) == 0 for row in last["processes"])
    assert cost["leaf_installs"] == cost["leaf_removes"] and cost["table_allocs"] == cost["table_frees"]
    if scheme not in MISCOUNTS:
        assert ran.counters == {"underflows": 0, "overflows": 0}
