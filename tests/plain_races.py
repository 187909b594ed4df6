"""Every interleaving of two operations on one huge page of two base pages in one process, in plain Python.

An operation is a program: a list of instructions, each of which is one access, one lock taken, or bookkeeping that no
other thread can see. Written from the kernel's steps; shares nothing with the compiled core.
"""

from __future__ import annotations

import copy

EFAULT, EEXIST, EINVAL = "EFAULT", "EEXIST", "EINVAL"
NONE, LEAF = 0, "leaf"


class Shared:
    """Cache, counts, the hstate-level entry (NONE, LEAF, or a table's number), tables, and who holds which lock."""

    def __init__(self):
        self.cached, self.ref, self.map, self.entry, self.tables, self.locks = False, 0, 0, NONE, [], []

    def key(self):
        return (self.cached, self.ref, self.map, self.entry, tuple(map(tuple, self.tables)), tuple(self.locks))

    def outcome(self):
        mapped = self.entry if self.entry in (NONE, LEAF) else tuple(self.tables[self.entry - 1])
        return self.cached, self.ref, self.map, mapped


def access(do):
    return ("access", do)


def quiet(do):
    """Bookkeeping that goes with the access before it."""
    return ("quiet", do)


def take(cls, of, how):
    return ("take", (cls, of, how))


def drop(cls):
    return ("drop", cls)


def add(word, by):
    return access(lambda s, r: setattr(s, word, getattr(s, word) + by))


class Program:
    """Instructions and labels. An instruction's function may return a label to go on at."""

    def __init__(self):
        self.code, self.labels = [], {}

    def label(self, name):
        self.labels[name] = len(self.code)

    def __iadd__(self, instructions):
        self.code += instructions
        return self


def table_of(r):
    return r["table"]


def map_page(page, scheme, lookup_first):
    """UFFDIO_CONTINUE of base page `page`, or of the whole huge page (None)."""
    p = Program()

    def look_up(s, r):
        if not s.cached:
            return fail(r, EFAULT, "end")
        s.ref += 1
        return None

    def fail(r, error, label):
        r["error"] = error
        return label

    def walk(s, r):
        r["table"] = s.entry
        return {NONE: "allocate", LEAF: "walked"}.get(s.entry, "walked")

    def again(s, r):
        return "unlock" if s.entry != NONE else None

    def hang(s, r):
        s.tables.append([NONE, NONE])
        s.entry = len(s.tables)

    p += [take("M", 0, "r"), access(lambda s, r: None), take("X", 0, "w"), take("V", 0, "r")]
    if lookup_first:
        p += [access(look_up)]
    p += [access(lambda s, r: r.__setitem__("was none", s.entry == NONE))]
    if page is not None:
        p.label("walk")
        p += [access(walk)]
        p.label("allocate")
        p += [take("T", "upper", "w"), access(again), access(hang)]
        p.label("unlock")
        p += [drop("T"), quiet(lambda s, r: "walk")]
    p.label("walked")
    if not lookup_first:
        p += [access(look_up)]
    if page is not None:
        p += [quiet(lambda s, r: fail(r, EEXIST, "put") if r["table"] == LEAF else None)]

    def read(s, r):
        there = s.entry if page is None else s.tables[r["table"] - 1][page]
        return fail(r, EEXIST, "unlock and put") if there != NONE else None

    def first(s, r):
        r["first"] = page is None or r["was none"]

    def scan(s, r):
        if s.entry == LEAF or s.entry != NONE and LEAF in s.tables[s.entry - 1]:
            r["first"] = False
        else:
            r["first"] = True

    def write(s, r):
        if page is None:
            s.entry = LEAF
        else:
            s.tables[r["table"] - 1][page] = LEAF

    p += [take("L", 0, "w"), access(lambda s, r: None if s.cached else fail(r, EFAULT, "put"))]
    p += [take("T", "upper" if page is None else table_of, "w"), access(read)]
    if scheme == "logical_scan":
        p += [quiet(first), quiet(lambda s, r: "write" if r["first"] else None), access(scan)]
    p.label("write")
    p += [access(write)]
    if scheme == "logical_scan":
        p += [quiet(lambda s, r: None if r["first"] else "unlock and put")]
    p += [add("map", 1), drop("T"), drop("L"), quiet(lambda s, r: "end")]    # the look-up's reference stays
    p.label("unlock and put")
    p += [drop("T")]
    p.label("put")
    p += [drop("L"), add("ref", -1)]
    p.label("end")
    return p


def zap(page, scheme):
    """MADV_DONTNEED of base page `page`, or of the whole huge page (None)."""
    p = Program()
    pages = (0, 1) if page is None else (page,)
    p += [take("M", 0, "r"), access(lambda s, r: r.__setitem__("removed", 0)), take("V", 0, "w"), take("I", 0, "w")]

    def whole_leaf(s, r):
        if s.entry == LEAF:
            r["error"] = EINVAL
            return "end"
        return None

    if page is not None:
        p += [access(whole_leaf)]
    p += [access(lambda s, r: "end" if s.entry == NONE else None)]

    def enter(s, r):
        r["table"] = s.entry
        return {NONE: "zapped", LEAF: "leaf"}.get(s.entry, "table")

    def clear(s, r):
        s.entry = NONE
        r["removed"] += 1

    p += [access(enter)]
    p.label("leaf")
    p += [take("T", "upper", "w")]

    def look(s, r):
        r["table"] = s.entry
        if s.entry == LEAF:
            return "unlock" if page is not None else None
        return "unlock" if s.entry == NONE else "unlock for table"

    def clear_page(i):
        def do(s, r):
            s.tables[r["table"] - 1][i] = NONE
            r["removed"] += 1
        return do

    per_leaf = [add("map", -1), add("ref", -1)] if scheme == "head_per_leaf" else []
    p += [access(look), access(clear), *per_leaf]
    p.label("unlock")
    p += [drop("T"), quiet(lambda s, r: "zapped")]
    p.label("unlock for table")
    p += [drop("T")]
    p.label("table")
    for i in pages:
        p += [take("T", table_of, "w"),
              access(lambda s, r, i=i: None if s.tables[r["table"] - 1][i] == LEAF else f"next {i}"),
              access(clear_page(i)), *per_leaf]
        p.label(f"next {i}")
        p += [drop("T")]
    p.label("zapped")
    if scheme == "logical_scan":
        p += [quiet(lambda s, r: "end" if r["removed"] == 0 else None)]
        if page is not None:
            p += [access(lambda s, r: "end" if s.entry == LEAF or s.entry and LEAF in s.tables[s.entry - 1] else None)]
        p += [add("map", -1), add("ref", -1)]
    p.label("end")
    return p


class Thread:
    def __init__(self, program):
        self.program, self.at, self.r = program, 0, {"error": None}

    def key(self):
        return self.at, tuple(sorted(self.r.items(), key=str))


def lock_wanted(thread, locks):
    """The lock that a thread takes next, if it is one of those in force."""
    kind, what = thread.program.code[thread.at]
    if kind == "take" and what[0] in locks:
        cls, of, how = what
        return cls, of(thread.r) if callable(of) else of, how
    return None


def step(shared, threads, number, locks):
    """Let a thread do its next access or take its next lock, and what goes with it. False: it has to wait."""
    thread = threads[number]
    wanted = lock_wanted(thread, locks)
    if wanted:
        for owner, cls, of, how in shared.locks:
            if owner != number and (cls, of) == wanted[:2] and "w" in (how, wanted[2]):
                return False
        shared.locks.append((number, *wanted))
        thread.at += 1
    else:
        execute(shared, thread)
    settle(shared, thread, number, locks)
    return True


def execute(shared, thread):
    _, do = thread.program.code[thread.at]
    label = do(shared, thread.r)
    thread.at = thread.at + 1 if label is None else thread.program.labels[label]


def settle(shared, thread, number, locks):
    """Go on to the next access or lock."""
    code = thread.program.code
    while thread.at < len(code):
        kind, what = code[thread.at]
        if kind == "drop":
            held = [lock for lock in shared.locks if lock[:2] == (number, what)]
            if held:
                shared.locks.remove(held[-1])
            thread.at += 1
        elif kind == "quiet":
            execute(shared, thread)
        elif kind == "take" and what[0] not in locks:
            thread.at += 1
        else:
            return
    shared.locks = [lock for lock in shared.locks if lock[0] != number]


def alone(shared, program):
    thread = Thread(program)
    settle(shared, thread, 0, "")
    while thread.at < len(program.code):
        step(shared, [thread], 0, "")
    return thread.r["error"]


def outcomes(shared, programs, locks):
    """All that two programs can come to under the locks of `locks` (letters): {(error, error, Shared.outcome())}."""
    threads = [Thread(program) for program in programs]
    for number, thread in enumerate(threads):
        settle(shared, thread, number, locks)
    seen, queue, found = set(), [(shared, threads)], set()
    while queue:
        shared, threads = queue.pop()
        if all(thread.at == len(thread.program.code) for thread in threads):
            found.add((*(thread.r["error"] for thread in threads), shared.outcome()))
            continue
        for number in range(2):
            if threads[number].at == len(threads[number].program.code):
                continue
            after = copy.deepcopy(shared)
            both = [copy.copy(thread) for thread in threads]
            both[number].r = dict(threads[number].r)
            if step(after, both, number, locks):
                key = (after.key(), *(thread.key() for thread in both))
                if key not in seen:
                    seen.add(key)
                    queue.append((after, both))
    return found
