"""A short list that still fails, from a long one: whole parts are taken away, then single items are made simpler."""

from __future__ import annotations

from itertools import chain


def shortest(items, fails, *, simpler=(), belongs=lambda item: False) -> list:
    """Take away and simplify while `fails(list)` stays true; what is left fails, and no item of it can go.

    items: what fails now. simpler: functions that each give a simpler item for an item, or the same; they are tried one
    after the other, and an item with which the list still fails stays. belongs: whether an item stays with the one
    before it and goes only together with it.
    """
    items, before = list(items), None
    while items != before:
        before = items
        items = _simpler(_fewer(items, fails, belongs), fails, simpler)
    return items


def _fewer(items, fails, belongs):
    units = []
    for item in items:
        if units and belongs(item):
            units[-1].append(item)
        else:
            units.append([item])
    size = max(1, len(units) // 2)
    while size:
        at = 0
        while at < len(units):
            candidate = units[:at] + units[at + size:]
            if candidate and fails(list(chain.from_iterable(candidate))):
                units = candidate
            else:
                at += size
        size //= 2
    return list(chain.from_iterable(units))


def _simpler(items, fails, simpler):
    for at in range(len(items)):
        for simplify in simpler:
            other = simplify(items[at])
            candidate = [*items[:at], other, *items[at + 1:]]
            if other != items[at] and fails(candidate):
                items = candidate
    return items
