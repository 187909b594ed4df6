"""A short sequence that still fails, from a long one."""

from hgmcore import shrink
from hgmcore.kernel.live.kernel import PAGE


def shortest(statements, fails):
    """`hgmcore.shrink.shortest` of a sequence: a mapping that should have huge pages stays one, and ranges are at the
    beginning, of one page or of all of them, where that will do.
    """
    return shrink.shortest(statements, fails, simpler=(_one_page, _at_the_beginning), belongs=_wants_huge)


def _wants_huge(statement):
    return statement.get("advice") == "HUGEPAGE"


def _one_page(statement):
    return _with(statement, "len", PAGE)


def _at_the_beginning(statement):
    return _with(statement, "off", 0)


def _with(statement, field, value):
    """The statement with another value of a field, or itself where that field is not there or must not change."""
    if field not in statement or statement.get("op") in (None, "mmap", "mremap") or _wants_huge(statement):
        return statement
    return {**statement, field: value}
