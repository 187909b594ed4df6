"""The comparison as figures: what each scheme costs against what goes wrong under it, and where in the trace that is.

Schemes are told apart by names and markers, so that a figure can be read without colours.
"""

from __future__ import annotations

import io
from collections import Counter

import numpy as np

from hgmcore.analysis.count import samples
from hgmcore.analysis.errors import CONSEQUENCES, PER_PAGE
from hgmcore.analysis.judge import ran
from hgmcore.analysis.verdict import same_work
from hgmcore.report.columns import longest_time, short_names
from hgmcore.report.compare import marked
from hgmcore.report.prose import ascii_only, plural, wrapped
from hgmcore.sizes import format_size
from hgmcore.trace.statements import CODES, NAMES

SYMLOG = 100
"""Largest number over smallest number above 0 from which on an axis is not linear."""

LONGEST = 28
"""Characters of a name in a figure; its middle is cut out of a longer one."""

REFUSED = 44
"""Characters of a line under a figure of a page."""

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

PLACED = ("continue", "touch", "dontneed", "munmap", "split", "collapse", "migrate", "mprotect", "mremap", "hwpoison")
"""Operations at an offset of a mapping, in bytes."""

MARKERS, FEW = "o^svDXP*<>", 200
"""A marker for each of them, in the order of how many there are; more than FEW of one kind are drawn small."""


def image(result, format):
    """The result of `hgmcore.compare` drawn, as the bytes of a "png" or "svg" file."""
    with style():    # a name is text as it stands, never mathematics: texts ask when they are made
        return _saved(figure(result), format)


def address_image(trace, result, format, every=None):
    """`address_time` as the bytes of a "png" or "svg" file."""
    with style():
        return _saved(address_time(trace, result, every), format)


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


def address_time(trace, result, every=None):
    """A Figure of where the trace works and when: offsets against operations, and below who miscounts meanwhile.

    trace: the Trace that the result is of; every: what `compare` was given. Each of the operations PLACED is a mark at
    its offset in its mapping, the darker the more schemes are wrong at the observation that follows it.
    """
    fig = _figure(9, 4 + _lanes_height(result))
    above, below = fig.subplots(2, 1, sharex=True, height_ratios=(4, _lanes_height(result)))
    _addresses(above, trace, _miscounting(result, len(trace), every), (above, below))
    _course(fig, result, below)
    _operations_axis(above, result)
    above.set_xlabel("")
    fig.suptitle(f"{_name(trace.name, 70)}: where it works, and who miscounts", fontweight="bold")
    return fig


def _miscounting(result, total, every):
    """Of each operation how many schemes are wrong at the observation that follows it: an array (total,)."""
    stops = samples(total, every)
    wrong = np.zeros(len(stops), np.int64)
    for name, entry in ran(result).items():
        keys = _wrong_keys(entry)
        at = [index for index, found in result["errors_at"].get(name, ()) if keys & found.keys()]
        wrong += np.isin(stops, at)
    return wrong[np.searchsorted(stops, np.arange(total), side="right")]


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
    panels = [("Counted cost against what goes wrong. Schemes at the top left cost little and are seldom wrong; on the "
               "line are those that no other beats in these two.", room,
               lambda fig: _against(fig, result, _atomics(result),
                                    "atomics for each leaf, also those put back (counted)"))]
    if result["repeat"]:
        times, label = _times(result)
        panels.append(("Measured time against what goes wrong; bars are 95 % intervals.", room,
                       lambda fig: _against(fig, result, times, label)))
    modelled = _modelled(result)
    if modelled:
        profile = ascii_only(result["profile"])
        panels.append((f"Modelled time ({profile}) against what goes wrong; bars are 90 % intervals.",
                       room, lambda fig: _against(fig, result, modelled,
                                                  "ns for each operation, accounting alone (modelled)")))
    if any(result["errors_at"].values()):
        panels.append(("Who is wrong when: a mark is an observation at which something is wrong.",
                       _lanes_height(result), lambda fig: _course(fig, result)))
    return panels


def _name(name, room=LONGEST):
    """A name in ASCII, its middle cut out where it is too long, as names often differ at their ends."""
    text = ascii_only(name)
    return text if len(text) <= room else f"{text[:room // 2 - 2]}...{text[1 - room // 2:]}"


def _atomics(result):
    """name -> (value, low, high) of counted atomics for each leaf; a scheme without leaves has none.

    Of the phases in which all schemes did the same work, those aside that did less all in all; else of all phases.
    """
    entries = ran(result)
    able = [entry for entry in entries.values() if "less_work" not in entry]
    base = result["schemes"][result["baseline"]]
    names = [phase["name"] for phase in result["trace"]["phases"]]
    phases = [name for name in names if base["phases"][name]["leaves"]
              and all(same_work(entry, base, name) for entry in able)] or names
    found = {}
    for name, entry in entries.items():
        counts = [entry["phases"][phase] for phase in phases]
        leaves = sum(one["leaves"] for one in counts)
        if leaves:
            value = sum(one["atomics"]["persistent"] + one["atomics"]["transient"] for one in counts) / leaves
            found[name] = value, value, value
    return found


def _times(result):
    """name -> (median, low, high) of the measured nanoseconds that the screen shows, and what they are."""
    measure = longest_time(result, {phase["name"]: phase["name"] for phase in result["trace"]["phases"]})
    times = {name: measure.value(entry) for name, entry in ran(result).items()}
    unit = measure.unit.removeprefix("ns/")
    return ({name: (time["median"], time["low"], time["high"]) for name, time in times.items() if time},
            f"ns for each {unit}{f' in {measure.phase}' if measure.phase else ''} (measured)")


def _modelled(result):
    """name -> (value, low, high) of the modelled nanoseconds of accounting, of the schemes that have them."""
    times = {name: entry["modelled"]["accounting"] for name, entry in ran(result).items() if "modelled" in entry}
    return {name: (time["value"], time["low"], time["high"]) for name, time in times.items()}


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
    front = _pareto([(costs[name][0], wrong_share(result, name)) for name in costs if _kind(result, name) != LESS])
    axes.plot(*zip(*front), color="#0072b2", linewidth=0.8, linestyle="--", drawstyle="steps-post", zorder=1)
    points = [(marked(result, name), costs[name][0], wrong_share(result, name)) for name in costs]
    _in_margin(axes, points)
    if used:
        fig.legend(*zip(*used), loc="outside lower left", ncols=2, frameon=False, fontsize=8, handletextpad=0.2)
    _bare(axes)


def _pareto(points):
    """Of (cost, share) pairs those that no other is below in one and not above in the other, from the cheapest on."""
    front = []
    for point in sorted(set(points)):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front or [(0, 0)]


def _refused(result):
    """Lines that name the schemes that could not live with the options."""
    names = [_name(name) for name, entry in result["schemes"].items() if "refused_why" in entry]
    return wrapped("refused: " + ", ".join(names), width=REFUSED) if names else []


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


def _course(fig, result, axes=None):
    """A lane for each scheme over the course of the trace: a mark where an observation shows something wrong."""
    axes = axes or fig.subplots()
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
        fig.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=2, frameon=False, fontsize=8,
                   handletextpad=0.2)
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
    axes.set_xlim(0, 1.01 * total)
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


def _addresses(axes, trace, wrong, beside, most=20_000):
    """Offsets of operations against their numbers, at most so many of each kind, which has a marker of its own.

    wrong: of each operation how many schemes miscount behind it, its colour. beside: the axes that the scale of colours
    takes its room from.
    """
    from matplotlib.colors import BoundaryNorm
    from matplotlib.ticker import MaxNLocator, MultipleLocator

    ops, codes, drawn = trace.operations, trace.operations["op"], []
    highest = max(int(wrong.max(initial=0)), 1)
    colours = {"cmap": "cividis_r", "norm": BoundaryNorm(np.arange(highest + 2) - 0.5, 256)}
    numbers = Counter(codes[np.isin(codes, [CODES[name] for name in PLACED])].tolist())
    for marker, (code, number) in zip(MARKERS, numbers.most_common()):
        mine = np.flatnonzero(codes == code)[:: max(1, -(-number // most))]
        drawn.append(axes.scatter(mine, ops["offset"][mine], 6 if number > FEW else 24, wrong[mine], **colours,
                                  marker=marker, linewidths=0, label=NAMES[code], rasterized=True))
    axes.set_ylabel("offset in the mapping")
    if drawn:
        reach = max(int(marks.get_offsets()[:, 1].max()) for marks in drawn)
        axes.yaxis.set_major_locator(MultipleLocator(max(1 << (reach // 6).bit_length(), 4096)))
        axes.yaxis.set_major_formatter(lambda offset, _: format_size(int(offset)) if offset >= 0 else "")
        legend = axes.figure.legend(loc="outside right upper", frameon=False, fontsize=8, markerscale=1.5)
        for handle in legend.legend_handles:
            handle.set(facecolor="#555555", cmap=None, array=None)
        axes.figure.colorbar(drawn[0], ax=beside, label="schemes that miscount", ticks=MaxNLocator(8, integer=True),
                             fraction=0.03, aspect=40)
    _bare(axes)


def _bare(axes):
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
