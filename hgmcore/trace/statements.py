"""The statements of a trace, in one table: the text parser, the text writer and the check all work from it.

Every statement is one record of `OPERATION`. A row of `STATEMENTS` gives a statement's name, its code (fixed
for ever: it stands in files and in hgm.h) and its operands in the order in which they are written. An operand
knows how to read its words into a record, how to write them back, and which records a file may not contain.
A new statement is a new row. Source of the forms: the trace format, version 1.
"""

from __future__ import annotations

import difflib
import textwrap

import numpy as np

from hgmcore.sizes import LIMIT, format_size, parse_size, quoted

# One operation. offset, length: bytes, or numbers of huge pages where a statement counts those; target: index
# of a file, process or mapping in the header; arg: a second such index.
OPERATION = np.dtype([("offset", "<u8"), ("length", "<u8"), ("target", "<u4"), ("arg", "<u2"), ("op", "u1"),
                      ("flags", "u1")])

SHARED, MINOR, WP, HGM, URGENT, WRITE, ALL, READ = (1 << bit for bit in range(8))

AT, RESIZED, KEEP = 16, 32, 64
"""Of mmap and mremap: at the address, to the length, that stands with the mapping's name; of mremap: MREMAP_DONTUNMAP,
or, in place, MREMAP_MAYMOVE."""

NO_ARG = 0xFFFF  # `arg` of an mremap in place

# A record on its way from or to text is a list in the order of OPERATION.
OFFSET, LENGTH, TARGET, ARG, OP, FLAGS = range(6)


class Operand:
    """One or more words of a statement, and the part of the record that they stand for.

    usage: how it is written. fewest, most: how many words. columns: what it fills, by number, FLAGS apart.
    bits: the flags that it may set. A reader raises ValueError with a reason, or IndexError where words lack.
    """

    columns: tuple = ()
    bits = 0

    def __init__(self, usage, fewest=1, most=1):
        self.usage, self.fewest, self.most = usage, fewest, most

    def read(self, words, at, record, names):
        """Fill `record` from words[at:], declare or look up names, return where the next operand begins."""
        raise NotImplementedError

    def write(self, record, header):
        """The words, "" for an operand that is left out."""
        raise NotImplementedError

    def faults(self, records, header):
        """Yield (array of bool: which records are wrong, reason that may name columns in braces)."""
        return ()


class Number(Operand):
    """A size or offset in bytes, or a plain count; one that has a default may be left out at the end."""

    def __init__(self, column, usage, count=False, minimum=0, default=None):
        super().__init__(usage if default is None else f"[{usage}]", int(default is None))
        self.columns, self.column, self.name = (column,), column, OPERATION.names[column]
        self.spell, self.minimum, self.default = str if count else format_size, minimum, default

    def read(self, words, at, record, names):
        if at == len(words) and self.default is not None:
            record[self.column] = self.default
            return at
        try:
            record[self.column] = parse_size(words[at])
        except ValueError as error:
            raise ValueError(f"{self.usage} {error}") from None
        return at + 1

    def write(self, record, header):
        value = record[self.column]
        return "" if value == self.default else self.spell(value)

    def faults(self, records, header):
        values = records[self.name]
        shown = f"{self.usage} {{{self.name}}}"
        yield values < self.minimum, f"{shown} is less than {self.minimum}"
        yield values >= LIMIT, f"{shown} is too large (numbers are below 2**63)"


class Reference(Operand):
    """The index of a declared "file", "process" or "mapping"."""

    def __init__(self, kind, usage=None, column=TARGET, fewest=1, most=1):
        super().__init__(usage or kind.upper(), fewest, most)
        self.kind, self.columns, self.column, self.name = kind, (column,), column, OPERATION.names[column]

    def read(self, words, at, record, names):
        record[self.column] = names.find(self.kind, words[at])
        return at + 1

    def write(self, record, header):
        return header.spell(self.kind, record[self.column])

    def faults(self, records, header):
        count = len(header.table(self.kind))
        beyond = records[self.name] >= count
        yield beyond, f"{self.name} {{{self.name}}} is none of {count} {self.kind} entries"


class DeclaredMapping(Reference):
    """A mapping, by process and name."""

    def __init__(self):
        super().__init__("mapping", "PROCESS MAPPING", fewest=2, most=2)

    def read(self, words, at, record, names):
        record[TARGET] = names.mapping(words[at], words[at + 1])
        return at + 2


class NewMapping(DeclaredMapping):
    """A process and a mapping in it, declared by being named."""

    def read(self, words, at, record, names):
        record[TARGET] = names.declare_mapping(words[at], words[at + 1])
        return at + 2


class NewName(Reference):
    """Where mremap moves to: a mapping of the same process, declared by being named."""

    def __init__(self):
        super().__init__("mapping", "NEW_MAPPING", ARG)

    def read(self, words, at, record, names):
        record[ARG] = _as_arg(names.declare_mapping(names.process_of(record[TARGET]), words[at]), "mappings")
        return at + 1

    def write(self, record, header):
        return header.mappings[record[ARG]].name


class Placed(Operand):
    """An address or a second length, which stands with the name of a mapping: the one in `column`."""

    def __init__(self, what, bit, column, word=""):
        super().__init__(f"[{word} ADDRESS]" if word else "[NEW_LENGTH]", 0, 2 if word else 1)
        self.what, self.bits, self.column, self.word = what, bit, column, word

    def read(self, words, at, record, names):
        if at == len(words) or (words[at] != self.word if self.word else not words[at][0].isdigit()):
            return at
        at += bool(self.word)
        try:
            names.place(record[self.column], **{self.what: parse_size(words[at])})
        except IndexError:
            raise ValueError(f"ADDRESS is missing behind {self.word!r}") from None
        record[FLAGS] |= self.bits
        return at + 1

    def write(self, record, header):
        if not record[FLAGS] & self.bits:
            return ""
        value = getattr(header.mappings[record[self.column]], self.what)
        return f"{self.word} {value:#x}" if self.word else format_size(value)

    def faults(self, records, header):
        given = np.array([getattr(mapping, self.what) is not None for mapping in header.mappings] or [False])
        at = np.minimum(records[OPERATION.names[self.column]], len(given) - 1)
        yield (records["flags"] & self.bits != 0) & ~given[at], f"no {self.what} stands with the mapping"


class NewProcess(Reference):
    """A child, declared by fork together with the parent's mappings under their names."""

    def __init__(self):
        super().__init__("process", "CHILD", ARG)

    def read(self, words, at, record, names):
        record[ARG] = _as_arg(names.fork(record[TARGET], words[at]), "processes")
        return at + 1


class Phase(Reference):
    """A phase, declared by being named."""

    def __init__(self):
        super().__init__("phase", "NAME")

    def read(self, words, at, record, names):
        record[TARGET] = names.phase(words[at])
        return at + 1


class NewFile(Reference):
    """A file's declaration; all but its index stands in the header."""

    def __init__(self):
        super().__init__("file", "FILE PAGE_SIZE PAGES [hugetlb|shmem]", fewest=3, most=4)

    def read(self, words, at, record, names):
        name, page_size, pages = words[at], words[at + 1], words[at + 2]
        kind = words[at + 3:at + 4]
        record[TARGET] = names.declare_file(name, parse_size(page_size), parse_size(pages), *kind)
        return at + 3 + len(kind)

    def write(self, record, header):
        file = header.files[record[TARGET]]
        kind = "" if file.kind == "hugetlb" else f" {file.kind}"
        return f"{file.name} {format_size(file.page_size)} {file.pages}{kind}"


class MappedFile(Reference):
    """What mmap maps: a declared file, or anonymous memory in folios of one size, as in `anon:2M`."""

    def __init__(self):
        super().__init__("file", "FILE|anon:SIZE", ARG)

    def read(self, words, at, record, names):
        word = words[at]
        index = names.anonymous(word) if word.startswith("anon:") else names.find("file", word)
        record[ARG] = _as_arg(index, "files")
        return at + 1


class OneOf(Operand):
    """Exactly one of several words, each a value of some flag bits."""

    def __init__(self, **values):
        super().__init__("|".join(values))
        self.values, self.words = values, {value: word for word, value in values.items()}
        for value in values.values():
            self.bits |= value

    def read(self, words, at, record, names):
        if words[at] not in self.values:
            raise ValueError(f"expected {self.usage}, found {quoted(words[at])}")
        record[FLAGS] |= self.values[words[at]]
        return at + 1

    def write(self, record, header):
        return self.words[record[FLAGS] & self.bits]

    def faults(self, records, header):
        known = np.isin(records["flags"] & self.bits, list(self.words))
        yield ~known, f"flags {{flags}} are none of {self.usage}"


class AnyOf(Operand):
    """Words that each set a flag, in any order, each at most once; `required`: one at least."""

    def __init__(self, required=False, **values):
        usage = "|".join(values) + ".." if required else " ".join(f"[{word}]" for word in values)
        super().__init__(usage, int(required), len(values))
        self.values, self.bits, self.required = values, sum(values.values()), required

    def read(self, words, at, record, names):
        if self.required:
            words[at]  # IndexError: one is missing
        while at < len(words) and words[at] in self.values:
            bit = self.values[words[at]]
            if record[FLAGS] & bit:
                raise ValueError(f"{words[at]!r} stands twice")
            record[FLAGS] |= bit
            at += 1
        return at

    def write(self, record, header):
        if not record[FLAGS] & self.bits:
            return ""
        return " ".join(word for word, bit in self.values.items() if record[FLAGS] & bit)

    def faults(self, records, header):
        if self.required:
            yield records["flags"] & self.bits == 0, f"none of {self.usage} is given"


def _as_arg(index: int, what: str) -> int:
    """`index` if it fits the column `arg`."""
    if index >= NO_ARG:
        raise ValueError(f"more than {NO_ARG} {what}")
    return index


def _beyond(first, count, end):
    return (first > end) | (count > end - np.minimum(first, end))


def pages_in_file(records, header):
    """[offset, offset + length) are huge pages of the file."""
    bad = _beyond(records["offset"], records["length"], header.pages(records))
    yield bad, "huge pages [{offset}, {end}) reach beyond file {file.name!r} of {file.pages}"


def page_in_file(records, header):
    """offset is a huge page of the file."""
    bad = records["offset"] >= header.pages(records)
    yield bad, "huge page {offset} lies beyond file {file.name!r} of {file.pages}"


def bytes_in_file(records, header):
    """[offset, offset + length) are bytes of the file."""
    bad = _beyond(records["offset"], records["length"], header.pages(records) * header.page_sizes(records))
    yield bad, "bytes [{offset}, {end}) reach beyond file {file.name!r} of {file.pages} pages"


def anonymous_is_private(records, header):
    """Anonymous memory is private and has no file offset."""
    anonymous = np.array([file.kind == "anon" for file in header.files], dtype=bool)[records["arg"]]
    shared = records["flags"] & SHARED != 0
    yield anonymous & shared, "anonymous memory is private (shared memory is a file of kind shmem)"
    elsewhere = records["offset"] != 0
    yield anonymous & elsewhere, "anonymous memory has no file offset (expected 0, found {offset})"


class Statement:
    """One form of a statement. arg: the constant in column `arg` where no operand fills it.

    limits: functions of (records, header) that yield as `Operand.faults` does; their reasons may also name
    {end} (offset + length) and {file} (the File that is the target). help: a sentence. example: a statement that
    may stand in the trace `EXAMPLE_BEGINS`.
    """

    def __init__(self, name, code, *operands, help, example, arg=0, limits=()):
        self.help, self.example = help, example
        self.name, self.code, self.operands, self.arg, self.limits = name, code, operands, arg, limits
        self.usage = " ".join([name, *(operand.usage for operand in operands)])
        self.columns = {column for operand in operands for column in operand.columns}
        self.bits = sum(operand.bits for operand in operands)
        self.blank = [0, 0, 0, arg, code, 0]

    def takes(self, count: int) -> bool:
        """Whether `count` words may follow the name."""
        return sum(o.fewest for o in self.operands) <= count <= sum(o.most for o in self.operands)


_file, _process, _mapping = Reference("file"), Reference("process"), DeclaredMapping()
_offset, _length = Number(OFFSET, "OFFSET"), Number(LENGTH, "LENGTH")
_range = (_mapping, _offset, _length)
_first, _count = Number(OFFSET, "FIRST", count=True), Number(LENGTH, "COUNT", count=True)
_page, _references = Number(OFFSET, "PAGE", count=True), Number(LENGTH, "COUNT", count=True, default=1)

STATEMENTS = (
    Statement("file", 0, NewFile(), example="file G 1G 2",
              help="A file of PAGES huge pages of PAGE_SIZE; nothing of it is allocated yet."),
    Statement("populate", 1, _file, _first, _count, limits=(pages_in_file,), example="populate F 0 4",
              help="Bring huge pages [FIRST, FIRST + COUNT) into the page cache."),
    Statement("mmap", 2, NewMapping(), MappedFile(), _offset, _length, OneOf(shared=SHARED, private=0),
              AnyOf(minor=MINOR, wp=WP, hgm=HGM), Placed("address", AT, TARGET, "at"), limits=(anonymous_is_private,),
              example="mmap A w F 2M 4M shared minor at 0x7f0000000000",
              help="Map LENGTH bytes of a file from OFFSET on; minor and wp: registered as by `register`; hgm: split. "
                   "A mapping has one address that is given."),
    Statement("register", 3, _mapping, AnyOf(minor=MINOR, wp=WP, required=True), example="register A v minor",
              help="userfaultfd: minor allows `continue`; wp write-protects, and fork then copies the tables."),
    Statement("unregister", 4, _mapping, example="unregister A v", help="End what `register` began."),
    Statement("split", 5, *_range, example="split A v 0 2M",
              help="MADV_SPLIT: from now on pieces of the range's huge pages can be mapped."),
    Statement("continue", 6, *_range, AnyOf(urgent=URGENT), example="continue A v 0 4K urgent",
              help="UFFDIO_CONTINUE: map the range; urgent: an access waits for it."),
    Statement("touch", 7, _mapping, _offset, AnyOf(write=WRITE), example="touch A v 8K write",
              help="Access one address; a page fault if nothing maps it, an event in a minor mapping."),
    Statement("dontneed", 8, *_range, example="dontneed A v 0 4K", help="MADV_DONTNEED: unmap the range."),
    Statement("collapse", 9, *_range, example="collapse A v 0 2M",
              help="MADV_COLLAPSE: map the range by the largest leaves again."),
    Statement("munmap", 10, *_range, example="munmap A v 0 2M",
              help="Unmap the range; a part leaves a hole, and offsets stay relative to the original start."),
    Statement("mprotect", 11, *_range, OneOf(r=READ, rw=READ | WRITE, none=0), example="mprotect A v 0 2M r",
              help="Change what accesses the range allows."),
    Statement("mremap", 12, _mapping, _length, AnyOf(move=KEEP), arg=NO_ARG, example="mremap A v 4M",
              help="Grow or shrink a mapping in place to LENGTH; move (MAYMOVE): elsewhere, with all of it, where it "
                   "cannot grow."),
    Statement("mremap", 12, *_range, NewName(), Placed("length", RESIZED, ARG), Placed("address", AT, ARG, "at"),
              AnyOf(keep=KEEP), example="mremap A v 0 2M moved 4M at 0x7f0000000000",
              help="Move the range to a new mapping of the same process, of NEW_LENGTH where that differs, and (FIXED) "
                   "at an address, where what is there goes; keep (DONTUNMAP): the range stays mapped, to nothing."),
    Statement("fork", 13, _process, NewProcess(), example="fork A B",
              help="A child gets the parent's mappings under the same names."),
    Statement("exit", 14, _process, example="exit A", help="The process ends; all its mappings go."),
    Statement("punch", 15, _file, _offset, _length, limits=(bytes_in_file,), example="punch F 0 2M",
              help="fallocate PUNCH_HOLE: unmap the bytes everywhere and free whole huge pages."),
    Statement("truncate", 16, _file, Number(OFFSET, "SIZE"), example="truncate F 2M",
              help="Set the file's size: what lies behind it is unmapped everywhere and freed."),
    Statement("migrate", 17, *_range, AnyOf(all=ALL), example="migrate A v 0 2M all",
              help="Move the huge pages of the range that are exclusive; all: shared ones too (MOVE_ALL)."),
    Statement("hwpoison", 18, _mapping, _offset, example="hwpoison A v 20K",
              help="A memory failure in the base page at that address."),
    Statement("pin", 19, _file, _page, _references, limits=(page_in_file,), example="pin F 0 3",
              help="Take COUNT (default 1) extra references on huge page PAGE."),
    Statement("unpin", 20, _file, _page, _references, limits=(page_in_file,), example="unpin F 0 3",
              help="Drop references that `pin` took."),
    Statement("fail", 21, Number(OFFSET, "N", count=True, minimum=1), example="fail 1",
              help="The Nth internal allocation of the next operation fails; `observe` and `phase` are none."),
    Statement("observe", 22, example="observe", help="Record an observation: counts, answers, truth."),
    Statement("phase", 23, Phase(), example="phase install",
              help="What follows belongs to phase NAME in reports; counts nothing, changes nothing."),
)

CODES = {statement.name: statement.code for statement in STATEMENTS}
NAMES = tuple(CODES)
FORMS = {name: tuple(s for s in STATEMENTS if s.name == name) for name in NAMES}


def told_to_fail(operations) -> np.ndarray:
    """Which operations a `fail` is for: the next behind it that is no `observe`, `phase`, `file` or another `fail`."""
    codes = operations["op"]
    about = np.where(np.isin(codes, [CODES[name] for name in ("observe", "phase", "file")]), 0, np.arange(len(codes)))
    told = np.zeros(len(codes), bool)
    told[1:] = codes[np.maximum.accumulate(about)[:-1]] == CODES["fail"]
    return told & (about > 0) & (codes != CODES["fail"])


def form(name: str, count: int) -> Statement:
    """The form of statement `name` that `count` words may follow, or its last. Raises ValueError."""
    forms = FORMS.get(name)
    if forms is None:
        near = difflib.get_close_matches(name, (*NAMES, "geometry"), n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"unknown statement {quoted(name)}{hint}")
    return forms[0] if len(forms) == 1 else next((f for f in forms if f.takes(count)), forms[-1])


def form_of(code: int, arg: int) -> Statement:
    """The form that writes a record of this code and `arg`."""
    forms = FORMS[NAMES[code]]
    return forms[0] if len(forms) == 1 or forms[0].arg == arg else forms[-1]


def usage(name: str) -> str:
    """How statement `name` is written."""
    return ", or: ".join(statement.usage for statement in FORMS[name])


EXAMPLE_BEGINS = """\
hgmcore-trace 1
file F 2M 4
mmap A v F 0 8M shared minor
"""
"""The beginning of a trace in which each statement's example may stand next."""


def reference(width: int = 80) -> str:
    """Every form of every statement with its help and an example, as text of at most `width` columns."""
    def filled(text, indent):
        return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent + "  ",
                             break_long_words=False, break_on_hyphens=False)
    lines = ["A trace begins as", "", textwrap.indent(EXAMPLE_BEGINS, "  "),
             "`geometry NAME` may stand second (default x86-64). # starts a comment. Sizes are",
             "decimal or 0x, with K, M, G, T. @THREAD or @THREAD:NANOSECONDS may stand before",
             "a statement. The statements, each with an example:", ""]
    for statement in STATEMENTS:
        lines += [filled(statement.usage, ""), filled(statement.help, "    "), f"    e.g. {statement.example}", ""]
    return "\n".join(lines)
