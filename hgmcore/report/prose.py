"""Text of at most 80 columns of printable ASCII, whatever names a trace holds."""

import re
import textwrap

WIDTH = 80
_BREAKS = re.compile(r"(\s+|(?<=[,;/])(?=[A-Za-z]))")  # blanks, and in lists without: key=value,key=value
_TERM = re.compile(r"^([A-Za-z][\w ]{1,20}): ", re.MULTILINE)


def each(names):
    """"a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def plural(number, what):
    """"1 page", "2 pages", "3 processes"."""
    return f"{number:,} {what}{'' if number == 1 else 'es' if what.endswith(('s', 'ch')) else 's'}"


def wrapped(text, first="", rest="", width=WIDTH):
    """`text` as lines of at most `width` ASCII columns. first, rest: what lines begin with."""
    wrapper = textwrap.TextWrapper(width, break_on_hyphens=False)
    wrapper.initial_indent, wrapper.subsequent_indent = first, rest
    wrapper.wordsep_simple_re = _BREAKS
    return wrapper.wrap(ascii_only(text))


def listed(pairs, width=WIDTH):
    """(term, meaning) pairs as lines, the meanings aligned."""
    room = max((len(term) for term, _ in pairs), default=0) + 4
    return [line for term, meaning in pairs
            for line in wrapped(meaning, f"  {term}".ljust(room), " " * room, width)]


def shortened(text, room):
    """`text` in ASCII, in at most `room` characters; what does not fit is cut off."""
    text = ascii_only(" ".join(text.split()))
    cut = textwrap.shorten(text, room, placeholder=" ...")
    return cut if cut == text or len(cut) > room // 2 else text[:room - 3] + "..."


def indented(facts):
    """Facts as indented lines, one or more each."""
    return [line for fact in facts for line in wrapped(fact, "  ", "    ")]


def ascii_only(text):
    """Names in traces may hold anything; what a report prints is printable ASCII."""
    return printable(text).encode("ascii", "backslashreplace").decode()


def printable(text):
    """`text` with control characters spelled out, so that a name can do nothing to a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def paragraphs(text):
    """A docstring as lines of at most 80 columns: blocks filled, indented blocks as they are, terms aligned.

    A block of terms has two or more, each at the beginning of a line, as in "Costs: two atomics".
    """
    lines = []
    for block in text.strip("\n").split("\n\n"):
        if block.startswith(" "):
            lines += [*block.split("\n"), ""]
            continue
        parts = _TERM.split(block)
        if len(parts) < 5 or parts[0]:  # not a list of terms, only a colon in a sentence
            parts = [block]
        lines += wrapped(" ".join(parts[0].split()))
        meanings = [" ".join(meaning.split()) for meaning in parts[2::2]]
        lines += listed(list(zip(parts[1::2], meanings, strict=True)))
        lines.append("")
    return lines[:-1]


def blocks(*some):
    """Blocks of lines as one text, an empty line between blocks."""
    return "\n\n".join("\n".join(block) for block in some) + "\n"


def summary(explanation):
    """The first line of a docstring, without its full stop."""
    return explanation.strip().splitlines()[0].rstrip(".")


def click_help(text):
    """A docstring as help for click, which refills paragraphs; indented blocks keep their lines."""
    blocks = text.strip("\n").split("\n\n")
    return "\n\n".join("\b\n" + block if block.startswith(" ") else block for block in blocks)
