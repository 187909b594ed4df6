"""Litmus tests in the C dialect of herd7 and linux-kernel.def: as much of it as races are written in, parsed and run.

The run is sequentially consistent, so it finds the end that a schedule of `check --races` came to.
"""

import re

NAME = r"[a-z_][a-z0-9_]*"
STATEMENTS = {    # each as linux-kernel.def declares it, or a declaration with a value, as CParser.mly takes it
    "write": re.compile(rf"WRITE_ONCE\(\*(?P<word>{NAME}), (?P<value>-?\d+)\);"),
    "set": re.compile(rf"atomic_set\((?P<word>{NAME}), (?P<value>-?\d+)\);"),
    "add": re.compile(rf"atomic_add\((?P<value>\d+), (?P<word>{NAME})\);"),
    "sub": re.compile(rf"int (?P<register>{NAME}) = atomic_sub_return\((?P<value>\d+), (?P<word>{NAME})\);"),
    "read": re.compile(rf"int (?P<register>{NAME}) = READ_ONCE\(\*(?P<word>{NAME})\);"),
    "atomic_read": re.compile(rf"int (?P<register>{NAME}) = atomic_read\((?P<word>{NAME})\);"),
    "lock": re.compile(rf"spin_lock\((?P<word>{NAME})\);"),
    "unlock": re.compile(rf"spin_unlock\((?P<word>{NAME})\);"),
}
TYPES = {"write": "int", "read": "int", "lock": "spinlock_t", "unlock": "spinlock_t"}    # others: atomic_t
TEST = re.compile(
    r"C (?P<name>[^\s]+)\n\n\(\*(?P<comment>[^{}]*?)\*\)\n\n\{\n(?P<first>(?:\t[^\n]*;\n)*)\}\n\n"
    r"(?P<threads>(?:P\d\([^()]*\)\n\{\n(?:\t[^\n]*;\n)+\}\n\n)+)exists \((?P<end>[^()]+)\)\n")
THREAD = re.compile(r"P(\d)\(([^()]*)\)\n\{\n((?:\t[^\n]*;\n)+)\}\n")


class Litmus:
    """A parsed test: name, threads [[(statement, word, value, register)]], first {word: value}, end [(key, value)]."""

    def __init__(self, text):
        found = TEST.fullmatch(text)
        assert found and "*)" not in found["comment"] and "(*" not in found["comment"], text
        self.name = found["name"]
        self.threads, self.types = [], {}
        for number, parameters, body in THREAD.findall(found["threads"]):
            assert int(number) == len(self.threads)    # from 0 on, none left out
            types = dict(re.fullmatch(rf"(int|atomic_t|spinlock_t) \*({NAME})", one).groups()[::-1]
                         for one in parameters.split(", "))
            assert self.types in ({}, types) and len(types) == parameters.count("*")
            self.types = types
            self.threads.append([self.statement(line.strip()) for line in body.splitlines()])
            registers = [register for *_, register in self.threads[-1] if register]
            assert len(set(registers)) == len(registers), registers
            assert not set(registers) & set(types)
        self.first = dict.fromkeys(self.types, 0)
        for line in found["first"].split():
            word, value = re.fullmatch(rf"({NAME})=(-?\d+);", line).groups()
            assert self.types[word] != "spinlock_t"
            self.first[word] = int(value)
        self.end = []
        for term in found["end"].split(" /\\ "):
            thread, word, value = re.fullmatch(rf"(?:(\d):)?({NAME})=(-?\d+)", term).groups()
            assert word in self.types if thread is None else word in {s[3] for s in self.threads[int(thread)]}, term
            self.end.append(((thread and int(thread), word), int(value)))

    def statement(self, line):
        for kind, pattern in STATEMENTS.items():
            found = pattern.fullmatch(line)
            if found:
                parts = {"value": None, "register": None, **found.groupdict()}
                assert self.types_of(kind, parts["word"]), line
                return kind, parts["word"], parts["value"] and int(parts["value"]), parts["register"]
        raise AssertionError(f"no statement of a litmus test: {line}")

    def types_of(self, kind, word):
        return self.types[word] == TYPES.get(kind, "atomic_t")

    def can_end(self):
        """Is there an interleaving that ends as the test asks?"""
        words = sorted(self.first)
        todo = [((0,) * len(self.threads), tuple(self.first[word] for word in words), frozenset())]
        wanted, seen = dict(self.end), set(todo)
        while todo:
            at, values, registers = todo.pop()
            memory, known = dict(zip(words, values, strict=True)), dict(registers)
            if all(len(code) == i for code, i in zip(self.threads, at, strict=True)):
                if all((memory[word] if thread is None else known[thread, word]) == value
                       for (thread, word), value in wanted.items()):
                    return True
                continue
            for thread, code in enumerate(self.threads):
                if at[thread] == len(code):
                    continue
                kind, word, value, register = code[at[thread]]
                after, now = dict(memory), dict(known)
                if kind == "lock":
                    if memory[word]:
                        continue
                    after[word] = 1 + thread
                elif kind == "unlock":
                    assert memory[word] == 1 + thread, f"P{thread} unlocks {word}, which it does not hold"
                    after[word] = 0
                elif kind in ("write", "set"):
                    after[word] = value
                elif kind in ("add", "sub"):
                    after[word] += value if kind == "add" else -value
                if kind in ("read", "atomic_read"):
                    now[thread, register] = memory[word]
                    if wanted.get((thread, register), memory[word]) != memory[word]:
                        continue    # no end of these is asked for
                state = (tuple(i + (k == thread) for k, i in enumerate(at)), tuple(after[w] for w in words),
                         frozenset(now.items()))
                if state not in seen:
                    seen.add(state)
                    todo.append(state)
        return False
