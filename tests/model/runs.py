"""Runs `(first, last, value)`, half-open and ascending, stand for functions of a base page."""
from collections import Counter


def coverage(spans, pages):
    """Runs over [0, pages) of how many of the (first, last) spans cover each page."""
    change = Counter()
    for first, last in spans:
        change[first] += 1
        change[last] -= 1
    return steps(change, pages)


def steps(change, pages):
    """Runs over [0, pages) of the function that rises by change[p] at page p; equal neighbours are merged."""
    runs, value, at = [], change.get(0, 0), 0
    for page in sorted(p for p, rise in change.items() if rise and 0 < p < pages):
        runs.append((at, page, value))
        at, value = page, value + change[page]
    return [*runs, (at, pages, value)]


def consecutive(numbers):
    """Ascending numbers as lists of those that follow one another."""
    lists = []
    for number in numbers:
        if lists and lists[-1][-1] + 1 == number:
            lists[-1].append(number)
        else:
            lists.append([number])
    return lists


def clipped(runs, first, last):
    return [(max(a, first), min(b, last), v) for a, b, v in runs if a < last and first < b]


def merged(runs):
    """Runs with equal neighbours merged."""
    result = []
    for first, last, value in runs:
        if result and result[-1][1:] == (first, value):
            first = result.pop()[0]
        result.append((first, last, value))
    return result
