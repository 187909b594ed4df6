"""Modelled times of a comparison as tables: accounting, the whole operation, its share, and processors together."""

from hgmcore.analysis.judge import ran
from hgmcore.report.prose import ascii_only, each
from hgmcore.report.table import Column, Table, Words, nanoseconds

MOST_PHASES = 6
ROOM = 7  # columns of counts


def interval(value, form=nanoseconds) -> str:
    """"68.6 [60.4, 76.7]"."""
    return f"{form(value['value'])} [{form(value['low'])}, {form(value['high'])}]"


def percent(value) -> str:
    """Three significant digits, with a sign."""
    return f"{value:+.{1 if abs(value) >= 10 else 2}f}"


def modelled_tables(result, full=False):
    """The tables of a result that has modelled times; full: also those of events and of processors together."""
    entries = {name: entry["modelled"] for name, entry in ran(result).items() if "modelled" in entry}
    if not entries:
        return []
    tables = [_times(result, entries)]
    shares = _shares(result, entries)
    tables += [shares] if shares else []
    tables = [*tables, _processors(result, entries), *(_events(entries) if full else [])]
    for table in tables:
        rows = dict(zip(entries, table.rows, strict=True))
        table.rows[:] = [rows[name] if name in rows else [name, Words(why)]
                         for name, why in _in_place(result, entries).items()]
    return tables


def _in_place(result, entries):
    """The schemes of `entries`, and with the reason those that have no modelled times, in the result's order."""
    whys = {name: f"refused: {entry['refused_why'].removeprefix(f'scheme {name} ')}" if "refused_why" in entry
            else entry.get("modelled_why", "") for name, entry in result["schemes"].items()}
    return {name: why for name, why in whys.items() if name in entries or why}


def _times(result, entries):
    whole = any("total" in entry for entry in entries.values())
    base = f"% of\n{result['baseline']}"
    columns = [Column("scheme", "text"), Column("accounting\nns/op", "word"), Column("ns/leaf", "word"),
               *([Column("whole operation\nns/op", "word")] if whole else []), Column(base, "word")]
    rows = []
    for name, entry in entries.items():
        other = entry.get("against")
        difference = f"{percent(other['percent']['value'])} {other['mark']}" if other else ""
        star = "*" if "less_work" in result["schemes"][name] else ""
        rows.append([name + star, interval(entry["accounting"]),
                     nanoseconds(entry["ns_per_leaf"]["value"]) if "ns_per_leaf" in entry else "",
                     *([interval(entry["total"]) if "total" in entry else "-"] if whole else []),
                     "" if name == result["baseline"] else difference])
    common = result["modelled"]
    surrogate = ", surrogate K" if common["surrogate"] and whole else ""
    table = Table(f"MODELLED ({result['profile']}{surrogate}), 90 % intervals", columns, rows)
    table.legend = [("accounting", "what the scheme does: counted events times the profile's costs"),
                    *([("whole", "with the kernel's own work, the same under every scheme")] if whole else []),
                    ("%", f"difference to {result['baseline']}, of its {_basis(entries)}; ~: not told apart; ?: leans "
                          "on an assumed cost")]
    return table


def _basis(entries):
    return next((entry["against"]["basis"] for entry in entries.values() if "against" in entry), "accounting")


def _shares(result, entries):
    """How much of each phase's operations accounting is, where every operation in it has a price."""
    found = [phase["name"] for phase in result["trace"]["phases"]
             if any("share" in entry["phases"][phase["name"]] for entry in entries.values())][:MOST_PHASES]
    if not found:
        return None
    rows = [[name, *(f"{entry['phases'][phase]['share']['value']:.0f}" if "share" in entry["phases"][phase] else "-"
                     for phase in found)] for name, entry in entries.items()]
    titles = [Column("scheme", "text"), *(Column(ascii_only(phase).replace("_", "\n"), "word") for phase in found)]
    return Table(f"SHARE of accounting in the whole operation, per cent, modelled ({result['profile']})", titles, rows)


def _processors(result, entries):
    counts = list(next(iter(entries.values()))["processors"])
    able = [cpus for cpus in counts if all("ns" in entry["processors"][cpus] for entry in entries.values())]
    table = Table(f"AT LEAST, ms, for all updates of the line written most, by processors ({result['profile']})",
                  [Column("scheme", "text"), *(Column(cpus, "word") for cpus in able), Column("line", "text")],
                  [[name, *(nanoseconds(entry["processors"][cpus]["ns"] / 1e6) for cpus in able),
                    entry["hottest"][0]["page"] if entry["hottest"] else ""] for name, entry in entries.items()])
    missing = [cpus for cpus in counts if cpus not in able]
    if missing:
        why = next(entry["processors"][missing[0]].get("why") for entry in entries.values())
        table.legend = [(", ".join(missing), f"not given: {why}")]
    return table


def _events(entries):
    """Every class of events that happened, in as many tables as lines of 80 columns need."""
    names = [name for name in next(iter(entries.values()))["events"]
             if any(entry["events"][name] for entry in entries.values())]
    for at in range(0, len(names), ROOM):
        part = names[at:at + ROOM]
        yield Table("EVENTS of the whole trace, counted" + (", continued" if at else ""),
                    [Column("scheme", "text"), *(Column(name.replace("_", "\n"), "count") for name in part)],
                    [[scheme, *(entry["events"][name] for name in part)] for scheme, entry in entries.items()])


def answer(result) -> str:
    """The schemes in the order of their cost, in one sentence."""
    first, *others = result["modelled"]["order"]
    entry = result["schemes"][first["scheme"]]["modelled"]
    k = " (K: surrogate)" if result["modelled"]["surrogate"] and "total" in entry else ""
    what = "total" if "total" in entry else "accounting"
    part = f", {entry['share']['value']:.0f} % of it accounting" if "total" in entry else " of accounting"
    text = (f"Under {result['profile']}{k}, {first['scheme']} costs {nanoseconds(entry[what]['value'])} ns an "
            f"operation{part}")
    alike = [other["scheme"] for other in others if other["mark"] == "~"]
    more = [f"{other['scheme']} {percent(other['percent'])} %" for other in others if other["mark"] != "~"]
    if alike:
        text += f"; not told apart from it: {each(alike)}"
    return f"{text}{'; ' if more else ''}{', '.join(more)}."


def modelled_notes(result) -> list[str]:
    """What else is to be said of the modelled times."""
    if not result.get("modelled"):
        return []
    lines = [answer(result)] if result["modelled"]["order"] else []
    lines += [f"{result['profile']}: {warning}." for warning in result["modelled"]["warnings"]]
    without = {}
    for entry in ran(result).values():
        for name, number in entry.get("modelled", {}).get("no_total", {}).items():
            without[name] = max(without.get(name, 0), number)
    if without:
        lines.append("No whole operation is modelled for the trace, as the profile has no K for: "
                     + ", ".join(f"{number:,} {name}" for name, number in without.items()) + ".")
    lines += [f"{name}: {entry['modelled_why']}." for name, entry in ran(result).items() if "modelled_why" in entry]
    return lines
