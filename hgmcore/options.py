"""Options of a replay: what the rules leave to choose, with defaults that are the same for every scheme."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """One option: its values, the first of which is the general default, and what it means."""

    values: tuple[str, ...]
    help: str

    @property
    def default(self) -> str:
        return self.values[0]


OPTIONS = {
    "cache_refs": Option(("1", "folio"), "page-cache references on a huge page: 1 up to Linux 6.6, "
                                         "the number of base pages from 6.7"),
    "era": Option(("6.2", "6.3", "6.15"), "which kernel's rule smaps, mbind and migrate_pages follow"),
    "lookup_first": Option(("no", "yes"), "look the page up before page tables are made, not after"),
    "zap_frees_tables": Option(("no", "yes"), "a zap of a whole huge page frees its page tables"),
    "transient": Option(("counted", "real"), "references of look-ups that do not stay: only counted, or executed"),
}
"""Every option, by name. A scheme may have its own defaults (Engine.defaults)."""

PLANNED = ("rmap_aware", "policy", "hvo", "overflow_check", "batch", "fault_around", "locks", "model")
"""Known by name, but not supported yet."""


def resolve(engine, given: dict) -> dict[str, str]:
    """The value of every option for a scheme. ValueError names an unknown option or value and what is allowed."""
    options = {name: engine.defaults.get(name, option.default) for name, option in OPTIONS.items()}
    for name, value in given.items():
        if name in PLANNED:
            raise ValueError(f"option '{name}' is not supported yet")
        if name not in OPTIONS:
            raise ValueError(f"unknown option '{name}' (known: {', '.join(OPTIONS)})")
        value = {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
        if value not in OPTIONS[name].values:
            raise ValueError(f"option '{name}': '{value}' is not one of {', '.join(OPTIONS[name].values)}")
        options[name] = value
    return options
