"""Sizes as traces, options and reports spell them: 4096, 0x1000, 4K, 2M, 1G, 1T."""

from __future__ import annotations

import re

UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

# What a number may be, so that every number also fits a signed 64-bit column.
LIMIT = 1 << 63

_SIZE = re.compile(r"(?:0x([0-9a-fA-F]+)|([0-9]+))([A-Za-z]?)")


def parse_size(text: str | int) -> int:
    """The number that `text` spells: decimal or 0x, then at most one of K, M, G, T (powers of 1024).

    Raises ValueError, whose text is the reason: not a number, negative, an unknown unit, or 2**63 and more.
    """
    if type(text) is not str:
        text = str(text)
    factor = UNITS.get(text[-1:])
    digits = text[:-1] if factor else text
    if digits.isdecimal() and digits.isascii() and len(digits) < 19:
        value = int(digits) * (factor or 1)
    else:
        value = _other_size(text)
    if value >= LIMIT:
        raise ValueError(f"{quoted(text)} is too large (numbers are below 2**63)")
    return value


def parse_named(name: str, value: str | int) -> int:
    """`parse_size` of the value of an option or parameter `name`, which a ValueError names."""
    try:
        return parse_size(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _other_size(text: str) -> int:
    """`parse_size` for what is not a plain decimal; numbers that are too large may come out as any such."""
    match = _SIZE.fullmatch(text)
    if match is None:
        reason = "negative" if re.fullmatch(r"-\w+", text) else "not a number"
        raise ValueError(f"{quoted(text)} is {reason} (expected decimal or 0x, then K, M, G or T)")
    hexadecimal, decimal, unit = match.groups()
    if unit and unit not in UNITS:
        raise ValueError(f"{quoted(text)} has an unknown unit {unit!r} (expected K, M, G or T)")
    digits = hexadecimal or decimal.lstrip("0") or "0"
    value = int(digits, 16 if hexadecimal else 10) if hexadecimal or len(digits) < 20 else LIMIT
    return value * UNITS.get(unit, 1)


def format_size(value: int) -> str:
    """`value` in the largest unit that divides it, "0" for 0; `parse_size` gives it back."""
    unit = min(((value & -value).bit_length() - 1) // 10, len(UNITS)) if value else 0
    return f"{value >> 10 * unit}{' KMGT'[unit]}" if unit else str(value)


def quoted(text: str) -> str:
    """`text` in quotes, for an error of one line: escaped, and cut where it is long."""
    return repr(text if len(text) <= 40 else text[:37] + "...")
