"""Does a scheme of one's own behave? For the tests of its package: `check_scheme(engine)`.

Traces run record by record. After each the scheme's answers are held against the truth, which is recounted from the
page tables; its counts must balance, and it may have written nothing but its own words. Code that is compiled runs in a
process of its own, so that one that crashes or hangs is reported like any other fault.
"""

from __future__ import annotations

import faulthandler
import io
import mmap
import os
import pickle
import random
import selectors
import signal
import struct
from dataclasses import dataclass

import numpy as np

from hgmcore import schemes
from hgmcore.core.core import SchemeError
from hgmcore.core.machine import FOLIO_FREED, PAGE, PAGE_DOUBLE_MAP
from hgmcore.explore.observed import WHOLE, broken, counts, preamble
from hgmcore.explore.properties import BY_NAME
from hgmcore.explore.walk import GROUNDS, sequence
from hgmcore.inputs import load
from hgmcore.own.python import HEADS
from hgmcore.own.scheme import Scheme
from hgmcore.replay import machine_for
from hgmcore.trace.statements import NAMES
from hgmcore.trace.text import spelled

SECONDS = 120
"""That a scheme's process may take for one record before it counts as one that hangs."""

COUNTED = ("_large_mapcount", "_nr_pages_mapped", "_entire_mapcount", "_total_mapped_pages")
"""Words of struct page 1 that are 0 where nothing maps a folio."""

FLAGS = 0x1 | 0x200 | 0x400 | 0x800 | PAGE_DOUBLE_MAP
"""Flags of a struct page that a scheme, or the engine, may change (HGM_PAGE_* of hgm.h)."""

LOOKED_AT = 512
"""Struct pages of a folio, from its head on, that are looked at."""

LAST = {"no_underflow", "overflow_safe", "never_freed_while_mapped"}
"""Behind these everything else is noise."""

MANY = {"_mapcount", "_refcount", "private"}
"""Words that a scheme need not declare in its `state`."""


@dataclass(frozen=True)
class Fault:
    """What a scheme did wrong, and where first.

    what: "raised", "misbehaved" (it answered nonsense, or gave up), "crashed", "hung", "wrote", "unbalanced" or the
    name of a property that it promises. trace: its name.
    index: the record's number, None where no record ran. statement: its text. text: what was wrong.
    """

    scheme: str
    what: str
    trace: str
    index: int | None
    statement: str
    text: str

    def __str__(self):
        return (
            f"scheme '{self.scheme}': {self.what}, at record {self.index} ({self.statement}) of {self.trace}: "
            f"{self.text}"
        )


def check_scheme(scheme, traces=None, *, sequences: int = 20, seed: int = 0, **options) -> None:
    """AssertionError that names each fault of a scheme, by operation and record; nothing if it has none.

    scheme: what hgmcore.schemes.load takes. traces: what hgmcore.load takes, in a list; None: `sequences` random ones,
    on hugetlb of two geometries, shmem and anonymous memory, the same for the same seed. The rest: options of a replay.
    What the scheme's `exceptions` name is no fault. That a scheme passes proves nothing; `hgmcore check` proves.
    """
    found = faults(scheme, traces, sequences=sequences, seed=seed, **options)
    assert not found, "\n".join(map(str, found))


def faults(scheme, traces=None, *, sequences: int = 20, seed: int = 0, isolated: bool | None = None, **options):
    """The faults of a scheme, a list of Fault, at most one of a kind. Parameters as `check_scheme`.

    isolated: in a process of its own; None: unless it is a Python class, which cannot crash.
    """
    engine = schemes.load(scheme)
    loaded = [load(trace) for trace in traces] if traces is not None else _random(engine, sequences, seed)
    if isolated is None:
        isolated = not isinstance(getattr(getattr(engine, "owner", None), "scheme", None), Scheme)
    at = mmap.mmap(-1, 16)  # shared with the process: numbers of trace and record
    if not isolated:
        return list(_first(_faults(engine, loaded, options, at)))
    return _in_a_process(engine, loaded, options, at)


def _random(engine, sequences, seed):
    """Random traces at whose end every process has exited."""
    found = []
    for number in range(sequences):
        ground = GROUNDS[number % len(GROUNDS)]
        if engine.whole_only and (ground.anon or ground.files[0][3] == "shmem"):
            continue
        lines = sequence(random.Random(f"{seed} {number}"), ground)
        ended = {line.split()[1] for line in lines if line.startswith("exit ")}
        born = {line.split()[1] for line in lines if line.startswith("mmap ")}
        born |= {line.split()[2] for line in lines if line.startswith("fork ")}
        trace = load([*preamble(ground), *lines, *(f"exit {process}" for process in sorted(born - ended))])
        trace.name = f"random sequence {number} of seed {seed} on {ground.name}"
        found.append(trace)
    return found


def _first(found):
    """The first fault of each kind."""
    seen = set()
    for fault in found:
        if fault.what not in seen:
            seen.add(fault.what)
            yield fault


def _faults(engine, traces, options, at):
    for number, trace in enumerate(traces):
        yield from _of_trace(engine, number, trace, options, at)


def _of_trace(engine, number, trace, options, at):
    """Yield the faults in one trace; nothing follows an exception or a count below zero."""
    index = -1
    try:
        watch = Watch(machine_for(trace, engine, options))
        for index in range(len(trace)):
            at[:16] = struct.pack("qq", number, index)
            found = watch.run(trace.operations[index : index + 1])
            yield from (
                Fault(engine.name, what, trace.name, index, _statement(trace, index), text) for what, text in found
            )
            if {what for what, _ in found} & LAST:
                return
    except SchemeError as error:
        what = "raised" if error.__cause__ is not None else "misbehaved"
        yield Fault(engine.name, what, trace.name, index, _statement(trace, index), f"{error.reaction}: {error.why}")


def _statement(trace, index):
    return next(spelled(trace.operations[index : index + 1], trace.header), "").strip() if index >= 0 else "the start"


class Watch:
    """A machine whose records run one by one, and what its scheme does wrong in each."""

    def __init__(self, machine):
        self.machine, self.engine, self.seen = machine, machine.engine, 0
        self.own = MANY | set(self.engine.state.values())
        if "_mm_id_mapcount" in self.own or self.engine.has_slots:
            self.own |= {"_mm_id_mapcount", "_mm_id"}
        if self.engine.by_number:  # sums, in the words that stand where these do
            self.own |= {"_pincount", "_mm_id_mapcount", "_mm_id", "_total_mapped_pages"}
        self._look()

    def _look(self):
        self.observation = self.machine.observe()
        self.folios = self.machine.core.folios()
        self.leaves = {}
        for folio in self.observation["folios"]:
            key = folio["file"], folio["page"], folio.get("first") or 0
            self.leaves[key] = self.leaves.get(key, 0) + folio["truth"]["leaves"]
        last = np.minimum(self.folios["nr_pages"], LOOKED_AT)
        frames = [np.arange(first, first + pages) for first, pages in zip(self.folios["pfn"], last)]
        self.frames = np.unique(np.concatenate([np.empty(0, np.int64), *frames]).astype(np.int64))
        self.pages = self.machine.core.pages(0, int(self.frames.max(initial=-1)) + 1)[self.frames]

    def run(self, record) -> list:
        """Run a record: pairs (what, text) of what was wrong. SchemeError from the machine."""
        pages, frames, leaves, before = self.pages, self.frames, self.leaves, self.observation
        self.machine.run(record)
        results = self.machine.results(self.seen)
        self.seen += len(results)
        self._look()
        found = [("wrote", text) for text in self._wrote(frames, pages, leaves)] + [
            ("unbalanced", text) for text in self._left()
        ]
        refused = NAMES[record["op"][0]] in WHOLE and len(results) and results[-1]["errno"] and not results[-1]["done"]
        wrong = broken(self.observation, counts(before), self.machine.cost(), refused)
        return found + [(name, BY_NAME[name].text) for name in sorted(wrong - self.engine.exceptions.keys())]

    def _wrote(self, frames, before, leaves):
        """Yield what changed in struct pages and is not the scheme's own."""
        had = np.zeros(len(self.pages), PAGE)
        known = np.isin(frames, self.frames, assume_unique=True)
        had[np.searchsorted(self.frames, frames[known])] = before[known]
        for i in np.flatnonzero((_words(had) != _words(self.pages)).any(1)).tolist():
            frame, old, new = int(self.frames[i]), had[i], self.pages[i]
            row = int(np.searchsorted(self.folios["pfn"], frame, side="right")) - 1
            folio = self.folios[row]
            page, maps = frame - int(folio["pfn"]), self._maps(folio, leaves)
            for word in PAGE.names:
                if word == "flags":
                    wrong = (old[word] ^ new[word]) & ~np.uint64(FLAGS)
                else:
                    wrong = not np.array_equal(old[word], new[word]) and np.any(new[word])
                if wrong and (why := self._why(word, page, maps)):
                    yield f"{word} of struct page {page} of {self._name(folio)}: {old[word]} to {new[word]}; {why}"

    def _why(self, word, page, maps):
        """Why a scheme may not write that word there, or None."""
        if word == "flags" or word == "_pincount" and word not in self.own:
            return "that is no scheme's"
        if word not in self.own:
            return "its state does not name that word"
        if word != "_refcount" and page >= HEADS and not self.engine.writes_tails:
            return 'it does not need "tails"'
        if word != "_refcount" and not maps and "leaf_if_mapped" not in self.engine.exceptions:
            return "nothing mapped that folio before or after"
        return None

    def _key(self, folio):
        file, page, first = self.machine.header.files[folio["file"]], int(folio["page"]), 0
        if file.kind == "shmem":
            page, first = divmod(page, file.page_size // self.machine.geometry.base_page)
        return file.name, page, first

    def _name(self, folio):
        name, page, first = self._key(folio)
        return f"page {page} of {name}" + (f" from {first} on" if first else "")

    def _maps(self, folio, leaves):
        key = self._key(folio)
        return leaves.get(key, 0) or self.leaves.get(key, 0) or folio["flags"] & FOLIO_FREED

    def _left(self):
        """Yield counts that are left of a folio that nothing maps."""
        if self.engine.has_slots or self.engine.exceptions.keys() & {"leaf_if_mapped", "no_leak_at_end"}:
            return  # in slots a count is a sum
        for folio in self.observation["folios"]:
            for name, field in self.engine.state.items():
                value = folio["state"][name] if field in COUNTED and not folio["truth"]["leaves"] else 0
                if int(value, 0) if isinstance(value, str) else value:
                    yield f"{field} is {value}, and nothing maps page {folio['page']} of {folio['file']}"


def _words(pages):
    return pages.view(np.uint64).reshape(-1, PAGE.itemsize // 8)


# -- in a process of its own


def _in_a_process(engine, traces, options, at):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        faulthandler.disable()  # whoever waits for this process tells of a crash
        try:
            os.close(reading)
            with open(writing, "wb") as pipe:
                try:
                    for fault in _first(_faults(engine, traces, options, at)):
                        pickle.dump(fault, pipe)
                        pipe.flush()
                except Exception as error:
                    pickle.dump(error, pipe)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    data, hung = b"", False
    with open(reading, "rb", buffering=0) as pipe, selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            place = at[:16]
            if selector.select(SECONDS):
                part = pipe.read(1 << 16)
                if not part:
                    break
                data += part
            elif at[:16] == place:
                os.kill(child, signal.SIGKILL)
                hung = True
                break
    status = os.waitpid(child, 0)[1]
    found = list(_pickled(data))
    for error in found:
        if isinstance(error, Exception):
            raise error
    if os.WIFSIGNALED(status):
        number, index = struct.unpack("qq", at[:16])
        how = f"no answer for {SECONDS} s" if hung else signal.Signals(os.WTERMSIG(status)).name
        found.append(
            Fault(
                engine.name,
                "hung" if hung else "crashed",
                traces[number].name,
                index,
                _statement(traces[number], index),
                how,
            )
        )
    return found


def _pickled(data):
    while data:
        stream = io.BytesIO(data)
        try:
            yield pickle.load(stream)
        except (EOFError, pickle.UnpicklingError):  # the process ended in the middle of it
            return
        data = data[stream.tell() :]
