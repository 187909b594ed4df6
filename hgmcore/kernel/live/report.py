"""A result of `validate_live` for people: ASCII, at most 80 columns but for traces."""

from hgmcore.report.prose import listed, plural, wrapped
from hgmcore.report.table import Column, Table, as_text
from hgmcore.report.validate import LEGEND, values_table


def live_text(result):
    if result.get("sequence"):
        return _sequence_text(result)
    memory = "shmem, anonymous and hugetlb memory" if result["hugetlb"] else "shmem and anonymous memory"
    last = result["seed"] + result["sequences"] + result["disturbed"] + len(result["not_repeated"]) - 1
    lines = wrapped(f"hgmcore validate --live: {plural(result['sequences'], 'random sequence')} on Linux "
                    f"{result['kernel']}, {memory}; seeds {result['seed']} to {last}")
    values = values_table(result["values"])
    names = {row[0] for row in values.rows}
    lines += ["", values.title, *as_text(values), "", *listed([pair for pair in LEGEND if pair[0] in names])]
    if result["out_of_scope"]:
        lines += ["", "ANSWERS not compared, by reason"]
        for reason, count in result["out_of_scope"].items():
            lines += wrapped(f"{count}  {reason}", "  ", "     ")
    lines += _left_out(result) + _times(result["times"]) + _difference(result["difference"])
    compared, equal = (sum(row[column] for row in values.rows) for column in (1, 3))
    return "\n".join([*lines, "", f"{result['steps']:,} steps; {equal:,} of {compared:,} values equal"]) + "\n"


def _sequence_text(result):
    lines = wrapped(f"hgmcore validate --live --sequence {result['sequence']}: on Linux {result['kernel']}")
    lines += ["", "STEPS, the kernel's answers, and map counts of pages that it then maps"]
    for text in result["shown"]:
        lines += wrapped(text, "  ", "     ")
    if result["out_of_scope"]:
        lines += ["", "ANSWERS not compared, by reason"]
        for reason, count in result["out_of_scope"].items():
            lines += wrapped(f"{count}  {reason}", "  ", "     ")
    if result["not_repeated"]:
        lines += ["", *wrapped("A difference that the kernel did not show again: "
                               + result["not_repeated_differences"][0]["differences"][0])]
    if difference := result["difference"]:
        lines += ["", f"DIFFERENCE from {difference['scheme']}, simulated:"]
        lines += [line for text in difference["differences"] for line in wrapped(text, "  ", "    ")]
    compared, equal = (sum(kind[key] for kind in result["values"].values()) for key in ("compared", "equal"))
    return "\n".join([*lines, "", f"{result['steps']:,} steps; {equal:,} of {compared:,} values equal"]) + "\n"


def _left_out(result):
    lines = []
    if result["disturbed"]:
        count = plural(result["disturbed"], "sequence")
        lines += ["", *wrapped(f"{count} left out: khugepaged collapsed pages meanwhile.")]
    if result["not_repeated"]:
        lines += ["", *wrapped(f"Differences that the kernel did not show again: seeds "
                               f"{', '.join(map(str, result['not_repeated']))}.")]
        for each in result["not_repeated_differences"]:
            lines += wrapped(f"seed {each['seed']}: {each['differences'][0]}", "  ", "    ")
    return lines


def _times(times):
    if not times:
        return []
    table = Table("", [Column("operation", "text"), Column("count"),
                       *(Column(title, "ns", side) for side in ("kernel", "simulator")
                         for title in ("lower", "median", "upper"))])
    table.rows = [[kind, n["count"], *n["kernel"], *n["simulator"]] for kind, n in times.items()]
    return ["", "TIME of an operation that succeeds, ns: median and quartiles", *as_text(table), "", *wrapped(
        "Least of five runs of each step, one step at a time, so with cold caches. The kernel's time has the system "
        "call, locks, TLB flushes and zeroing of memory in it; the simulator's has page tables and counts alone. What "
        "measuring takes is taken off. fork and exit are not timed: most of them is the interpreter in the process.")]


def _difference(difference):
    if not difference:
        return []
    return ["", f"DIFFERENCE, seed {difference['seed']}; the shortest sequence that shows it, as a trace for "
                f"{difference['scheme']}:", "", difference["trace"].rstrip(), "",
            *(line for text in difference["differences"] for line in wrapped(text, "  ", "    "))]
