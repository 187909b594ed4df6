"""The report of an import: how much was read, used and skipped, with the reasons."""

from __future__ import annotations

from collections import Counter

REASONS = 100  # bounds the report, whatever the input
SHOWN = 15  # reasons that str() gives each a line


class Report:
    """Counts of one import.

    lines: lines (or records) read. used: what -> how many. skipped: reason -> how many. first: reason -> line
    where it was met first. notes: what else a user should know.
    """

    def __init__(self, format: str, name: str):
        self.format, self.name, self.lines = format, name, 0
        self.used: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.first: dict[str, int] = {}
        self.notes: list[str] = []

    def skip(self, reason: str, line: int, count: int = 1) -> None:
        """Count `count` lines as skipped, the first of which is `line`."""
        if not count:
            return
        if reason not in self.skipped and len(self.skipped) >= REASONS:
            reason = "other reasons"
        self.skipped[reason] += count
        self.first[reason] = min(line, self.first.get(reason, line))

    def summary(self) -> str:
        """One line: everything used, and how much was skipped."""
        used = ", ".join(f"{count} {what}" for what, count in self.used.items())
        return f"{self.lines} lines: {used}; {self.skipped.total()} skipped"

    def to_dict(self) -> dict:
        """Plain JSON types."""
        return {"format": self.format, "name": self.name, "lines": self.lines, "used": dict(self.used),
                "skipped": [{"reason": reason, "count": count, "first_line": self.first[reason]}
                            for reason, count in self.skipped.most_common()],
                "notes": list(self.notes)}

    def __str__(self) -> str:
        rows = [f"{self.name}: {self.lines} lines"]
        rows += [f"  used     {count:>9}  {what}" for what, count in self.used.items()]
        reasons = self.skipped.most_common()
        rows += [f"  skipped  {count:>9}  {reason} (first in line {self.first[reason]})"
                 for reason, count in reasons[:SHOWN]]
        if len(reasons) > SHOWN:
            count = sum(count for _, count in reasons[SHOWN:])
            rows.append(f"  skipped  {count:>9}  for {len(reasons) - SHOWN} more reasons")
        rows += [f"  note     {note}" for note in self.notes]
        return "\n".join(rows)
