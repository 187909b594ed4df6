"""The racy core of a schedule as a litmus test that herd7 reads, under the Linux kernel's memory model.

The search of races is sequentially consistent. A litmus test asks the model of real hardware the same question: can
both threads have read what they read, and memory end as it ended? It has the accesses to words that both touch and
one changes, and the locks that keep the two apart.
"""

from __future__ import annotations

import re

COUNT = re.compile(r"\.\w+(\[\d+\])?$|^children")
"""Words of struct pages and counts of children, which are atomic_t; entries and places in the page cache are not."""


def litmus(name: str, entry: dict, title: str) -> str:
    """A test for herd7 -conf linux-kernel.cfg. name: the test's. entry: what Raced.run() keeps of a broken property."""
    steps, answers = entry["steps"][:-1], entry["steps"][-1]["answers"]
    shared, locks = _shared(steps), _locks(steps)
    values = _Values(shared)
    threads = {who: _code(who, steps, shared, locks, values) for who in "ab"}
    first = {word: values.number(word, before) for word, before in _firsts(steps, shared).items()}
    lines = [f"C {name}", "", "(*", f" * {title}", f" * {'; '.join(entry['start']) or 'nothing yet'}"]
    lines += [f" * P{i}: {entry[who]} ({answers[i]['error'] or 'ok'})" for i, who in enumerate("ab")]
    lines += [f" * {values.variables[word]}: {word}{values.legend(word)}" for word in shared]
    lines += [f" * {variable}: {lock}" for lock, variable in locks.items()]
    lines += [" *)", "", "{"]
    lines += [f"\t{values.variables[word]}={value};" for word, value in first.items() if value]
    lines += ["}", ""]
    parameters = [f"{'atomic_t' if _counted(word) else 'int'} *{values.variables[word]}" for word in shared]
    parameters += [f"spinlock_t *{variable}" for variable in locks.values()]
    conditions = []
    for i, (code, reads) in enumerate(threads.values()):
        lines += [f"P{i}({', '.join(parameters)})", "{", *(f"\t{line}" for line in code), "}", ""]
        conditions += [f"{i}:{register}={value}" for register, value in reads]
    last = dict(first)
    for step in steps:
        last.update({word: values.number(word, now) for word, (_, now) in step["changed"].items() if word in shared})
    conditions += [f"{values.variables[word]}={value}" for word, value in last.items()]
    return "\n".join([*lines, "exists (" + " /\\ ".join(conditions) + ")"]) + "\n"


class _Values:
    """Variables and numbers for words and what stands in them."""

    def __init__(self, words):
        self.variables, self.numbers = {}, {word: {"none": 0} for word in words}
        for word in words:
            plain = re.sub(r"\W+", "_", word.replace("'", "x")).strip("_").lower()
            self.variables[word] = plain if plain not in self.variables.values() else f"{plain}_{len(self.variables)}"

    def number(self, word, value):
        """A count is its own number."""
        if isinstance(value, int):
            return value
        return self.numbers[word].setdefault(value, len(self.numbers[word]))

    def legend(self, word):
        named = [f"{number} is {value}" for value, number in self.numbers[word].items() if number]
        return f" ({', '.join(['0 is none', *named])})" if named else ""


def _counted(word):
    return bool(COUNT.search(word))


def _touched(step):
    """The words that a step reads or changes."""
    words = set(step["changed"])
    if step["what"] in ("read", "write", "change"):
        words.add(step["where"])
    return words


def _shared(steps):
    """Words that both threads touch and at least one changes, in the order in which they are met."""
    by, changed, order = {}, set(), []
    for step in steps:
        for word in sorted(_touched(step)):
            if step["value"] is None and word not in step["changed"]:
                continue
            by.setdefault(word, set()).add(step["thread"])
            order.append(word)
        changed |= set(step["changed"])
    return [word for word in dict.fromkeys(order) if len(by[word]) == 2 and word in changed]


def _lock_of(step):
    """The lock that a step takes, as steps name those that they give back."""
    return f"{step['what'].removeprefix('take ').replace(' (read)', '').removesuffix(' of')} of {step['where']}"


def _locks(steps):
    """Locks that both threads take, at least one of them for writing."""
    taken = {}
    for step in steps:
        if step["what"].startswith("take"):
            lock = _lock_of(step)
            taken.setdefault(lock, []).append((step["thread"], "(read)" in step["what"]))
    both = [lock for lock, who in taken.items() if len({by for by, _ in who}) == 2 and not all(read for _, read in who)]
    return {lock: f"lock{i}" for i, lock in enumerate(both)}


def _firsts(steps, shared):
    """What stands in each shared word at the start."""
    first = {}
    for step in steps:
        for word in _touched(step) & set(shared):
            before = step["changed"][word][0] if word in step["changed"] else step["value"]
            if before is not None:
                first.setdefault(word, before)
    return {word: first[word] for word in shared}


def _code(who, steps, shared, locks, values):
    """(lines, [(register, what it has to read)]) of a thread."""
    lines, reads = [], []
    for step in steps:
        if step["thread"] != who:
            continue
        if step["what"].startswith("take"):
            lock = _lock_of(step)
            if lock in locks:
                lines.append(f"spin_lock({locks[lock]});")
        elif step["where"] in shared and step["what"] == "read" and step["where"] not in step["changed"]:
            variable, register = values.variables[step["where"]], f"r{len(reads)}"
            read = "atomic_read({})" if _counted(step["where"]) else "READ_ONCE(*{})"
            lines.append(f"int {register} = {read.format(variable)};")
            reads.append((register, values.number(step["where"], step["value"])))
        changed = dict(step["changed"])
        if step["what"] == "write" and step["value"] is not None:  # perhaps what stood there
            changed.setdefault(step["where"], [step["value"], step["value"]])
        for word, (before, after) in changed.items():
            if word in shared:
                lines.append(_change(word, before, after, step["what"], values, len(lines)))
        for lock in step["unlocked"]:
            if lock in locks:
                lines.append(f"spin_unlock({locks[lock]});")
    return lines, reads


def _change(word, before, after, what, values, number):
    variable = values.variables[word]
    if not _counted(word):
        return f"WRITE_ONCE(*{variable}, {values.number(word, after)});"
    if what == "write":  # a plain word, read and written apart
        return f"atomic_set({variable}, {after});"
    if after > before:
        return f"atomic_add({after - before}, {variable});"
    # the kernel asks what a decrement came to (atomic_dec_and_test), which orders it
    return f"int v{number} = atomic_sub_return({before - after}, {variable});"
