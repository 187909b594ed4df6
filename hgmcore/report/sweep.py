"""A sweep for the eye: what ran and where the results are, and a figure of its table."""

from __future__ import annotations

import io
from collections import defaultdict

import numpy as np

from hgmcore.report.plot import SYMLOG, style
from hgmcore.report.prose import ascii_only, plural, shortened

MOST_PANELS = 12
FAILURES = 5
"""Failed tasks that the screen names."""

MARKERS = "os^vD<>pPX*hd"


def sweep_text(result) -> str:
    """What a sweep did, a few lines."""
    already = result["tasks"] - result["ran"]
    lines = [f"hgmcore sweep: {ascii_only(result['spec'])}",
             f"  {plural(result['points'], 'point')}, {plural(result['schemes'], 'scheme')} each; "
             f"{plural(result['tasks'], 'different comparison')}: {already:,} had been done, {result['ran']:,} ran in "
             f"{result['seconds']:.1f} s",
             f"  {plural(result['rows'], 'number')}: {ascii_only(result['table'])}"]
    if result["failed"]:
        lines.append(f"  {plural(len(result['failed']), 'point')} failed; the same command tries again:")
        lines += [f"    {shortened(each['point'] + ': ' + each['error'], 110)}" for each in result["failed"][:FAILURES]]
    return "\n".join(lines) + "\n"


def sweep_image(path, format) -> bytes:
    """The Parquet file of a sweep drawn, as the bytes of a "png" or "svg" file. ValueError: it has no numbers."""
    with style():
        figure, stream = sweep_figure(path), io.BytesIO()
        figure.savefig(stream, format=format, dpi=150, metadata={"Date": None} if format == "svg" else {})
    return stream.getvalue()


def sweep_figure(path):
    """A Figure of the table: cost of each scheme along the first axis that varies, a panel for each other combination.

    The cost is modelled accounting, with its interval, where there are profiles, else counted atomics of a leaf. Of
    several seeds the median is drawn, and the range.
    """
    from matplotlib.figure import Figure

    axes_names, costs, label = _costs(path)
    if not costs:
        raise ValueError(f"{path}: it has no costs to draw")
    along, others = _axis(axes_names, costs)
    panels = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for (scheme, point), cost in costs.items():
        named = dict(zip(axes_names, point, strict=True))
        panels[tuple((name, named[name]) for name in others)][scheme][named[along]].append(cost)
    ticks = list(dict.fromkeys(dict(zip(axes_names, point, strict=True))[along] for _, point in costs))
    schemes = list(dict.fromkeys(scheme for scheme, _ in costs))
    shown = list(panels.items())[:MOST_PANELS]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    fig = Figure(figsize=(4 * columns + 2, 3.2 * rows + 0.6), layout="constrained")
    grid = fig.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, (fixed, lines) in zip(grid.flat, shown):
        _panel(axes, lines, ticks, schemes, along)
        axes.set_title(shortened(", ".join(_shown(name, value) for name, value in fixed if value is not None), 52),
                       fontsize=8)
    for axes in grid.flat[len(shown):]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel(label, fontsize=8)
    values = [value for value, _, _ in costs.values() if value > 0]
    if values and max(values) > SYMLOG * float(np.median(values)):
        for axes in grid.flat:
            axes.set_yscale("symlog", linthresh=min(values))
    fig.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
    if len(panels) > len(shown):
        fig.suptitle(f"the first {len(shown)} of {len(panels)} combinations", fontsize=9)
    return fig


def _costs(path):
    """(names of the axes, {(scheme, point): (value, low, high)}, what the values are) of a table."""
    import pyarrow.compute as pc
    from pyarrow import parquet

    schema = parquet.read_schema(path).names
    axes = schema[1:schema.index("scheme")]
    table = parquet.read_table(path, columns=[*axes, "scheme", "phase", "group", "key", "value", "low", "high"])
    table = table.filter(pc.and_(pc.is_null(table["phase"]), pc.is_in(table["group"].cast("string"),
                                                                     _words(["cost", "modelled"]))))
    found = defaultdict(dict)
    for row in table.to_pylist():
        found[row["scheme"], tuple(row[name] for name in axes)][row["key"]] = row["value"], row["low"], row["high"]
    if any("accounting" in keys for keys in found.values()):
        costs = {each: keys["accounting"] for each, keys in found.items() if "accounting" in keys}
        return axes, costs, "accounting, ns an operation\n(modelled, 90 % interval)"
    costs = {}
    for each, keys in found.items():
        leaves = sum(keys[name][0] for name in ("leaf_installs", "leaf_removes") if name in keys)
        if leaves:
            value = (keys["atomics.persistent"][0] + keys["atomics.transient"][0]) / leaves
            costs[each] = value, value, value
    return axes, costs, "atomics for each leaf,\nalso those put back (counted)"


def _words(words):
    import pyarrow

    return pyarrow.array(words)


def _axis(names, costs):
    """The axis along which lines are drawn, and those that make panels."""
    different = {name: {point[index] for _, point in costs} - {None} for index, name in enumerate(names)}
    varying = [name for name in names if len(different[name]) > 1 and name != "seed"]
    sizes = [name for name in varying if name.startswith("size_")]
    along = (sizes or [name for name in ("processors", "input") if name in varying] or varying or ["input"])[0]
    return along, [name for name in names if name not in (along, "seed")
                   and (name == "input" or name in varying)]


def _shown(name, value):
    return str(value) if name in ("input", "profile") else f"{name.partition('_')[2] or name}={value}"


def _panel(axes, lines, ticks, schemes, along):
    for index, scheme in enumerate(schemes):
        found = [(place, lines[scheme][tick]) for place, tick in enumerate(ticks) if tick in lines[scheme]]
        if not found:
            continue
        places = [place for place, _ in found]
        middle = np.array([np.median([value for value, _, _ in costs]) for _, costs in found])
        low = np.array([min(each for _, each, _ in costs) for _, costs in found])
        high = np.array([max(each for _, _, each in costs) for _, costs in found])
        axes.errorbar(places, middle, (middle - low, high - middle), label=ascii_only(scheme), color=f"C{index % 10}",
                      marker=MARKERS[index % len(MARKERS)], markersize=4, linewidth=1, elinewidth=0.6)
    axes.set_xticks(range(len(ticks)), ["" if tick is None else shortened(str(tick), 24) for tick in ticks], fontsize=7,
                    rotation=0 if len(ticks) < 7 and all(len(str(tick)) < 9 for tick in ticks) else 30, ha="center")
    axes.set_xlim(-0.3, len(ticks) - 0.7)
    axes.set_xlabel(along.partition("_")[2] or along, fontsize=8)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
