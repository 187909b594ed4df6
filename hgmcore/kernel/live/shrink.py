"""A short sequence that still fails, from a long one."""

from hgmcore.kernel.live.kernel import PAGE


def shortest(statements, fails):
    """Take away and simplify while `fails(statements)` stays true; what is left fails, and no step of it can go."""
    before = None
    while statements != before:
        before = statements
        statements = _simpler(_fewer(statements, fails), fails)
    return statements


def _fewer(statements, fails):
    units = []
    for statement in statements:
        if statement.get("advice") == "HUGEPAGE":  # a mapping that should have huge pages stays one
            units[-1].append(statement)
        else:
            units.append([statement])
    size = max(1, len(units) // 2)
    while size:
        at = 0
        while at < len(units):
            candidate = units[:at] + units[at + size:]
            if candidate and fails(sum(candidate, [])):
                units = candidate
            else:
                at += size
        size //= 2
    return sum(units, [])


def _simpler(statements, fails):
    """Ranges at the beginning, of one page or of all of them, where that will do."""
    for at, statement in enumerate(statements):
        for field, value in (("len", PAGE), ("off", 0)):
            if statement.get(field, value) == value or statement.get("op") in (None, "mmap", "mremap") \
                    or statement.get("advice") == "HUGEPAGE":
                continue
            candidate = [*statements[:at], {**statement, field: value}, *statements[at + 1:]]
            if fails(candidate):
                statements, statement = candidate, candidate[at]
    return statements
