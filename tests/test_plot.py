"""Figures of a comparison: every scheme stands in them, long names lie clear, the same result draws the same."""

import copy
import xml.etree.ElementTree as xml

import matplotlib
import matplotlib._pylab_helpers
import numpy as np
import pytest
from made_results import TWO_PROCESSES as TRACE
from made_results import entry
from made_results import result as made_result
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation, Text

from hgmcore import Trace, compare
from hgmcore.report import plot

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def long_names(result):
    made = copy.deepcopy(result)
    for part in ("schemes", "errors_at"):
        made[part] = {f"a_name_of_a_scheme_that_hardly_ever_ends_{name}": value for name, value in made[part].items()}
    made["verdict"]["front"], made["baseline"] = [], next(iter(made["schemes"]))
    return made


@pytest.fixture(scope="module")
def refused():
    return compare(Trace.parse(TRACE), repeat=1, hvo="on")


def texts(svg):
    return [element.text for element in xml.fromstring(svg).iter(f"{SVG}text")]


def test_png_and_svg_have_every_scheme_and_repeat_exactly(result):
    assert plot.image(result, "png").startswith(b"\x89PNG")
    svg = plot.image(result, "svg")
    assert svg == plot.image(result, "svg")
    for name in result["schemes"]:
        shown = f"{name}*" if "less_work" in result["schemes"][name] else name
        assert texts(svg).count(shown) == 3, f"{shown}: in two figures of costs and in the lanes"


def test_figures_leave_no_trace_in_matplotlib(result):
    before = dict(matplotlib.rcParams)
    plot.image(result, "svg")
    assert dict(matplotlib.rcParams) == before
    assert not matplotlib._pylab_helpers.Gcf.figs


def test_without_times_there_is_no_figure_of_times():
    made = compare(Trace.parse(TRACE), schemes="subtree", repeat=0)
    assert not any("measured" in (text or "") for text in texts(plot.image(made, "svg")))


def test_a_trace_of_nothing_is_drawn():
    made = compare(Trace.parse("hgmcore-trace 1\n"), schemes="subtree,mm_id", repeat=0)
    assert plot.image(made, "png").startswith(b"\x89PNG")


def test_refused_schemes_stay():
    made = compare(Trace.parse(TRACE), schemes="subtree,mm_id", repeat=0, hvo="on")
    shown = texts(plot.image(made, "svg"))
    assert "refused: mm_id" in shown, "below the costs"
    assert "mm_id" in shown and "refused" in shown, "in the lanes"


def test_modelled_times_have_a_figure_of_their_own(modelled):
    shown = texts(plot.image(modelled, "svg"))
    assert "ns for each operation, accounting alone (modelled)" in shown
    for name, scheme in modelled["schemes"].items():
        if "refused_why" not in scheme:
            marked = f"{name}*" if "less_work" in scheme else name
            assert shown.count(marked) == 2 + any(modelled["errors_at"].values()), "counted, modelled, in the lanes"
    assert sum((text or "").startswith("refused: ") for text in shown) == 2, "below both"


@pytest.mark.parametrize("which", ["result", "long_names", "refused", "modelled"])
def test_labels_do_not_overlap(which, request, monkeypatch):
    drawn, draw_text = [], Text.draw  # of matplotlib's labels for ticks out of sight none is drawn
    monkeypatch.setattr(Text, "draw", lambda text, *rest: (drawn.append(text), draw_text(text, *rest)))
    made = request.getfixturevalue(which)
    for _, height, draw in plot._panels(made):
        with plot.style():
            fig = plot._figure(plot.PAGE, height)
            draw(fig)
            canvas = FigureCanvasAgg(fig)
            canvas.draw()
            drawn.clear()
            canvas.draw()
        for annotation in fig.findobj(Annotation):
            annotation.update_positions(canvas.get_renderer())
        shown = [text for text in drawn if text.get_text() and text.get_visible()]
        boxes = [Text.get_window_extent(text) for text in shown]
        assert len(boxes) > len(plot.ran(made))
        for i, one in enumerate(boxes):
            assert one.x0 >= -1 and one.x1 <= fig.bbox.width + 1, "within the figure"
            for other in boxes[:i]:
                inside = min(one.x1, other.x1) - max(one.x0, other.x0), min(one.y1, other.y1) - max(one.y0, other.y0)
                assert min(inside) < 2, (shown[i], one, other)


def test_filled_markers_are_those_that_nothing_beats(result):
    """What the verdict calls the front is drawn in another marker, so that black and white tells it too."""
    fig = plot._figure(6, 4)
    plot._against(fig, result, plot._atomics(result), "")
    (axes,) = fig.axes
    marked = {kind: sorted((float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in axes.lines
                           if line.get_marker() == style["marker"]) for kind, style in plot.STYLES.items()}
    assert len({style["marker"] for style in plot.STYLES.values()}) == len(plot.STYLES)
    costs = plot._atomics(result)
    for kind, points in marked.items():
        names = [name for name in costs if plot._kind(result, name) == kind]
        assert points == sorted((costs[name][0], plot.wrong_share(result, name)) for name in names)
    assert len(marked[plot.FRONT]) == len(set(result["verdict"]["front"]) & costs.keys()) > 0


def test_share_of_wrong_observations_leaves_out_what_is_defined_otherwise():
    errors = {"own": {"false_shared": {}}, "per_page": {"page_mapcount_wrong_pages": {}},
              "consequences": {"pss_error_bytes": {}}}
    made = {"observations": 8, "schemes": {"a": {"errors": errors}},
            "errors_at": {"a": [[1, {"false_shared": 1}], [2, {"page_mapcount_wrong_pages": 9}],
                                [3, {"pss_error_bytes": 1.0, "page_mapcount_wrong_pages": 1}]]}}
    assert plot.wrong_share(made, "a") == 25.0
    assert plot._wrong(made["schemes"]["a"], {"pss_error_bytes": 1.0}) == (False, True, False)
    assert plot._wrong(made["schemes"]["a"], {"false_shared": 1, "page_mapcount_wrong_pages": 1}) == (True, False, True)


def test_axes_are_linear_unless_one_number_hides_the_others():
    used = []
    plot._scale(lambda *_, **__: used.append(1), [1, 2, 3, 40])
    assert not used
    plot._scale(lambda *_, **__: used.append(1), [1, 2, 3, 4000])
    assert used


def test_spread_names_keep_their_order_and_their_distance():
    heights = plot._spread([1.0] * 10 + [0.5] + [0.0] * 9)
    assert min(-np.diff(heights)) >= 1 / 20 - 1e-9
    assert max(heights) <= 1 + 1e-9 and min(heights) >= 0
    assert plot._spread([0.9, 0.2]) == [0.9, 0.2]


def test_addresses_over_time_stand_above_who_miscounts(result):
    trace = Trace.parse(TRACE)
    above, below, scale = plot.address_time(trace, result).axes
    places = {tuple(place) for marks in above.collections for place in marks.get_offsets().tolist()}
    assert places == {(number, int(operation["offset"])) for number, operation in enumerate(trace.operations)
                      if number in (4, 5, 6, 7, 9)}, "a split and the continues"
    assert [label.get_text().rstrip("*") for label in below.get_yticklabels()] == list(result["schemes"])
    assert scale.get_ylabel() == "schemes that miscount"
    for marks in above.collections:
        for (number, _), wrong in zip(marks.get_offsets().tolist(), marks.get_array().tolist()):
            names = [name for name, entry in result["schemes"].items() for index, found in result["errors_at"][name]
                     if index == number + 1 and found.keys() & plot._wrong_keys(entry)]
            assert wrong == len(names)
    assert max(marks.get_array().max() for marks in above.collections) > 3


def test_who_miscounts_is_taken_from_the_observation_that_follows():
    errors = {"own": {"false_shared": {}}, "per_page": {}, "consequences": {}}
    made = {"schemes": {"a": {"errors": errors}, "b": {"errors": errors}, "c": {"refused_why": "why"}},
            "errors_at": {"a": [[4, {"false_shared": 1}], [6, {"page_mapcount_max_error": 1}]],
                          "b": [[4, {"false_shared": 1}], [7, {"false_shared": 1}]]}}
    assert plot._miscounting(made, 7, 2).tolist() == [0, 0, 2, 2, 0, 0, 1]


def test_the_front_of_a_figure_is_what_nothing_is_below_and_left_of():
    assert plot._pareto([(3, 5), (1, 9), (2, 9), (3, 5), (2, 6), (9, 5), (4, 0)]) == [(1, 9), (2, 6), (3, 5), (4, 0)]


def test_costs_are_of_the_same_work():
    """A phase in which one scheme did more, which is cheap, makes no other scheme look dear."""
    schemes = {"a": entry(atomics=2), "b": entry(atomics=2), "lazy": entry(leaves=10)}
    zap = schemes["b"]["phases"]["zap"]
    schemes["b"]["phases"] = {**schemes["b"]["phases"], "zap": {**zap, "leaves": 9 * zap["leaves"]}}
    schemes["lazy"]["less_work"] = "did little"
    made = made_result(schemes)
    assert plot._atomics(made) == {name: (2, 2, 2) for name in schemes}
    times, label = plot._times(made)
    assert times == {"a": (20, 20, 20), "b": (20, 20, 20)} and label == "ns for each leaf in install (measured)"
