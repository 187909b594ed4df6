"""A result of `compare` in long form: one row for each number of each scheme, as tables and databases take it."""

from __future__ import annotations

from typing import Any

from hgmcore.arrow import Tabular

COLUMNS = ("scheme", "phase", "group", "key", "value", "low", "high", "unit", "label", "note")
"""scheme, group, key, unit and label are words; phase is None for the whole trace; value, low, high: numbers or None.

group: cost, scanned, measured, modelled, events, memory, struct_pages, maps_of, own, per_page, consequences, refused,
less_done, front. low, high: the 95 % interval of a measured value, the 90 % interval of a modelled one. label: counted,
modelled, measured or published. note: why a scheme has no numbers, or did less work so that its costs do not compare.
"""

UNITS = {"leaves": "leaves", "leaf_installs": "leaves", "leaf_removes": "leaves", "table_allocs": "tables",
         "table_frees": "tables", "lines": "pages", "entries_scanned": "entries", "operations": "operations",
         "locks": "locks", "pages_not_freed": "pages", "page_mapcount_wrong_pages": "pages"}
"""Units of keys whose name, or group, does not say it."""


class Comparison(Tabular):
    """A result of `compare`: a dict of plain JSON types, and a table in long form."""

    def long(self) -> dict[str, Any]:
        """The columns of COLUMNS: name -> list."""
        return long(self)


def long(result) -> dict:
    """A result of `compare`, also one that was read from JSON, as columns: name -> list, all of one length."""
    rows = long_rows(result)
    return {name: [row[name] for row in rows] for name in COLUMNS}


def long_rows(result) -> list[dict]:
    """A row, a dict of COLUMNS, for each scheme, phase and number; a refused scheme has one row without a value."""
    rows = []
    for name, entry in result["schemes"].items():
        note = entry.get("refused_why") or entry.get("less_work") or ""
        refused = [("refused", None, "refused", None, "", "counted")]
        numbers = refused if "refused_why" in entry else _numbers(result, name)
        for group, phase, key, value, unit, label in numbers:
            value, low, high = value if isinstance(value, tuple) else (value, None, None)
            rows.append(dict(zip(COLUMNS, (name, phase, group, key, None if value is None else float(value), low, high,
                                           unit, label, note), strict=True)))
    return rows


def _numbers(result, name):
    """Yield (group, phase, key, value, unit, label) of a scheme; a value with an interval is (value, low, high)."""
    entry = result["schemes"][name]
    yield "front", None, "front", name in result["verdict"]["front"], "", "counted"
    yield from (("cost", None, key, value, _unit(key), "counted") for key, value in _flat(entry["cost"]))
    for part in ("phases", "phases_batched"):
        suffix = part.removeprefix("phases").replace("_", ".")
        for phase, counts in (entry.get(part) or {}).items():
            for key, value in _flat(counts):
                if key.startswith("scanned."):
                    rest = key.removeprefix("scanned.")
                    yield "scanned", phase, rest + suffix, value, _unit(rest, "entries"), "counted"
                else:
                    yield "cost", phase, key + suffix, value, _unit(key), "counted"
    for part in ("measured", "modelled"):
        yield from _times(part, entry.get(part) or {})
    labels = result["labels"]
    yield from (("memory", None, key, value, "bytes", labels.get(f"memory.{key}", "modelled"))
                for key, value in entry["memory"].items())
    for size, value in entry["struct_pages"].items():
        yield "struct_pages", None, size, value, "bytes", "modelled"
    for size, number in entry.get("maps_of", {}).items():
        yield "maps_of", None, size, number, "mappings", "counted"
    for group, errors in entry["errors"].items():
        for key, count in errors.items():
            unit = "bytes" if "bytes" in key else _unit(key, "errors")
            yield group, None, f"{key}.observations", count["observations"], "observations", "counted"
            yield group, None, f"{key}.worst", count["worst"], unit, "counted"
            yield group, None, f"{key}.last", count["last"], unit, "counted"
    yield from (("refused", None, errno, number, "operations", "counted") for errno, number in entry["refused"].items())
    yield from (("less_done", None, key, value, key.rpartition(".")[2], "counted")
                for key, value in _flat(entry["less_done"]))


def _times(part, found):
    """The rows of measured or modelled numbers, with their intervals, of the whole trace and of phases."""
    for key, time in found.items():
        if key == "phases":
            for phase, inner in time.items():
                times = {"ns_per_operation": inner} if _of(inner) else inner
                yield from ((part, phase, *row[2:]) for row in _times(part, times))
        elif isinstance(time, dict) and _of(time):
            yield part, None, key, _of(time), {"share": "%", "ns_per_leaf": "ns/leaf"}.get(key, "ns/operation"), part
        elif key == "events":
            yield from (("events", None, name, number, "events", "counted") for name, number in time.items())
        elif key == "against":
            yield part, None, "difference_percent", _of(time["percent"]), "%", part
        elif key == "processors":
            yield from ((part, None, f"processors.{cpus}", found["ns"], "ns", part) for cpus, found in time.items()
                        if "ns" in found)
        elif isinstance(time, (bool, int, float)):
            yield part, None, key, time, "", part


def _of(time):
    """(value, low, high) of an interval, None of what is none."""
    if not isinstance(time, dict) or not {"low", "high"} <= time.keys():
        return None
    return time["median"] if "median" in time else time["value"], time["low"], time["high"]


def _flat(numbers, prefix=""):
    """Yield (key, number) of a dict, also of dicts in it, whose keys are joined by dots."""
    for key, value in numbers.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, (bool, int, float)):
            yield f"{prefix}{key}", value


def _unit(key, other="atomics"):
    return UNITS.get(key, "bytes" if "bytes" in key else other)
