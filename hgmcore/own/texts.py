"""The texts of a scheme that comes as a table or a class: names, and pairs of words."""

from __future__ import annotations

import re

from hgmcore.core.core import PROPERTIES
from hgmcore.core.machine import PAGE
from hgmcore.options import OPTIONS

WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def word(name: str) -> str:
    """A scheme's name, if it is a word. ValueError."""
    if not WORD.fullmatch(name):
        raise ValueError(f"a scheme's name is a word (a letter or _, then letters, digits, _ . -), not {name!r}")
    return name


def pairs(name: str, what: str, text: str) -> dict[str, str]:
    """ "key=value key=value" as a dict, checked as `checked`."""
    found = {}
    for item in text.split():
        key, equals, value = item.partition("=")
        if not (key and equals and value):
            raise ValueError(f"scheme{name}: {what}: {item!r} is not of the form key=value")
        found[key] = value
    return checked(name, what, found)


def checked(name: str, what: str, found: dict) -> dict:
    """Pairs of a scheme: `state`, `defaults`, `posted` or `exceptions`. ValueError."""
    for key, value in found.items():
        if what == "state" and value not in PAGE.names:
            raise ValueError(
                f"scheme{name}: state: struct page has no word {value!r} (it has: {', '.join(PAGE.names)})"
            )
        if what in ("defaults", "posted") and (key not in OPTIONS or OPTIONS[key].value(value) is None):
            raise ValueError(f"scheme{name}: {what}: {key}={value} is no option of a replay")
        if what == "exceptions" and (key not in PROPERTIES or value not in ("definition", "fault")):
            raise ValueError(
                f"scheme{name}: exceptions: {key}={value} is no property with 'definition' or 'fault' "
                f"(properties: {', '.join(PROPERTIES)})"
            )
    return found
