"""How objects show themselves: as the C struct that they stand for."""

from __future__ import annotations

from typing import Any


def shaped(struct: str, **fields: Any) -> str:
    """A C struct with its fields, as in ``(struct file){.name = "F", .pages = 4}``."""
    return f"(struct {struct}){{{', '.join(f'.{name} = {value}' for name, value in fields.items())}}}"


def quoted(text: str) -> str:
    """A text as C spells it; names of the simulator hold nothing that would need an escape."""
    return f'"{text}"'
