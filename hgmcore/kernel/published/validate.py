"""The published tables against the cost model: predictions with intervals, scores, baselines, misses, ablation."""

from __future__ import annotations

from dataclasses import replace

from hgmcore.kernel.published import cells as published
from hgmcore.kernel.published import fit
from hgmcore.kernel.published.counts import for_one, pages_of, run
from hgmcore.kernel.published.scores import BAND, goals, missed, score
from hgmcore.model import linear
from hgmcore.model.profile import load

FORMAT = "hgmcore-validate-published 1"
JUDGED = ("seconds", "change")
"""Kinds of tables whose cells are scored; others have lines of their own."""

LEFT_OUT = {"plain": ("plain",), "step": ("step",), "stat": ("stat",), "folios freed": ("kernel.munmap_freed.free",),
            "plain, step and stat": ("plain", "step", "stat")}


def profile_of(table):
    """The profile of a table, with what it borrows from another."""
    profile = load(table.profile)
    if table.borrowed:
        other = load(table.borrowed[0])
        profile = profile.assuming({name: replace(other.costs[name], how="transferred") for name in table.borrowed[1]})
    return profile.assuming({name: linear.Value(*three, "assumed") for name, three in table.assumed.items()})


def predicted(profile, cell, form=None) -> linear.Interval:
    """The change that the model predicts, in per cent, with its 90 % interval.

    The share of the copy in a copying fault was fitted as such, where a profile has it.
    """
    form = profile.form if form is None else form
    if cell.operation == "reuse-byte" and "copy_share" in profile.fit and for_one(cell, "after").get("copy", 0) < 0.5:
        value, low, high = profile.fit["copy_share"]
        return linear.with_form(-value, (high - low) / (2 * linear.NORMAL), form)
    before, after = (_priced(profile, for_one(cell, which)) for which in ("before", "after"))
    return linear.change(profile.costs, before, after, form)


def _priced(profile, sums):
    """A sum without the freeing of folios where a profile has that in what a leaf costs."""
    return {name: count for name, count in sums.items() if not name.endswith(".free") or name in profile.costs}


def change_of(price, cell) -> float:
    """The change that a baseline predicts."""
    before, after = (price(for_one(cell, which), cell.operation) for which in ("before", "after"))
    return 100 * (after / before - 1)


def validate() -> dict:
    """All tables: "hgmcore-validate-published 1", plain JSON types. "ok": every goal is reached."""
    tables = published.tables()
    scored = [table for table in tables if table.kind in JUDGED]
    chosen = [cell for table in scored for cell in table.cells if not cell.judged]
    prices = {name: fit.baseline(name, chosen) for name in fit.BASELINES}
    found = [_scored(table, prices) if table.kind in JUDGED else _other(table) for table in tables]
    rows = [(table, cell, row) for table, entry in zip(tables, found) if table.kind in JUDGED
            for cell, row in zip(table.cells, entry["rows"]) if cell.judged]
    plain = [each for each in rows if each[1].operation in fit.FITTED]
    sets = {"T1 + T2, fork and munmap": plain,
            "T2, fork and munmap": [each for each in plain if each[0].name == "T2"], "all": rows}
    scores = {name: _set(chosen_rows) for name, chosen_rows in sets.items()}
    exact = [row for table, entry in zip(tables, found) if table.kind == "exact" for row in entry["rows"]]
    better = {entry["name"]: all(entry["scores"]["mean_error"] < other["mean_error"]
                                 for other in entry["baselines"].values())
              for entry in found if "scores" in entry}
    ok = (all(all(each["goals"].values()) for each in scores.values()) and all(better.values())
          and all(row["published"] == row["predicted"] for row in exact))
    return {"format": FORMAT, "ok": ok, "tables": found, "sets": scores, "better_than_both_baselines": better,
            "baselines": {name: [round(value, 2) for value in values] for name, (_, values) in prices.items()},
            "noise_band": BAND, "ablation": ablation(scored), "not_expressed": published.not_expressed()}


def _set(rows):
    """Scores of the model, and of the baselines, over judged cells."""
    y = [cell.published for _, cell, _ in rows]
    model = score([row["predicted"]["value"] for *_, row in rows], y,
                  [(row["predicted"]["low"], row["predicted"]["high"]) for *_, row in rows])
    others = {name: score([row["baselines"][name] for *_, row in rows], y) for name in fit.BASELINES}
    return {"scores": model, "baselines": others, "goals": goals(model, others[fit.BASELINES[0]])}


def _scored(table, prices):
    profile, rows = profile_of(table), []
    for cell in table.cells:
        value = predicted(profile, cell)
        miss = cell.judged and missed(value.value, cell.published, value.low, value.high)
        cause = "noise" if abs(cell.published) <= BAND else "transfer" if profile.transferred else "unknown"
        rows.append({**_row(cell), "published": cell.published, "predicted": value.as_dict(),
                     "baselines": {name: change_of(price, cell) for name, (price, _) in prices.items()},
                     "use": "judged" if cell.judged else "fitted", "miss": bool(miss),
                     "cause": cause if miss else None})
    judged = [(table, cell, row) for cell, row in zip(table.cells, rows) if cell.judged]
    found = _set(judged)
    return {**_head(table), "rows": rows, "scores": found["scores"], "baselines": found["baselines"]}


def _head(table):
    return {"name": table.name, "title": table.title, "kind": table.kind, "from": table.source,
            "processor": table.processor, "profile": table.profile}


def _row(cell):
    return {"cell": cell.name, "before": dict(cell.before), "after": dict(cell.after)}


def _other(table):
    """Bounds, signs and counts, which have no mean error."""
    if table.kind == "figures":
        rows = [{"cell": design, "scheme": scheme or None, "update": update, "read": read, "miss": False}
                for design, scheme, update, read in table.figures]
        return {**_head(table), "cpus": list(table.cpus), "rows": rows}
    rows = []
    for cell in table.cells:
        if table.kind == "exact":
            folios = table.bytes // (pages_of(cell.folio) * 4096)
            counts = [run(cell.operation, pages_of(cell.folio), **options, folios=folios)[table.event]
                      for options in (cell.before, cell.after)]
            rows.append({**_row(cell), "published": list(cell.published), "predicted": counts,
                         "miss": counts != list(cell.published)})
            continue
        profile = profile_of(table)
        if table.kind == "prediction":
            rows.append({**_row(cell), "operation": cell.operation, "stage": cell.after["stage"], "published": None,
                         "predicted": predicted(profile, cell).as_dict(), "miss": False})
            continue
        if table.kind == "bounds":
            value = predicted(profile, cell)
            low, high = cell.published
            rows.append({**_row(cell), "published": [low, high], "predicted": value.as_dict(),
                         "miss": not low <= value.value <= high})
            continue
        before, after = (linear.value(profile.costs, _accounting(for_one(cell, which)))
                         for which in ("before", "after"))
        points = 100 * (after - before) / cell.seconds[0]
        rows.append({**_row(cell), "published": cell.published, "predicted": points, "explained_ns": before - after,
                     "miss": (points < 0) != (cell.published < 0)})
    return {**_head(table), "rows": rows}


def _accounting(sums):
    return {name: count for name, count in sums.items() if not name.startswith("kernel.")}


def ablation(tables) -> list[dict]:
    """Scores of judged fork and munmap cells where a class is taken out of the model and the rest fitted again."""
    cells = [cell for table in tables for cell in table.cells]
    judged = [cell for cell in cells if cell.judged and cell.operation in fit.FITTED]
    profile, found = load(tables[0].profile), []
    for name, without in {"nothing": (), **LEFT_OUT}.items():
        values = fit.fit([cell for cell in cells if not cell.judged], without)
        costs = {**profile.costs, **{key: replace(profile.costs[key], ns=value, low=0.0, high=max(value, 1.0))
                                     for key, value in values.items()}}
        changes = [linear.change(costs, for_one(cell, "before"), for_one(cell, "after")).value for cell in judged]
        found.append({"left_out": name, **score(changes, [cell.published for cell in judged])})
    return found


def refit() -> dict:
    """{parameter: (ns, low, high)}: the cells marked for it fitted again, which the shipped profile must agree with."""
    chosen = [cell for table in published.tables() if table.kind in JUDGED for cell in table.cells if not cell.judged]
    values = fit.fit(chosen)
    return {name: (values[name], *span) for name, span in fit.intervals(chosen, values).items()}
