"""Decisions about a result of `compare`: who ran, whose costs can be compared, who is the baseline, who breaks what."""

from __future__ import annotations

from collections import Counter

DEFAULT_BASELINES = ("head_per_leaf", "mm_id")
"""For hugetlb, and for the rest."""

LESS = 0.99
"""A scheme that installed and removed fewer leaves than this share of the usual number did less work."""

MORE = 0.01
"""A scheme that refused more operations than is usual by this share of all did less work."""


def ran(result) -> dict:
    """The schemes that could live with the options: name -> entry."""
    return {name: scheme for name, scheme in result["schemes"].items() if "refused_why" not in scheme}


def less_work(schemes) -> dict:
    """Schemes that did less of the trace's work than most did, so that their costs do not compare: name -> why.

    schemes: name -> entry of a result. Less work is many more operations refused, or fewer leaves installed and
    removed: a collapse that does nothing is not refused. A few refusals more are an error of the scheme, not another
    amount of work.
    """
    found = {}
    if not schemes:
        return found
    usual_refused = _usual(sum(entry["refused"].values()) for entry in schemes.values())
    usual_leaves = _usual(entry["leaves"] for entry in schemes.values())
    for name, entry in schemes.items():
        refused = sum(entry["refused"].values())
        if refused - usual_refused > MORE * entry["cost"]["operations"]:
            found[name] = f"refused {refused:,} operations, where {usual_refused:,} is usual"
        elif entry["leaves"] < LESS * usual_leaves:
            found[name] = f"installed and removed {entry['leaves']:,} leaves, where {usual_leaves:,} is usual"
    return found


def _usual(numbers):
    """The most frequent of some numbers; the largest of several such."""
    counts = Counter(numbers)
    return max(counts, key=lambda number: (counts[number], number))


def baseline(schemes, header, wanted=None):
    """The scheme that others are compared with: `wanted`, or the default for the trace's files; None without one.

    schemes: names. ValueError: `wanted` is not among them.
    """
    if wanted is not None:
        if wanted not in schemes:
            raise ValueError(f"baseline: {wanted} is not among the schemes ({', '.join(schemes)})")
        return wanted
    on_hugetlb = any(file.kind == "hugetlb" for file in header.files) or not header.files
    preferred = DEFAULT_BASELINES if on_hugetlb else DEFAULT_BASELINES[::-1]
    return next((name for name in (*preferred, *schemes) if name in schemes), None)


def broken(entry) -> dict:
    """Errors against the scheme's own promise, without the faults that its file states."""
    return {key: count for key, count in entry["errors"]["own"].items() if not count.get("known")}
