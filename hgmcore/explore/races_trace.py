"""The schedule of a race as lines: who, which access or lock, and which words it changed."""

from __future__ import annotations

from hgmcore.errnos import error_name
from hgmcore.explore.races import ACCESSES, TRIES
from hgmcore.explore.scopes import NAMES

PRESENT, MIGRATION, POISON, LEAF, COUNTED, SHIFT = 1, 2, 4, 0x80, 0x200, 12
VERBS = ("read", "write", "change")
LOCK_WORDS = ("mmap_lock", "fault mutex", "vma lock", "i_mmap lock", "folio lock", "page-table lock")
FIELDS = {
    16: "_large_mapcount",
    20: "_nr_pages_mapped",
    24: "_entire_mapcount",
    48: "_mapcount",
    52: "_refcount",
    56: "_total_mapped_pages",
    0: "flags",
}
"""Words of a struct page by their byte."""


class Names:
    """Names of tables and folios, which they keep. names: the user's number of each process."""

    def __init__(self, engine, names):
        self.words = {column: word for word, column in engine.state.items()} | {"_refcount": "ref"}
        self.names, self.tables, self.folios = names, {}, {}

    def learn(self, memory):
        n = memory["base_pages"]
        for h, number in enumerate(memory["cache"]):
            if number and number - 1 not in self.folios:
                later = sum(name.startswith(f"F{h}") for name in self.folios.values())
                self.folios[number - 1] = f"F{h}" + "'" * later
        for number in range(len(memory["pages"]) // n):
            self.folios.setdefault(number, f"folio{number}") if number not in self.folios else None
        for (p, h), (table, index) in memory["hstate"].items():
            self._walk(memory, table, index, f"{NAMES[self.names[p]]}[F{h}]", memory["level"])

    def _walk(self, memory, table, index, name, level):
        entry = memory["tables"][table][index]
        self.tables.setdefault(table, {})[index] = name
        if entry & PRESENT and not entry & LEAF and level > 1:
            for i in range(len(memory["tables"][0])):
                self._walk(memory, entry >> SHIFT, i, f"{name}[{i}]", level - 1)

    def entry(self, table, index):
        return self.tables.get(table, {}).get(index, f"table {table}[{index}]")

    def table(self, table):
        """A table by the entry that it hangs below, or for one that holds hstate-level entries by these."""
        names = self.tables.get(table)
        if not names:
            return f"table {table}"
        first = names[min(names)]
        return first.rpartition("[")[0] if first.count("[") > 1 else f"the table of {first}"

    def folio(self, number):
        return self.folios.get(number, f"folio{number}")

    def value(self, memory, entry):
        if entry & LEAF or entry & MIGRATION:
            pfn = entry >> SHIFT
            page = f"{self.folio(pfn // memory['base_pages'])}+{pfn % memory['base_pages']}"
            return page if entry & LEAF else f"migration({page})"
        if entry & POISON:
            return "poison"
        text = "table" if entry & PRESENT else "none"
        return f"{text}, counted" if entry & COUNTED else text

    def place(self, place, memory, lock=False):
        region, number, byte = place
        if region == "table":
            return self.entry(number, byte // 8)
        if region == "ptdesc":
            return self.table(number) if lock else f"children of {self.table(number)}"
        if region == "page":
            n = memory["base_pages"]
            field = FIELDS.get(byte, f"byte {byte}")
            return self.word(number // n, number % n, field)
        if region == "folio":
            return self.folio(number)
        if region == "cache":
            return f"cache[{number}]"
        if region == "process":
            return f"process {NAMES[self.names[number]]}" if byte == 0 else f"tables of {NAMES[self.names[number]]}"
        if region == "mapping":
            return f"{NAMES[self.names[number]]} v" if byte == 0 else f"VMA of {NAMES[self.names[number]]} v"
        return "F" if region == "file" else region

    def word(self, folio, page, field):
        name = self.words.get(field, field.strip("_"))
        return f"{self.folio(folio)}.{name}" + (f"[{page}]" if field == "_mapcount" else "")


def words_of(names: Names, memory) -> dict:
    """Every shared word by name, in words."""
    words = {}
    for table, entries in names.tables.items():
        if table < len(memory["tables"]):  # else it is not there yet
            for index, name in entries.items():
                words[name, table] = names.value(memory, memory["tables"][table][index])
            words[f"children of {names.table(table)}", table] = memory["children"][table]
    n = memory["base_pages"]
    for i, page in enumerate(memory["pages"]):
        for byte, field in FIELDS.items():
            if byte and (field == "_mapcount" or i % n == (0 if field == "_refcount" else 1)):
                words[names.word(i // n, i % n, field), i] = int(page[field])
    for h, number in enumerate(memory["cache"]):
        words[f"cache[{h}]", -1] = names.folio(number - 1) if number else "none"
    return words


def schedule_lines(rows, engine, processes) -> list[dict]:
    """The steps of Races.trace(): {"thread", "what", "where", "value", "changed": {word: [before, after]}, "unlocked"}.

    value: of the word, before. unlocked: the locks that the thread gave back then. The last are the answers.
    """
    names = Names(engine, processes)
    for *_, memory in rows:
        names.learn(memory)
    out = []
    for (thread, kind, which, how, place, memory), (*_, after) in zip(rows, rows[1:]):
        if kind == ACCESSES:
            what = VERBS[which]
        else:
            what = f"{'try' if kind == TRIES else 'take'} {LOCK_WORDS[which]}{'' if how else ' (read)'} of"
        before_words, after_words = words_of(names, memory), words_of(names, after)
        changed = {}
        for key, value in after_words.items():
            before = before_words.get(key, "none" if isinstance(value, str) else 0)    # of a table that is new
            if before != value:
                changed[key[0]] = [before, value]
        where = names.place(place, memory, lock=kind != ACCESSES)
        value = next((value for key, value in before_words.items() if key[0] == where), None)
        out.append(
            {
                "thread": "ab"[thread],
                "what": what,
                "where": where,
                "value": value,
                "changed": changed,
                "unlocked": [
                    f"{LOCK_WORDS[cls]} of {names.place(of, memory, lock=True)}"
                    for owner, cls, how, of in memory["locks"]
                    if owner == thread and (owner, cls, how, of) not in after["locks"]
                ],
            }
        )
    answers = [
        {"error": error_name(error) if error else None, "done": done, "event": "minor" if event else None}
        for error, done, event in rows[-1][1]
    ]
    return [*out, {"answers": answers}]
