"""Decisions about a result of `compare`: who ran, whose costs can be compared, who is the baseline, who is right."""

from __future__ import annotations

from collections import Counter


def ran(result):
    """The schemes that could live with the options: name -> entry."""
    return {name: scheme for name, scheme in result["schemes"].items() if "refused" not in scheme}


def is_right(result, name):
    """Whether the scheme made no error. A refused operation is none, and sharing by hugetlb's rule is left out."""
    error = result["schemes"][name]["error"]
    return not any(value for key, value in error.items()
                   if key != "refused_operations" and not key.endswith("_hugetlb"))


def partial(result):
    """Schemes that refused more operations than most did: what they cost stands on less work."""
    refused = {name: scheme["error"]["refused_operations"] for name, scheme in ran(result).items()}
    numbers = Counter(refused.values())
    usual = min(numbers, key=lambda number: (-numbers[number], number))
    return [name for name, number in refused.items() if number > usual]


def baseline(result):
    """The scheme that changes of time are against: the first that did all the work; None without another."""
    full = [name for name in ran(result) if name not in partial(result)]
    return full[0] if len(full) > 1 else None
