"""The page of `hgmcore validate`: recordings of running kernels against the simulator."""

from hgmcore.report.prose import listed, plural, wrapped
from hgmcore.report.table import Column, Table, as_text


def validate_text(result) -> str:
    """A result of `validate` for people: ASCII, at most 80 columns."""
    table = Table("", [Column("recording", "text"), Column("kernel", "text"), Column("scheme", "text"), Column("steps"),
                       Column("out of\nscope", "errors"), Column("observed"), Column("equal")])
    table.rows = [[r["recording"], r["kernel"], r["scheme"], r["steps"], len(r["out_of_scope"]), r["observations"],
                   r["equal"]] for r in result["recordings"]]
    values = values_table(result["values"])
    lines = [f"hgmcore validate: {plural(len(table.rows), 'recording')} of running kernels", "", *as_text(table), "",
             values.title, *as_text(values), "", *listed(LEGEND)]
    reasons = {}
    for r in result["recordings"]:
        for step in r["out_of_scope"]:
            reasons.setdefault(step["reason"], []).append(f"{r['recording'].partition('_')[0]} {step['step']}")
    if reasons:
        lines += ["", *wrapped(f"OUT OF SCOPE, {plural(result['out_of_scope'], 'step')} of {result['steps']:,}")]
        for reason, steps in sorted(reasons.items(), key=lambda item: -len(item[1])):
            lines += wrapped(f"{len(steps)}  {reason}: {', '.join(steps)}", "  ", "     ")
    for what, count in result["not_compared"].items():
        lines += ["", *wrapped(f"Not compared: {what}, {plural(count, 'value')}.")]
    for r in result["recordings"]:
        if r["differences"]:
            lines += ["", *wrapped(f"{r['recording']}: {plural(len(r['differences']), 'difference')}, the first:"),
                      *wrapped(r["differences"][0], "  ", "  ")]
    return "\n".join([*lines, "", f"{result['equal']:,} of {result['observations']:,} observations equal"]) + "\n"


def values_table(values) -> Table:
    """What was compared, from {kind: {"compared", "not_zero", "equal"}}."""
    table = Table("VALUES in them, by kind", [Column("kind", "text"), Column("compared"), Column("not 0"),
                                              Column("equal"), Column("different", "errors")])
    table.rows = [[kind, n["compared"], n["not_zero"], n["equal"], n["compared"] - n["equal"]]
                  for kind, n in values.items()]
    return table


LEGEND = [
    ("step", "a system call of a recording"),
    ("out of scope", "steps that traces have no statement for; their answer is not compared"),
    ("observed", "steps of which something was compared: the call's answer (error, bytes done, event) or the state of "
                 "all processes and files behind it"),
    ("equal", "those of which every value is equal"),
    ("not 0", "values that the kernel did not have as 0 or none: pages that are mapped, calls that failed"),
    ("VMAs", "where those of each mapping begin and end, and whether they may be read and written"),
    ("map count", "of every 4K page of each file and each mapping"),
    ("leaf", "what maps each 4K page of each mapping: a PTE, a huge entry, or nothing"),
    ("frame", "of each 4K page: whether it is that of another page, and the one that it had before: copied or not"),
    ("references", "of each large folio, as a BPF program reads them"),
    ("exclusive bit", "bit 56 of pagemap, of each 4K page of each mapping"),
    ("mapped by PMD", "AnonHugePages, ShmemPmdMapped and FilePmdMapped of smaps"),
    ("page-table pages", "VmPTE of each process"),
]
