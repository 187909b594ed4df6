"""Address spaces and mapping calls, against a dict from page to what lies there."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hgmcore.importers.linux import MAP_ANONYMOUS, MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE
from hgmcore.importers.processes.accesses import PAGE
from hgmcore.importers.processes.calls import PERMISSIONS, Calls
from hgmcore.importers.processes.mapper import File
from hgmcore.importers.report import Report
from hgmcore.trace.statements import NAMES, NO_ARG

BASE, PAGES = 0x7f0000000000, 24
BOTH = PROT_READ | PROT_WRITE

page, count = st.integers(0, PAGES - 1), st.integers(1, 8)
step = st.one_of(
    st.tuples(st.just("mmap"), page, count, st.sampled_from([MAP_PRIVATE, MAP_SHARED])),
    st.tuples(st.just("file"), page, count, st.integers(0, 3)),
    st.tuples(st.just("other"), page, count, st.just(0)),
    st.tuples(st.just("munmap"), page, count, st.just(0)),
    st.tuples(st.just("mremap"), page, count, st.tuples(count, page)),
    st.tuples(st.just("fork"), page, count, st.just(0)),
    st.tuples(st.just("exec"), page, count, st.just(0)),
)


class Pages:
    """The contents of each page of a process: (file, page of the file); each anonymous mapping is a file of its own."""

    def __init__(self, at=None):
        self.at = dict(at or {})

    def put(self, first, what):
        for number, value in enumerate(what):
            self.at[first + number] = value

    def take(self, first, count):
        return [self.at.pop(first + number, None) for number in range(count)]


def replayed(trace):
    """process -> mapping -> page -> its contents, computed from the statements of a trace alone."""
    header, processes, sequence = trace.header, {}, 0
    for offset, length, target, arg, op, flags in trace.operations.tolist():
        name = NAMES[op]
        pages = range(offset // PAGE, (offset + length) // PAGE)
        if name in ("mmap", "munmap", "mremap"):
            mapping = header.mappings[target]
            mine = processes.setdefault(header.processes[mapping.process], {})
        if name == "mmap":
            assert not mine.get(mapping.name), "a name is given again while its mapping is there"
            sequence += 1
            kind = header.files[arg].kind
            mine[mapping.name] = {at: (("anon", sequence) if kind == "anon" else ("file", arg), at + offset // PAGE)
                                  for at in range(length // PAGE)}
        elif name == "munmap":
            for at in pages:
                del mine[mapping.name][at]
        elif name == "mremap" and arg == NO_ARG:
            last = max(mine[mapping.name])
            what, number = mine[mapping.name][last]
            if what[0] == "anon":
                sequence += 1
                what = "anon", sequence  # new memory
            for at in range(last + 1, length // PAGE):
                mine[mapping.name][at] = what, number + at - last
        elif name == "mremap":
            moved = header.mappings[arg].name
            assert not mine.get(moved)
            mine[moved] = {at - pages[0]: mine[mapping.name].pop(at) for at in pages}
        elif name == "fork":
            parent = processes[header.processes[target]]
            processes[header.processes[arg]] = {key: dict(value) for key, value in parent.items()}
        elif name == "exit":
            del processes[header.processes[target]]
    return processes


@settings(max_examples=150)
@given(st.lists(step, max_size=25))
def test_every_page_is_where_it_was_mapped(steps):
    calls = Calls(Report("test", "log"), folio="4K")
    spaces, sequence = {1: Pages()}, 0
    file = File("f", "shmem")
    for what, first, length, more in steps:
        key = max(spaces)
        space, model, start = calls.space(key), spaces[key], BASE + first * PAGE
        sequence += 1
        if what == "mmap":
            calls.mmap(space, start, length * PAGE, BOTH, more | MAP_ANONYMOUS, -1, 0)
            kind = "anon" if more == MAP_PRIVATE else "shm"
            model.put(first, [((kind, sequence), at) for at in range(length)])
        elif what == "file":
            calls.attach(space, start, length * PAGE, PERMISSIONS, True, file, more * PAGE)
            model.put(first, [("f", more + at) for at in range(length)])
        elif what == "other":
            calls.mmap(space, start, length * PAGE, BOTH, MAP_PRIVATE, 3, 0)
            model.put(first, [None] * length)
        elif what == "munmap":
            calls.munmap(space, start, length * PAGE)
            model.take(first, length)
        elif what == "mremap":
            (new_length, to), areas = more, list(space)
            if not areas:
                continue
            area = areas[first % len(areas)]
            start, length = area.start, min(length, (area.end - area.start) // PAGE)
            first = (start - BASE) // PAGE
            in_place = to % 2 == 0
            to = first if in_place else to
            if in_place and set(range(first + length, first + new_length)) & set(model.at):
                continue  # a kernel would choose another address
            if not in_place and to in range(first - new_length + 1, first + length):
                continue  # a kernel refuses to move onto itself
            calls.mremap(space, start, length * PAGE, new_length * PAGE, BASE + to * PAGE)
            moved = model.take(first, length)[:new_length]
            last = moved[-1]
            if last and last[0][0] == "anon":
                last = ("anon", sequence), last[1]  # new memory
            model.put(to, moved + [last and (last[0], last[1] + at) for at in range(1, new_length - len(moved) + 1)])
        elif what == "fork":
            calls.fork(key, key + 1)
            spaces[key + 1] = Pages(model.at)
        else:
            calls.execve(key)
            spaces[key] = Pages()
    addresses = np.arange(-1, 40, dtype=np.int64).astype(np.uint64) * np.uint64(PAGE) + np.uint64(BASE)
    if not len(calls.writer):
        return
    trace = calls.writer.trace("log")
    processes, named = replayed(trace), {}
    for key, model in spaces.items():
        space = calls.space(key)
        mine = processes.get(space.process, {})
        for address, place in zip(addresses.tolist(), space.locate(addresses).tolist()):
            at = (address - BASE) // PAGE
            start, end, shift, mapping, folio, missing = place
            found = None
            if mapping >= 0:
                found = mine[trace.header.mappings[mapping].name][(address + shift) % (1 << 64) // PAGE]
            expected = model.at.get(at)
            assert (found is None) == (expected is None)
            assert (end > start) == (at in model.at)
            if found is not None:
                assert named.setdefault(expected, found) == found
        assert sum(map(len, mine.values())) == sum(value is not None for value in model.at.values())
    assert len(set(named.values())) == len(named)
