"""The comparison as one figure: what each scheme costs above, what it gets wrong below."""

import io

import numpy as np

from hgmcore.analysis.judge import partial, ran
from hgmcore.report.compare import marked, notes
from hgmcore.report.prose import ascii_only, plural, wrapped
from hgmcore.report.table import count

COUNTED = (  # colours are of a palette that the colour-blind can tell apart
    ("persistent: references", lambda cost: cost["atomics"]["ref"], "#0072b2", "o"),
    ("persistent: map counts", lambda cost: cost["atomics"]["map"], "#d55e00", "s"),
    ("put back by look-ups", lambda cost: cost["atomics"]["transient"], "#999999", "x"),
)
TOUCHED = (
    ("struct pages written", lambda cost: cost["lines"], "#009e73", "D"),
    ("table entries scanned", lambda cost: cost["entries_scanned"], "#cc79a7", "^"),
)
ERRORS = (  # (heading, key of `error`, divisor)
    ("called shared\nfalsely", "false_shared", 1),
    ("sharing\nmissed", "false_exclusive", 1),
    ("wrongly\nunmapped", "mapped_but_reported_unmapped", 1),
    ("wrongly\nmapped", "unmapped_but_reported_mapped", 1),
    ("pages of wrong\nmapcount", "page_mapcount_wrong_pages", 1),
    ("largest error\nof a mapcount", "page_mapcount_max_error", 1),
    ("Pss\nkB", "pss_error_bytes", 1024),
    ("smaps Shared\nkB", "smaps_shared_error_bytes", 1024),
    ("references\nunexplained", "refs_not_explained", 1),
    ("leaked\nhuge pages", "leaked_folios", 1),
    ("freed while\nmapped", "freed_while_mapped", 1),
    ("under- and\noverflows", None, 1),
)


def image(result, format):
    """The result of `hgmcore.compare` drawn, as the bytes of a "png" or "svg" file."""
    import matplotlib

    buffer = io.BytesIO()
    # SVG text stays text, and the same result gives the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "hgmcore", "font.size": 9,
                                "text.parse_math": False}):
        metadata = {"Date": None} if format == "svg" else {}
        figure(result).savefig(buffer, format=format, dpi=150, bbox_inches="tight", metadata=metadata)
    return buffer.getvalue()


def svg_element(result):
    """The figure as an <svg> element, to stand in an HTML page."""
    text = image(result, "svg").decode()
    return text[text.index("<svg"):]


def figure(result):
    """A matplotlib Figure of the result; it belongs to no window and no global state."""
    from matplotlib.figure import Figure

    names = [marked(result, name) for name in ran(result)]
    timed = result["repeat"] > 0
    rows = 0.32 * len(names)
    fig = Figure(figsize=(12, 2.6 + 2 * rows), layout="constrained")
    above, below = fig.subfigures(2, 1, height_ratios=(rows + 1.3, rows + 1.1))
    panels = above.subplots(1, 2 + timed, sharey=True)
    _markers(panels[0], result, COUNTED, "atomic operations (counted)")
    _markers(panels[1], result, TOUCHED, "memory touched (counted)")
    if timed:
        _times(panels[2], result)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    _errors(below.subplots(), result, names)
    trace = result["trace"]
    title = f"{ascii_only(trace['name'])}: {plural(trace['operations'], 'operation')}"
    fig.suptitle(title, fontweight="bold")
    return fig


def _markers(axes, result, series, title):
    """One marker for each scheme and kind of cost; the axis is logarithmic but has room for 0."""
    from matplotlib.ticker import EngFormatter

    costs = [scheme["cost"] for scheme in ran(result).values()]
    for height, (label, value, colour, marker) in enumerate(series):
        y = np.arange(len(costs)) + 0.24 * (height - (len(series) - 1) / 2)
        x = [value(cost) for cost in costs]
        axes.hlines(y, 0, x, color=colour, alpha=0.35, linewidth=3)
        axes.plot(x, y, marker, color=colour, label=label, markersize=5, linestyle="none", clip_on=False)
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    _finish(axes, title)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=3.5, frameon=False, fontsize=8)


def _times(axes, result):
    """Bars of the medians with standard deviations, and every single run as a dot."""
    costs = [scheme["cost"] for scheme in ran(result).values()]
    y = np.arange(len(costs))
    spread = [cost["ns_per_operation_stddev"] or 0 for cost in costs]
    axes.barh(y, [cost["ns_per_operation"] for cost in costs], xerr=spread, height=0.55, color="#56b4e9",
              error_kw={"ecolor": "#333333", "capsize": 2})
    for height, cost in enumerate(costs):
        runs = cost["ns_per_operation_runs"]
        axes.plot(runs, [height] * len(runs), ".", color="#333333", markersize=3)
    _finish(axes, "ns for each operation (measured)")
    machine = result["machine"]
    axes.set_xlabel(
        f"median of {result['repeat']} runs (dots) +- standard deviation\n"
        f"{machine['cpu']}, {machine['kernel']}",
        fontsize=8,
    )


def _finish(axes, title):
    axes.set_title(title)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _errors(axes, result, names):
    """A grid of schemes and kinds of error: white where nothing is wrong, else a number, on red."""
    errors = [scheme["error"] for scheme in ran(result).values()]
    values = np.array([[_error(error, key) / divisor for _, key, divisor in ERRORS] for error in errors])
    magnitude = np.log10(np.maximum(values, 0.1)) + 1
    shade = np.where(values > 0, 0.25 + 0.75 * magnitude / max(1, magnitude.max()), np.nan)
    axes.pcolormesh(shade, cmap="Reds", vmin=0, vmax=1.4, edgecolors="#dddddd", linewidth=0.6)
    axes.invert_yaxis()
    for row, column in np.argwhere(values > 0):
        number = values[row, column]
        text = "<1" if number < 1 else count(round(number), 7)
        axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=8)
    axes.set_xticks(np.arange(len(ERRORS)) + 0.5, [heading for heading, _, _ in ERRORS], fontsize=8)
    axes.set_yticks(np.arange(len(errors)) + 0.5, names)
    axes.tick_params(length=0)
    axes.set_title(f"errors (counted, over {plural(result['observations'], 'observation')}): white is right")
    if partial(result):
        stars = [line for note in notes(result) if note.startswith("*") for line in wrapped(note, width=170)]
        axes.set_xlabel("\n".join(stars), fontsize=8)


def _error(error, key):
    return error[key] if key else error["counter_underflows"] + error["counter_overflows"]
