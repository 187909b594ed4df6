"""Options of a replay: points on which kernels differ, with defaults that are the same for every scheme."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Option:
    """One option: its values, the first of which is the general default, and what it means.

    other: further spellings of values.
    """

    values: tuple[str, ...]
    help: str
    other: dict[str, str] = field(default_factory=dict)

    @property
    def default(self) -> str:
        return self.values[0]

    def value(self, given) -> str | None:
        """The value that `given`, a word or a truth value, spells; None if it spells none."""
        words = (("yes", "on") if given else ("no", "off")) if isinstance(given, bool) else (str(given),)
        spelled = (self.other.get(word, word) for word in words)
        return next((word for word in spelled if word in self.values), None)

    def code(self, value: str) -> int:
        """The number by which the engine knows a value: its place among the values."""
        return self.values.index(value)


OPTIONS = {
    "cache_refs": Option(("1", "folio"), "page-cache references on a huge page: 1 up to Linux 6.6, "
                                         "the number of base pages from 6.7"),
    "era": Option(("6.2", "6.3", "6.15"), "which kernel's rule smaps, mbind and migrate_pages follow"),
    "lookup_first": Option(("no", "yes"), "look the page up before page tables are made, not after"),
    "zap_frees_tables": Option(("no", "yes"), "a zap of a whole huge page frees its page tables"),
    "rmap_aware": Option(("no", "yes"), "logical_table: truncate and migration take the subtree's count along"),
    "policy": Option(("any", "base_only"), "base_only: MADV_SPLIT unmaps the range, and only base pages are mapped "
                                           "from then on"),
    "hvo": Option(("off", "on"), "struct pages of huge pages but the first page of them are given back; a scheme "
                                 "that counts on those is refused"),
    "overflow_check": Option(("none", "after", "try", "half"),
                             "refuse a reference when the count is at most 0 after it (after), before it (try), "
                             "or more than INT_MAX / 2 (half)"),
    "batch": Option(("no", "6.9", "6.12"),
                    "one atomic for a run of leaves in fork and zap, as kernels from 6.9 do; 6.9: but one on "
                    "_nr_pages_mapped for each page, as 6.9 to 6.11 do; yes is 6.12", {"yes": "6.12"}),
    "transient": Option(("real", "counted"), "references of look-ups that do not stay: executed, or only counted"),
    "locks": Option(("none", "pt", "posted"),
                    "what is held around each leaf that is mapped: nothing, the page-table lock, or all that the "
                    "posted series holds (fault mutex, VMA lock, folio lock, page-table lock)"),
    "fault_around": Option(("none", "16", "folio"),
                           "what a read of shmem maps around itself: nothing, the 64K around (to Linux 6.17), "
                           "or whole folios that begin there (from 6.18)"),
    "rmap_values": Option(("4", "3"), "rmap_id: sums of process numbers that a folio has"),
    "rmap_batch": Option(("no", "split"), "rmap_id: the split of a PMD counts its pieces in one call"),
    "rmap_exclusive": Option(("no", "tracked", "all"),
                             "rmap_id: a lone writer changes the sums (tracked), and the counts of base pages too "
                             "(all), by plain stores"),
    "addresses": Option(("apart", "kernel"),
                        "where a mapping comes to lie whose trace does not say: in a span of its own, or where Linux "
                        "puts it: below the others, aligned where huge pages may be"),
    "model": Option(("default", "posted"), "posted: the options of the scheme's own posting or kernel"),
}
"""Every option, by name. A scheme may have its own defaults (Engine.defaults)."""


def codes(options: dict[str, str]) -> dict[str, int]:
    """The numbers by which the engine knows resolved options: `Option.code`, but for `era`, 602 for "6.2"."""
    numbers = {name: OPTIONS[name].code(value) for name, value in options.items()}
    major, minor = options["era"].split(".")
    return {**numbers, "era": 100 * int(major) + int(minor)}


def core_options(options: dict[str, str]) -> dict[str, int]:
    """Resolved options as the fields of the core's hgm_options (hgm.h)."""
    code = codes(options)
    return {"era": code["era"], "cache_refs_folio": code["cache_refs"], "lookup_first": code["lookup_first"],
            "zap_frees_tables": code["zap_frees_tables"], "rmap_aware": code["rmap_aware"], "base_only": code["policy"],
            "batch": code["batch"], "transient_real": int(options["transient"] == "real"),
            "top_down": code["addresses"], "overflow_check": code["overflow_check"], "posted": code["model"],
            "locks": code["locks"], "fault_around": code["fault_around"], "rmap_values": int(options["rmap_values"]),
            "rmap_batch": code["rmap_batch"], "rmap_exclusive": code["rmap_exclusive"],
            "pmd_order": 0}    # which the core knows from the geometry


def resolve(engine, given: dict) -> dict[str, str]:
    """The value of every option for a scheme. ValueError names an unknown option or value and what is allowed."""
    options = {name: option.default for name, option in OPTIONS.items()} | engine.defaults
    if given.get("model") == "posted":
        options |= engine.posted
    options |= given
    for name, value in options.items():
        if name not in OPTIONS:
            raise ValueError(f"unknown option '{name}' (known: {', '.join(OPTIONS)})")
        options[name] = OPTIONS[name].value(value)
        if options[name] is None:
            raise ValueError(f"option '{name}': '{value}' is not one of {', '.join(OPTIONS[name].values)}")
    if options["hvo"] == "on" and engine.writes_tails:
        raise ValueError(f"scheme {engine.name} counts on struct pages that hvo=on takes away")
    return options
