"""Profiles as text: a list of them, or one with every value, its interval, how it was got and from what."""

from hgmcore.model.profile import COSTS, KERNEL
from hgmcore.report.prose import indented, listed, wrapped
from hgmcore.report.table import Column, Table, as_text, nanoseconds


def three(value) -> str:
    """"5.01 [4.88, 5.20]", ns."""
    return f"{nanoseconds(value.ns)} [{nanoseconds(value.low)}, {nanoseconds(value.high)}]"


def rows_of(one) -> list:
    """The rows of [kernel] that a profile has."""
    return [row for row in KERNEL if any(name.startswith(f"kernel.{row}.") for name in one.costs)]


def profiles_text(profiles):
    """The profiles in a table, with what they are of."""
    table = Table("", [Column("profile", "text"), Column("kind", "text"), Column("atomic, ns", "word"),
                       Column("CPUs", "count"), Column("with K", "count")],
                  [[one.name, one.kind, three(one.costs["atomic"]) if "atomic" in one.costs else "",
                    one.processor["cpus"], len(rows_of(one))] for one in profiles])
    lines = [*as_text(table), "",
             *listed([("kernel", "has the kernel's own work, K, of some operations: totals, and per cent of them"),
                      ("accounting", "prices only what a scheme does"),
                      ("with K", "kinds of operations whose own work it knows")]), ""]
    lines += listed([(one.name, one.description) for one in profiles])
    return "\n".join(lines) + "\n"


def profile_text(one):
    """One profile with all that it says."""
    lines = [*wrapped(f"{one.name}: {one.description}"), ""]
    lines += indented([f"{key}: {value}" for key, value in one.processor.items()])
    lines += [line for warning in one.warnings for line in ["", *wrapped(f"Warning: {warning}.")]]
    if one.replay_gate:
        lines += ["", *wrapped(f"Check against warm replays: {one.replay_gate}.")]
    for title, names in (("COSTS, ns [90 % interval]", [name for name in one.costs if not name.startswith("kernel.")]),
                         ("K, the kernel's own work", [name for name in one.costs if name.startswith("kernel.")])):
        rows = [[name.removeprefix("kernel."), three(one.costs[name]), one.costs[name].how] for name in names]
        if rows:
            columns = [Column("what", "text"), Column("ns", "word"), Column("how", "text")]
            lines += ["", title, *as_text(Table("", columns, rows)), ""]
            sources = {}
            for name in names:
                sources.setdefault(one.costs[name].source, []).append(name.removeprefix("kernel."))
            lines += [line for source, mine in sources.items()
                      for line in wrapped(f"{', '.join(mine)}: {source}", "  ", "    ")]
    if one.curve:
        lines += ["", "CONTENTION, ns of an update for each of n CPUs on one line",
                  *wrapped(f"{_formula(one.curve)}; points up to {one.curve.valid_to} CPUs, off by at most "
                           f"{one.curve.error:.0%}; {one.curve.how}: {one.curve.source}", "  ", "  ")]
    for key, why in one.not_measurable.items():
        lines += ["", *wrapped(f"{key}: not measurable here: {why}")]
    lines += ["", *listed([(name, COSTS[name]) for name in COSTS if name in one.costs]
                          + [(row, KERNEL[row]) for row in rows_of(one)])]
    return "\n".join(lines) + "\n"


def _formula(curve):
    parts = [f"{curve.t1:g}", f"{curve.h:g} [n > 1]" if curve.h else "", f"{curve.g:g} (n - 1)",
             f"{curve.q:g} n (n - 1)" if curve.q else ""]
    return " + ".join(filter(None, parts))


def profile_json(one) -> dict:
    """One profile in plain JSON types."""
    return {"kind": one.kind, "description": one.description, "processor": dict(one.processor),
            "costs": {name: {"value": value.ns, "low": value.low, "high": value.high, "unit": "ns", "how": value.how,
                             "from": value.source} for name, value in one.costs.items()},
            "contention": None if one.curve is None else {"t1": one.curve.t1, "h": one.curve.h, "g": one.curve.g,
                                                          "q": one.curve.q, "valid_to": one.curve.valid_to},
            "warnings": list(one.warnings), "not_measurable": dict(one.not_measurable), "replay_gate": one.replay_gate}
