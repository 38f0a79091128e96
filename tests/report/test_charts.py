"""The charts name what they show, and their names do not cover each other."""

import re
from xml.etree import ElementTree

import numpy as np

from onnx_release.report.charts import CUT, latency_chart, layer_chart, speedup_chart, stand_alone, tradeoff_chart
from onnx_release.report.tradeoff import SQNR, Point
from onnx_release.timing.speedup import Speedup

SVG = "{http://www.w3.org/2000/svg}"


def point(name, latency, value, on_front=False):
    return Point(name, latency, latency * 0.9, latency * 1.1, value, value, value, True, on_front, ())


def texts(svg):
    """Every text with its place."""
    found = ElementTree.fromstring(svg).iter(f"{SVG}text")
    return {element.text: (element.get("x"), element.get("y"), element.get("transform")) for element in found}


def test_names_of_points_that_coincide_stand_in_different_places():
    points = [point("fp32", 6.7, 121.0), point("export", 6.8, 121.0), point("int8_static", 2.7, 22.0, on_front=True)]
    places = texts(tradeoff_chart(points, SQNR, {"budget": 19.5}))
    names = [places[name] for name in ("fp32", "export", "int8_static")]
    assert len(set(names)) == 3
    assert "budget" in places


def test_a_median_outside_of_the_quartiles_of_the_calls_that_were_kept_is_drawn():
    beside = Point("fp32", 2.0, 2.1, 2.5, 50.0, 50.0, 50.0, True, True, ())
    assert "fp32" in texts(tradeoff_chart([beside], SQNR, {}))


def test_a_point_without_error_is_left_out():
    places = texts(tradeoff_chart([point("fp32", 2.0, np.inf, on_front=True), point("fp16", 3.0, 50.0)], SQNR, {}))
    assert "fp16" in places and "fp32" not in places


def test_more_error_than_signal_is_in_the_picture():
    lowest = {"\N{MINUS SIGN}5", "\N{MINUS SIGN}10"}
    assert lowest & texts(tradeoff_chart([point("fp32", 2.0, 10.0), point("fp16", 3.0, -12.0)], SQNR, {})).keys()
    assert lowest & texts(layer_chart({"fp16": [10.0, -12.0]})).keys()


def test_a_line_starts_where_there_is_an_error():
    assert {"fp16", "int8_dynamic"} <= texts(layer_chart({"fp16": [70.0, 60.0], "int8_dynamic": [np.nan, 46.0]})).keys()


def test_a_picture_that_stands_alone_has_colours_for_light_and_dark():
    svg = stand_alone(speedup_chart({"fp32": Speedup(3.0, 2.8, 3.2)}))
    light, dark = svg.split("prefers-color-scheme: dark", 1)
    used = set(re.findall(r"var\((--\w+)\)", svg))
    assert used >= {"--ink", "--accent", "--page"}
    for colour in used:
        assert f"{colour}: #" in light and f"{colour}: #" in dark
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img" and root.get("aria-label")


def numbers(svg):
    """Those at the ticks of the axes."""
    found = (text.replace("\N{MINUS SIGN}", "-") for text in texts(svg) if text)
    return [float(text) for text in found if re.fullmatch(r"-?[\d.]+", text)]


def test_what_was_not_measured_does_not_set_the_axis():
    fp32 = Speedup(3.0, 2.8, 3.2)
    svg = speedup_chart({"fp32": fp32, "int8_static": Speedup(3476.0, 4.59e-07, 379_067_000.0)})
    assert {"fp32", "int8_static", "not measured"} <= texts(svg).keys()
    assert max(numbers(svg)) <= 4
    assert "not measured" not in texts(speedup_chart({"fp32": fp32}))
    assert "not measured" in texts(speedup_chart({"fp32": Speedup(3.0, 2.8, 3.2, disturbed=8, rounds=15)}))


def test_calls_of_a_busy_machine_do_not_set_the_axis_and_the_chart_says_so():
    quiet, busy = np.array([1.0, 1.0, 1.1, 1.2]), np.array([1.0, 1.0, 1.0, 400.0])
    assert max(numbers(latency_chart({"fp32": quiet, "fp16": busy}))) <= 4
    assert CUT in texts(latency_chart({"fp32": quiet, "fp16": busy}))
    assert CUT not in texts(latency_chart({"fp32": quiet}))
    wide = Point("fp32", 2.0, 1.9, 900.0, 50.0, 50.0, 50.0, True, True, ())
    svg = tradeoff_chart([wide], SQNR, {})
    assert any(CUT in (text or "") for text in texts(svg))
    whole = Point("fp32", 1.0, 0.9, 3.5, 50.0, 50.0, 50.0, True, True, ())  # within the axis, which ends at 4
    assert not any(CUT in (text or "") for text in texts(tradeoff_chart([whole], SQNR, {})))
    assert not any(CUT in (text or "") for text in texts(tradeoff_chart([point("fp32", 2.0, 50.0)], SQNR, {})))


def test_five_names_at_nearly_one_place_do_not_cover_each_other():
    names = ("export", "fp32", "fp16", "int8_dynamic", "int8_static")
    found = texts(tradeoff_chart([point(name, 6.0 + 0.4 * i, 121.0) for i, name in enumerate(names)], SQNR, {}))
    assert len({found[name] for name in names}) == len(names)
