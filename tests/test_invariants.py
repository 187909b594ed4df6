"""What must hold after any sequence in which allocations fail, whatever the scheme counts.

When every process has exited, every file is truncated to nothing and pins are dropped, no huge page is left
but those that memory failure holds, nothing was freed while mapped and no count went below zero.
Not promised by
* subtree_posted: its signs for "counted" fail where a CONTINUE failed before, or base page 0 is not mapped;
  its references are right, so nothing leaks, but counts go below zero or stay;
* subtree: tables that a truncate, or with zap_frees_tables=no a zap, or with lookup_first=no a failed CONTINUE left
  behind are uncounted twice or never counted;
* logical_table: a page mapped where a truncated one was counts for that one. With rmap_aware=yes it is as the others;
* any scheme where references overflow: the sequences here do not pin that much.
logical_table holds a truncated page until its tables go, so tables are freed (exit) before pages are counted.
"""
import random

import pytest
from comparing import CoreMachine, plain
from model import SCHEMES, Model

K, M = 2**10, 2**20
FILES = {"F": (2 * M, 3), "L": (1024 * M, 1)}
MISCOUNTS = {"subtree_posted", "subtree"}
SAYS_MAPPED = set(SCHEMES) - {"per_page_posted", "subtree_posted", "subtree"}  # of every page with a leaf
# mapped only where a leaf exists: not those whose count stays with empty tables, or that do not look while CPUs count
SAYS_UNMAPPED = SAYS_MAPPED - {"logical_table", "percpu_ref"}
# "exclusive" never said of a page that two processes map: not the count of base page 0 alone, by which
SEES_SHARING = set(SCHEMES) - {"per_page_posted", "large_mapcount", "subtree_posted", "subtree"}  # maybe_shared may go
MOVES_NO_SHARED = SEES_SHARING - {"nr_pages_mapped", "double_map"}  # and mbind does


def sequence(seed, scheme, steps=60):
    """Statements that map, unmap, fork and fail at random; and those that undo everything."""
    pick = random.Random(seed)
    alive, processes = ["A", "B"], ["A", "B"]
    hgm = " hgm" if SCHEMES[scheme].hgm else ""
    lines = [f"file {name} {size} {pages}" for name, (size, pages) in FILES.items()]
    lines += ["populate F 0 2", "populate L 0 1"]
    for process in processes:
        lines += [f"mmap {process} v F 0 6M shared minor wp{hgm}",
                  f"mmap {process} w L 0 1G shared minor wp{hgm}"]
    for _ in range(steps):
        process, name = pick.choice(processes), pick.choice("vvw")
        huge = FILES["F" if name == "v" else "L"][0]
        at = pick.choice([0, 0, 4 * K, 2 * M - 4 * K, 2 * M, 2 * M + 4 * K])
        length = pick.choice([4 * K, 4 * K, 8 * K, 2 * M])
        if pick.random() < 0.25:
            lines.append(f"fail {pick.choice([1, 1, 2, 3])}")
        kind = pick.choice(["continue"] * 6 + [
            "fault", "fault", "dontneed", "dontneed", "collapse", "zap", "migrate", "fork", "exit", "munmap",
            "punch", "hwpoison", "move", "pin"])
        if kind in ("continue", "dontneed", "collapse"):
            lines.append(f"{kind} {process} {name} {at} {length}")
        elif kind in ("zap", "munmap", "migrate"):
            verb = {"zap": "dontneed"}.get(kind, kind)
            lines.append(f"{verb} {process} {name} 0 {huge}" + (" all" if kind == "migrate" else ""))
        elif kind == "fault":
            lines += [f"unregister {process} {name}", f"touch {process} {name} {at}",
                      f"register {process} {name} minor wp"]
        elif kind == "fork" and len(processes) < 5:
            child = f"D{len(processes)}"
            if process in alive:
                lines.append(f"fork {process} {child}")
                processes.append(child)
                alive.append(child)
        elif kind == "exit" and process in alive:
            alive.remove(process)
            lines.append(f"exit {process}")
        elif kind == "punch":
            lines.append(f"punch F {pick.choice([0, 2 * M])} 2M")
        elif kind == "hwpoison" and pick.random() < 0.3:
            lines.append(f"hwpoison {process} v {at}")  # 1G would take the model too long
        elif kind == "pin":
            lines += ["populate F 0 1", "pin F 0 2", f"dontneed {process} v 0 2M",
                      f"migrate {process} v 0 2M all", "unpin F 0 2"]
    undo = [f"exit {process}" for process in alive] + [f"truncate {name} 0" for name in FILES]
    return lines, undo


class Observed:
    """A model machine and hgmcore's behind the same methods."""

    def __init__(self, kind, scheme, options):
        self.core = CoreMachine(scheme, **options) if kind == "core" else None
        self.model = Model(scheme, **options) if kind == "model" else None

    def run(self, statement):
        return (self.core or self.model).run(statement)

    def observe(self):
        return plain(self.core.machine.observe()) if self.core else self.model.observe()

    def counters(self):
        if self.model:
            return self.model.counters()
        cost = self.core.machine.cost()
        return {name: cost[name] for name in ("underflows", "overflows")}

    def tables(self):
        cost = self.core.machine.cost() if self.core else self.model.cost()
        return cost["table_allocs"] - cost["table_frees"], cost["leaf_installs"] - cost["leaf_removes"]


def check_promises(scheme, folio):
    truth = folio["truth"]
    if scheme in SAYS_MAPPED:
        assert folio["mapped"] or not truth["leaves"]
    if scheme in SAYS_UNMAPPED:
        assert truth["leaves"] or not folio["mapped"]
    if scheme in SEES_SHARING:
        assert folio["maybe_shared"] or truth["processes"] < 2
    if scheme in MOVES_NO_SHARED:
        assert truth["processes"] < 2 or not folio["movable"]


@pytest.mark.parametrize("kind", ["model", "core"])
@pytest.mark.parametrize("scheme, options", [*((scheme, {}) for scheme in SCHEMES),
                                             ("logical_table", {"rmap_aware": "yes"})])
def test_nothing_is_left(kind, scheme, options):
    done, promises = 0, scheme != "logical_table" or options
    for seed in range(6):
        machine = Observed(kind, scheme, options)
        lines, undo = sequence(seed, scheme)
        for number, line in enumerate(lines):
            result = machine.run(line)
            done += result[0] is None
            if number % 8 == 7 and promises:
                for folio in machine.observe()["folios"]:
                    check_promises(scheme, folio)
        for line in undo:
            machine.run(line)
        seen = machine.observe()
        assert seen["freed_while_mapped"] == 0 and machine.tables() == (0, 0)
        for folio in seen["folios"]:  # memory failure keeps the page
            assert folio["refcount"] == folio["pins"] and folio["pins"] > 0
        if scheme not in MISCOUNTS:
            assert machine.counters() == {"underflows": 0, "overflows": 0}
            assert not any(folio["mapped"] or folio["mapcount"] for folio in seen["folios"])
    assert done > 200, "most sequences do something"


# Of the statements until one leaf is refused: how the option looks at the count, how many references fit.
LIMITS = {"after": 2**31 - 1, "try": 2**31, "half": 2**30}
FIRST_REFUSED = {"after": ("EFAULT", "EFAULT"), "try": ("EFAULT", "EFAULT"), "half": ("ENOMEM", "EFAULT")}


@pytest.mark.parametrize("check", LIMITS)
@pytest.mark.parametrize("cache_refs", ["1", "folio"])
@pytest.mark.parametrize("size, piece", [("2M", "4K"), ("1G", "2M"), ("1G", "4K")])
@pytest.mark.parametrize("scheme", ["head_per_leaf", "nr_pages_mapped", "subtree", "total_mapped_pages"])
def test_first_leaf_refused(replay, check, cache_refs, size, piece, scheme):
    """With room for three references, the fourth leaf is refused, by CONTINUE and by a fault."""
    cache = 1 if cache_refs == "1" else {"2M": 512, "1G": 512 * 512}[size]
    step = {"4K": 4096, "2M": 2 * M}[piece]
    text = [f"file F {size} 1", "populate F 0 1", f"mmap A v F 0 {size} shared minor hgm",
            f"pin F 0 {LIMITS[check] - cache - 3}"]
    text += [f"continue A v {i * step} {piece}" for i in range(5)]
    text += ["unregister A v", f"touch A v {5 * step}", "observe"]
    ran = replay("\n".join(text), scheme, overflow_check=check, cache_refs=cache_refs)
    by_continue, by_fault = FIRST_REFUSED[check]
    errors = [error for error, _, _ in ran.operations[4:9]]
    assert errors == [None, None, None, by_continue, by_continue]
    assert ran.operations[10][0] == by_fault
    (folio,) = ran.observations[0]["folios"]
    assert folio["truth"]["leaves"] == 3
    assert folio["refcount"] == (-2**31 if check == "try" else LIMITS[check])


@pytest.mark.parametrize("scheme", ["logical_scan", "logical_counter", "logical_table", "special_bit"])
def test_one_reference_for_all_pieces(replay, scheme):
    """The check looks at the count before it knows that no reference stays: once full it refuses all."""
    text = ["file F 2M 1", "populate F 0 1", "mmap A v F 0 2M shared minor hgm", f"pin F 0 {2**31 - 3}",
            "continue A v 0 4K", "continue A v 4K 4K"]
    ran = replay("\n".join(text), scheme, overflow_check="after")
    assert [error for error, _, _ in ran.operations[4:]] == [None, "EFAULT"]


def test_references_beyond_the_limit_are_overflows_whoever_takes_them(replay):
    text = ["file F 2M 1", "populate F 0 1", "mmap A v F 0 2M shared", f"pin F 0 {2**31 - 2}",
            "hwpoison A v 0", "hwpoison A v 4K", "observe"]
    ran = replay("\n".join(text), "head_per_leaf")
    folio = ran.observations[0]["folios"][0]
    assert (folio["pins"], folio["expected_refs"], folio["refcount"]) == (2**31, 2**31 + 1, 1 - 2**31)
    assert ran.counters["overflows"] == 1


@pytest.mark.parametrize("access", ["", " write"])
@pytest.mark.parametrize("check", LIMITS)
def test_a_private_fault_is_refused_as_any_other(replay, check, access):
    """With room for one reference."""
    text = ["file F 2M 1", "populate F 0 1", "mmap A v F 0 2M private", "mmap B v F 0 2M private",
            f"pin F 0 {LIMITS[check] - 2}", "touch A v 0", f"touch B v 0{access}"]
    ran = replay("\n".join(text), "head_per_leaf", overflow_check=check)
    assert [error for error, _, _ in ran.operations[5:]] == [None, "EFAULT"]


@pytest.mark.parametrize("check, model, transient, leaked", [
    ("after", "default", 2, 0), ("after", "posted", 0, 1), ("try", "default", 0, 0), ("half", "default", 2, 0)])
@pytest.mark.parametrize("access", ["continue A v 0 4K", "unregister A v; touch A v 0"])
def test_what_a_refused_look_up_took(replay, check, model, transient, leaked, access):
    """A reference, put back or (as posted) forgotten; `try` looks before it takes one."""
    text = ["file F 2M 1", "populate F 0 1", "mmap A v F 0 2M shared minor hgm",
            f"pin F 0 {2**31 - 2 + (check == 'try')}", "observe", *access.split("; "), "observe"]
    ran = replay("\n".join(text), "head_per_leaf", overflow_check=check, model=model)
    before, after = (seen["folios"][0]["refcount"] for seen in ran.observations)
    assert ran.operations[-2][0] == ("ENOMEM" if check == "half" and "continue" in access else "EFAULT")
    assert (ran.cost["atomics"]["transient"], (after - before) % 2**32) == (transient, leaked)


# References before a fork that copies three pieces, at most: how many it adds before it looks the last time
# (one for each leaf, or one for all), and the largest count that it may find then.
@pytest.mark.parametrize("check, most, error", [("after", 2**31 - 1, "EFAULT"), ("try", 2**31 - 1, "EFAULT"),
                                                ("half", 2**30 - 1, "ENOMEM")])
@pytest.mark.parametrize("cache_refs", ["1", "folio"])
@pytest.mark.parametrize("scheme, held, added", [
    *((scheme, 3, 2) for scheme in ("head_per_leaf", "nr_pages_mapped", "subtree", "double_map", "mm_id", "per_vma")),
    *((scheme, 1, 1) for scheme in ("logical_scan", "logical_table", "logical_counter", "special_bit"))])
def test_fork_is_refused_as_a_whole(replay, check, most, error, cache_refs, scheme, held, added):
    for more, expected in ((0, None), (1, error)):
        pins = most - added + more - held - (1 if cache_refs == "1" else 512)
        text = ["file F 2M 1", "populate F 0 1", "mmap A v F 0 2M shared minor wp hgm", "continue A v 4K 12K",
                f"pin F 0 {pins}", "observe", "fork A B", "observe"]
        ran = replay("\n".join(text), scheme, overflow_check=check, cache_refs=cache_refs)
        assert ran.operations[-2][0] == expected
        before, after = (seen["folios"] for seen in ran.observations)
        assert (before == after) == bool(more)
