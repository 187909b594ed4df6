"""`validate --published` as text: each table with its cells and misses, then the scores beside two baselines."""

from hgmcore.report.prose import listed, plural, wrapped
from hgmcore.report.table import Column, Table, as_text

GOALS = {"sign": "sign >= 0.90", "null": "null >= 0.90", "rank": "rank >= 0.90", "covered": "covered >= 0.85",
         "mean_error": "mean error <= 2.5", "half_the_baseline": "at most half of the baseline's"}


def points(value) -> str:
    """"-24.3"."""
    return f"{value:+.1f}"


def between(value) -> str:
    """"-24.3 [-31.5, -17.0]"."""
    return f"{points(value['value'])} [{points(value['low'])}, {points(value['high'])}]"


def fraction(value) -> str:
    return "-" if value is None else f"{value:.2f}"


def published_text(result):
    """The result of kernel.published.validate() as text."""
    lines = [*wrapped("Changes of run time, after / before - 1, in per cent. F: used to fit the profile, not scored; "
                      "!: a miss. Predicted: modelled, with its 90 % interval.")]
    for table in result["tables"]:
        lines += ["", *wrapped(f"{table['name']}: {table['title']}; {table['processor']}"),
                  *wrapped(f"from {table['from']}", "  ", "  ")]
        lines += {"seconds": _changes, "change": _changes, "bounds": _bounds, "signs": _signs,
                  "exact": _exact, "prediction": _predictions, "figures": _figures}[table["kind"]](table)
    lines += ["", "SCORES of judged cells, the model (profile as shipped) beside two baselines", *_scores(result)]
    lines += ["", "TAKEN OUT of the model, the rest fitted again; judged cells of fork and munmap", *_ablation(result)]
    lines += ["", "NOT EXPRESSED"]
    for one in result["not_expressed"]:
        lines += wrapped(f"{one['what']}: {one['why']} ({one['from']})", "  ", "    ")
    return "\n".join([*lines, "", *_verdict(result)]) + "\n"


def _changes(table):
    marks = {False: "  ", True: "! "}
    rows = [[("F " if row["use"] == "fitted" else marks[row["miss"]]) + row["cell"], points(row["published"]),
             between(row["predicted"]), *(points(value) for value in row["baselines"].values())]
            for row in table["rows"]]
    titles = list(table["rows"][0]["baselines"])
    columns = [Column("cell", "text"), Column("published", "word"), Column("predicted", "word"),
               *(Column(title.replace(" + ", "\n+ ").replace(" atomics", " atom."), "word") for title in titles)]
    missed = [row for row in table["rows"] if row["miss"]]
    judged = [row for row in table["rows"] if row["use"] == "judged"]
    lines = as_text(Table("", columns, rows))
    for row in missed:
        lines += wrapped(f"{row['cell']}: published {points(row['published'])}, predicted {between(row['predicted'])}: "
                         f"{row['cause']}", "  ! ", "    ")
    far = max((abs(row["predicted"]["value"] - row["published"]) for row in judged), default=0)
    return [*lines, f"  {len(missed)} of {plural(len(judged), 'judged cell')} missed, largest error {far:.1f} points"]


def _bounds(table):
    rows = [[("! " if row["miss"] else "  ") + row["cell"], f"{row['published'][0]:g} to {row['published'][1]:g}",
             between(row["predicted"])] for row in table["rows"]]
    columns = [Column("cell", "text"), Column("published", "word"), Column("predicted", "word")]
    return [*as_text(Table("", columns, rows)),
            f"  {sum(not row['miss'] for row in table['rows'])} of {len(rows)} within the bounds"]


def _predictions(table):
    rows = [[row["operation"], row["stage"], between(row["predicted"])] for row in table["rows"]]
    columns = [Column("workload", "text"), Column("stage", "text"), Column("predicted", "word")]
    return [*as_text(Table("", columns, rows)), f"  {plural(len(rows), 'prediction')}, not scored"]


def _figures(table):
    def digits(value):
        return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
    columns = [Column("design", "text"), *(Column(f"{what}\n{n}", "word") for what in ("update", "read")
                                           for n in table["cpus"])]
    rows = [[row["cell"], *map(digits, row["update"]), *map(digits, row["read"])] for row in table["rows"]]
    like = ", ".join(f"{row['scheme']} as {row['cell']}" for row in table["rows"] if row["scheme"])
    return [*as_text(Table("", columns, rows)), *wrapped(f"A map count: {like}.", "  ", "  ")]


def _signs(table):
    lines = []
    for row in table["rows"]:
        right = "sign wrong" if row["miss"] else "sign right"
        lines += wrapped(f"{row['cell']}: published {points(row['published'])} %, {right}; accounting explains "
                         f"{abs(row['predicted']):.0f} of {abs(row['published']):.0f} points "
                         f"({row['explained_ns']:.0f} ns a PTE); the rest is the kernel's other work", "  ", "    ")
    return lines


def _exact(table):
    return [f"  {'! ' if row['miss'] else ''}{row['cell']}: published {row['published'][0]} -> {row['published'][1]}, "
            f"counted {row['predicted'][0]} -> {row['predicted'][1]}" for row in table["rows"]]


def _scores(result):
    rows = []
    for name, each in {**{f"table {table['name']}": table for table in result["tables"] if "scores" in table},
                       **result["sets"]}.items():
        for title, score in (("model", each["scores"]), *each["baselines"].items()):
            rows.append([name if title == "model" else "", title, score["cells"], fraction(score["sign"]),
                         fraction(score["null"]), fraction(score["rank"]), f"{score['mean_error']:.2f}",
                         fraction(score.get("covered"))])
    columns = [Column("cells", "text"), Column("by", "text"), Column("n", "count"),
               *(Column(title, "word") for title in ("sign", "null", "rank", "mean\nerror", "cov-\nered"))]
    return [*as_text(Table("", columns, rows)), "", *listed([
        ("sign", f"share of right signs among changes beyond {result['noise_band']} points"),
        ("null", "share of the other changes that were predicted within twice that"),
        ("rank", "rank correlation over all cells"), ("mean error", "points"),
        ("covered", "share of published changes inside the 90 % interval")])]


def _ablation(result):
    columns = [Column("left out", "text"), Column("sign", "word"), Column("rank", "word"), Column("mean error", "word")]
    return as_text(Table("", columns, [[row["left_out"], fraction(row["sign"]), fraction(row["rank"]),
                                        f"{row['mean_error']:.2f}"] for row in result["ablation"]]))


def _verdict(result):
    failed = [f"{name}: {GOALS[goal]}" for name, each in result["sets"].items()
              for goal, reached in each["goals"].items() if not reached]
    failed += [f"table {name}: no better than a baseline"
               for name, better in result["better_than_both_baselines"].items() if not better]
    failed += [f"{row['cell']}: {row['predicted']} counted, {row['published']} published" for table in result["tables"]
               if table["kind"] == "exact" for row in table["rows"] if row["miss"]]
    return ["Every goal is reached."] if result["ok"] else wrapped("Not reached: " + "; ".join(failed) + ".")


def refit_text(found, profile):
    """What a new fit of the cells marked for it comes to, beside the profile's values."""
    rows = [[name, f"{value:.2f} [{low:.2f}, {high:.2f}]", f"{profile.costs[name].ns:g} [{profile.costs[name].low:g}, "
             f"{profile.costs[name].high:g}]"] for name, (value, low, high) in found.items()]
    return "\n".join(as_text(Table("", [Column("cost, ns", "text"), Column("fitted again", "word"),
                                        Column(profile.name, "word")], rows))) + "\n"
