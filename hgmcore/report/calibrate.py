"""A calibration as text and as JSON."""

from hgmcore.report.profiles import profile_json, three
from hgmcore.report.prose import wrapped
from hgmcore.report.table import Column, Table, as_text

MEANINGS = {
    "atomic": "a lock add on one word", "cas": "a load, then a compare-and-swap, on one word",
    "lock": "a lock taken and left by one CPU", "tail": "a lock add on each of 262,144 lines in order",
    "plain": "a plain add on a line that is here", "scan": "a page-table entry looked at",
    "far": "on top, a line at random beyond the caches", "pair": "a lock add for each of two CPUs on one line",
}


def calibration_text(found, profile):
    """What was measured, what was not and why, and the check against warm replays."""
    rows = [[name, three(value), MEANINGS[name.split(".")[0]]] for name, value in found.values.items()]
    columns = [Column("ns", "text"), Column("median [10 %, 90 %]", "word"), Column("of", "text")]
    lines = [*wrapped(f"{profile.processor['model']}, {len(found.cpus)} CPUs; {found.seconds:.1f} s"), "",
             *as_text(Table("", columns, rows))]
    work = [[name.removeprefix("kernel."), three(value)] for name, value in profile.costs.items()
            if name.startswith("kernel.") or name == "copy"]
    if work:
        columns = [Column("ns", "text"), Column("median [10 %, 90 %]", "word")]
        lines += ["", *as_text(Table("The running kernel, less its accounting", columns, work))]
    for name, why in profile.not_measurable.items():
        lines += ["", *wrapped(f"{name}: not measurable here: {why}.", "", "  ")]
    taken = [name for name, value in profile.costs.items() if value.how == "transferred"]
    if taken:
        lines += ["", *wrapped(f"Taken from another profile, by the cost of an atomic: {', '.join(taken)}.")]
    if found.gate:
        lines += ["", *wrapped(f"Check against warm replays {found.gate}.")]
    return "\n".join(lines) + "\n"


def calibration_json(found, profile):
    """The same in plain JSON types, with the profile."""
    return {"format": "hgmcore-calibrate 1", "seconds": found.seconds, "cpus": found.cpus,
            "measured": {name: {"median": value.ns, "low": value.low, "high": value.high}
                         for name, value in found.values.items()},
            "not_measurable": dict(found.missing), "replay_gate": found.gate, "replays": found.cells,
            "profile": profile_json(profile)}
