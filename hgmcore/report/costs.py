"""The page of `hgmcore schemes --costs`: what one operation costs under each scheme."""

from hgmcore.sizes import format_size, parse_size


def cost_text(table: dict, page_size="2M") -> str:
    """The table as plain text of at most 80 columns: a block for each action."""
    lines = [f"Counted, for one huge page of {format_size(parse_size(page_size))}: "
             "atomics on references (ref) and map counts",
             "(map), struct pages that they write (pages), atomics of look-ups that are put",
             "back (temp), page-table entries scanned."]
    for action, row in table.items():
        lines += ["", f"{action:34}{'ref':>9}{'map':>9}{'pages':>8}{'temp':>8}{'scanned':>9}"]
        for name, cost in row.items():
            numbers = (f"{cost['ref']:>9,}{cost['map']:>9,}{cost['lines']:>8,}{cost['transient']:>8,}"
                       f"{cost['entries_scanned']:>9,}")
            refused = f"{'refused: ' + ', '.join(cost['errors']):>43}"
            lines.append(f"  {name:32}" + (refused if cost["errors"] else numbers))
    return "\n".join(lines) + "\n"
