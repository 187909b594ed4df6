"""The comparison as figures: what each scheme costs against what goes wrong under it, and where in the trace that is.

Schemes are told apart by names and markers, so that a figure can be read without colours.
"""

from __future__ import annotations

import io
from collections import Counter

import numpy as np

from hgmcore.analysis.errors import CONSEQUENCES, PER_PAGE
from hgmcore.analysis.judge import ran
from hgmcore.report.columns import short_names
from hgmcore.report.compare import marked
from hgmcore.report.prose import ascii_only, plural, wrapped

SYMLOG = 100
"""Largest number over smallest number above 0 from which on an axis is not linear."""

LONGEST = 28
"""Characters of a name in a figure; its middle is cut out of a longer one."""

LANE = 0.19
"""Inches of height that a label or a scheme's lane takes."""

PAGE = 4.8
"""Inches of width of a figure in a page: on a screen of 390 pixels its letters are about as large as drawn."""

FRONT, BEATEN, LESS = "no other scheme beats it", "another beats it", "did less work"
STYLES = {  # which schemes: how they are drawn
    FRONT: {"marker": "o", "color": "#0072b2", "markersize": 8},
    BEATEN: {"marker": "s", "color": "#555555", "markersize": 6, "markerfacecolor": "white"},
    LESS: {"marker": "x", "color": "#999999", "markersize": 7},
}
GROUPS = {  # what goes wrong at an observation: how it is drawn, and where in a scheme's lane
    "breaks its own promise": {"marker": "x", "color": "#d55e00", "markersize": 4, "offset": -0.25},
    "a kernel does wrong": {"marker": "D", "color": "#000000", "markersize": 3.2, "offset": 0.02},
    "differs from single pages": {"marker": "|", "color": "#56b4e9", "markersize": 5, "offset": 0.27},
}


def image(result, format):
    """The result of `hgmcore.compare` drawn, as the bytes of a "png" or "svg" file."""
    with style():    # a name is text as it stands, never mathematics: texts ask when they are made
        return _saved(figure(result), format)


def svg_elements(result):
    """(caption, <svg> element as text) of each figure, to stand in an HTML page."""
    drawn = []
    for number, (caption, height, draw) in enumerate(_panels(result)):
        fig = _figure(PAGE, height)
        with style():
            draw(fig)
        text = _saved(fig, "svg", f"figure{number}").decode()
        drawn.append((caption, text[text.index("<svg"):]))
    return drawn


def figure(result):
    """A matplotlib Figure of the result, its panels one below the other; it belongs to no window or global state."""
    panels = _panels(result)
    fig = _figure(9, sum(height for _, height, _ in panels) + 0.5)
    parts = np.atleast_1d(fig.subfigures(len(panels), 1, height_ratios=[height for _, height, _ in panels]))
    for part, (_, _, draw) in zip(parts, panels, strict=True):
        draw(part)
    trace = result["trace"]
    fig.suptitle(f"{_name(trace['name'], 70)}: {plural(trace['operations'], 'operation')}", fontweight="bold")
    return fig


def address_time(trace, result):
    """A Figure of where the trace works and when: offsets against operations, and below who miscounts meanwhile.

    trace: the Trace that the result is of. An operation is a mark at its file's, or its mapping's, offset in GiB.
    """
    fig = _figure(9, 3 + _lanes_height(result))
    above, below = fig.subfigures(2, 1, height_ratios=(3, _lanes_height(result)))
    _addresses(above, trace, result)
    _course(below, result)
    return fig


def _figure(width, height):
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def style(salt="hgmcore"):
    """The settings that figures are saved with, as a context. salt: what names within an SVG begin from."""
    import matplotlib

    return matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "font.size": 9,
                                  "text.parse_math": False})


def _saved(fig, format, salt="hgmcore"):
    """A Figure as the bytes of a file. SVG text stays text, and the same result gives the same file."""
    buffer = io.BytesIO()
    with style(salt):
        fig.savefig(buffer, format=format, dpi=150, metadata={"Date": None} if format == "svg" else {})
    return buffer.getvalue()


def _panels(result):
    """(caption, height in inches, function that draws into a figure) of each figure of a result."""
    room = max(2.8, LANE * len(result["schemes"]) + 1.3)
    panels = [("Counted cost against what goes wrong. Schemes at the top left cost little and are seldom wrong.", room,
               lambda fig: _against(fig, result, _atomics(result),
                                    "atomics for each leaf, also those put back (counted)"))]
    if result["repeat"]:
        panels.append(("Measured time against what goes wrong; bars are 95 % intervals.", room,
                       lambda fig: _against(fig, result, _times(result), "ns for each operation (measured)")))
    if any(result["errors_at"].values()):
        panels.append(("Who is wrong when: a mark is an observation at which something is wrong.",
                       _lanes_height(result), lambda fig: _course(fig, result)))
    return panels


def _name(name, room=LONGEST):
    """A name in ASCII, its middle cut out where it is too long, as names often differ at their ends."""
    text = ascii_only(name)
    return text if len(text) <= room else f"{text[:room // 2 - 2]}...{text[1 - room // 2:]}"


def _atomics(result):
    """name -> (value, low, high) of counted atomics for each leaf; a scheme without leaves has none."""
    found = {}
    for name, entry in ran(result).items():
        if entry["leaves"]:
            value = (entry["cost"]["atomics"]["persistent"] + entry["cost"]["atomics"]["transient"]) / entry["leaves"]
            found[name] = value, value, value
    return found


def _times(result):
    """name -> (median, low, high) of measured nanoseconds for each operation."""
    times = {name: entry["measured"]["ns_per_operation"] for name, entry in ran(result).items() if "measured" in entry}
    return {name: (time["median"], time["low"], time["high"]) for name, time in times.items()}


def wrong_share(result, name) -> float:
    """Per cent of the observations at which a scheme breaks a promise or leads a kernel wrong.

    What it defines otherwise than page by page is no such error, and events (migrations, copies) are of no observation.
    """
    keys = _wrong_keys(result["schemes"][name])
    at = sum(1 for _, found in result["errors_at"].get(name, ()) if keys & found.keys())
    return 100 * at / result["observations"] if result["observations"] else 0.0


def _wrong_keys(entry):
    return entry["errors"]["own"].keys() | entry["errors"]["consequences"].keys()


def _against(fig, result, costs, label):
    """A scatter of cost (x) against the share of wrong observations (y), with names in the margin."""
    axes = fig.subplots()
    axes.set_xlabel("\n".join([label, *_refused(result)]))
    axes.set_ylabel("observations at which\nsomething is wrong, %")
    axes.set_ylim(105, -5)
    _scale(axes.set_xscale, [value for value, _, _ in costs.values()])
    used = []
    for kind, style in STYLES.items():
        for name in (name for name in costs if _kind(result, name) == kind):
            value, low, high = costs[name]
            y = wrong_share(result, name)
            if high > low:
                axes.hlines(y, low, high, color=style["color"], linewidth=1)
            (point,) = axes.plot(value, y, linestyle="none", clip_on=False, zorder=3, **style)
            if kind not in [label for _, label in used]:
                used.append((point, kind))
    axes.set_xlim(left=0)
    points = [(marked(result, name), costs[name][0], wrong_share(result, name)) for name in costs]
    _in_margin(axes, points)
    if used:
        fig.legend(*zip(*used), loc="outside lower left", ncols=2, frameon=False, fontsize=8, handletextpad=0.2)
    _bare(axes)


def _refused(result):
    """Lines that name the schemes that could not live with the options."""
    names = [_name(name) for name, entry in result["schemes"].items() if "refused_why" in entry]
    return wrapped("refused: " + ", ".join(names), width=70) if names else []


def _kind(result, name):
    entry = result["schemes"][name]
    return LESS if "less_work" in entry else FRONT if name in result["verdict"]["front"] else BEATEN


def _in_margin(axes, points):
    """Names at the right of the axes, each near its point's height, clear of the others, with a line to it."""
    # Lines that go down to the right do not cross where the rightmost of points of one height has the topmost name.
    ordered = sorted(points, key=lambda point: (point[2] // 5, -point[1] if point[2] < 50 else point[1], point[0]))
    bottom, top = axes.get_ylim()
    heights = _spread([(point[2] - bottom) / (top - bottom) for point in ordered])
    for (name, x, y), height in zip(ordered, heights, strict=True):
        axes.annotate(_name(name), (x, y), (1.05, height), textcoords="axes fraction", va="center", fontsize=8,
                      arrowprops={"arrowstyle": "-", "color": "#aaaaaa", "linewidth": 0.6, "shrinkA": 1, "shrinkB": 4,
                                  "relpos": (0, 0.5)})


def _spread(heights):
    """Heights between 0 and 1, from top to bottom, moved apart as little as all of them need to have room."""
    gap = 1 / max(len(heights), 16)
    placed = []
    for height in heights:
        placed.append(min(height, placed[-1] - gap) if placed else height)
    lowest = 0.0
    for i in reversed(range(len(placed))):
        placed[i] = max(placed[i], lowest)
        lowest = placed[i] + gap
    return placed


def _scale(setter, values):
    """Linear, so that factors of 2 and 3 are seen; symlog only where the largest number would hide the others."""
    some = [value for value in values if value > 0]
    if some and max(some) > SYMLOG * float(np.median(some)):
        setter("symlog", linthresh=min(some))


def _lanes_height(result):
    return LANE * len(result["schemes"]) + 1.4


def _course(fig, result):
    """A lane for each scheme over the course of the trace: a mark where an observation shows something wrong."""
    axes = fig.subplots()
    names = list(result["schemes"])
    marks = {group: ([], []) for group in GROUPS}
    for lane, name in enumerate(names):
        entry = result["schemes"][name]
        if "refused_why" in entry:
            axes.annotate("refused", (0.01, lane), xycoords=("axes fraction", "data"), va="center", fontsize=8)
        for index, found in result["errors_at"].get(name, ()):
            for group, wrong in zip(GROUPS, _wrong(entry, found), strict=True):
                if wrong:
                    marks[group][0].append(index)
                    marks[group][1].append(lane + GROUPS[group]["offset"])
    for group, (x, y) in marks.items():
        if x:
            style = {key: value for key, value in GROUPS[group].items() if key != "offset"}
            axes.plot(x, y, linestyle="none", label=group, **style)
    _operations_axis(axes, result)
    axes.set_yticks(range(len(names)), [_name(marked(result, name)) for name in names], fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.hlines(np.arange(len(names) - 1) + 0.5, 0, 1, color="#eeeeee", linewidth=0.6,
                transform=axes.get_yaxis_transform())
    if any(x for x, _ in marks.values()):
        fig.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=8, handletextpad=0.2)
    _bare(axes)
    axes.tick_params(axis="y", length=0)


def _wrong(entry, found):
    """Whether what was found at an observation breaks a promise, leads a kernel wrong, differs from single pages."""
    per_page = entry["errors"]["per_page"].keys() | set(PER_PAGE)
    return (bool(entry["errors"]["own"].keys() & found.keys()), bool(found.keys() & set(CONSEQUENCES)),
            bool(per_page & found.keys()))


def _operations_axis(axes, result):
    """Operations along x, with a line and a short name where a declared phase begins, as far as there is room."""
    from matplotlib.ticker import EngFormatter

    total = max(result["trace"]["operations"], 1)
    axes.set_xlim(0, total)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("operations of the trace")
    phases = [phase for phase in result["trace"]["phases"] if phase["declared"]]
    short = short_names([phase["name"] for phase in phases])
    last = -total
    for phase in sorted(phases, key=lambda phase: phase["first"]):
        axes.axvline(phase["first"], color="#bbbbbb", linewidth=0.6, linestyle=":")
        if phase["operations"] > total / 50 and phase["first"] - last > total / 12:
            axes.annotate(_name(short[phase["name"]], 8), (phase["first"], 1), (2, 2),
                          xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=7)
            last = phase["first"]


def _addresses(fig, trace, result, most=20_000):
    """Offsets of operations against their numbers, at most so many of them, a marker for each kind of operation."""
    from hgmcore.trace.statements import NAMES

    axes = fig.subplots()
    ops = trace.operations
    numbers = np.flatnonzero(ops["length"])
    numbers = numbers[:: max(1, -(-len(numbers) // most))]
    codes = ops["op"][numbers]
    for marker, (code, _) in zip(".x+^svdo", Counter(codes.tolist()).most_common(8)):
        mine = numbers[codes == code]
        axes.plot(mine, ops["offset"][mine] / (1 << 30), marker, markersize=2, label=NAMES[code], rasterized=True)
    _operations_axis(axes, result)
    axes.set_ylabel("offset, GiB")
    if len(numbers):
        fig.legend(loc="outside right upper", frameon=False, fontsize=8, markerscale=3)
    _bare(axes)


def _bare(axes):
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
