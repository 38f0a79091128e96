"""The front of the variants that may be released, and what the report says about each, on values worked out by hand."""

import math

import numpy as np
import pytest

from onnx_release.core.spec import Budget
from onnx_release.report.tradeoff import SQNR, Quality, front, levels, make_points, qualities, standing
from tests.candidates import candidate

ACCURACY = Quality("accuracy", "accuracy", share=True)


def row(name, latency, accuracy=None, sqnr=60.0, passed=True, alike="", **more):
    found = {"passed": passed, "sqnr_db": sqnr, "max_abs_error": 0.1 if sqnr is not None else 0.0}
    if accuracy is not None:
        found |= {"accuracy": accuracy, "accuracy_low": accuracy - 0.02, "accuracy_high": accuracy + 0.02}
        found |= {"accuracy_torch": 0.96}
    return candidate(name, latency, alike, **{**found, **more})


def points_of(rows, quality=ACCURACY):
    calls = {item.name: np.array([1.0, 2.0, 3.0, 4.0, 5.0]) for item in rows}
    return make_points(rows, calls, quality)


def said(rows, quality=ACCURACY):
    points = points_of(rows, quality)
    return {point.name: standing(point, points, quality) for point in points}


def test_the_front_is_of_what_may_be_released_the_fastest_first():
    rows = [
        row("export", 1.0, 0.99),  # beats all, and never ships
        row("fp32", 6.0, 0.95),
        row("fp16", 8.0, 0.94),
        row("int8_dynamic", 2.0, 0.93, passed=False),
        row("int8_static", 3.0, 0.90),
    ]
    points = points_of(rows)
    assert [point.name for point in front(points)] == ["int8_static", "fp32"]
    assert said(rows) == {
        "export": "is never released",
        "fp32": "5 points better than int8_static and 3 ms slower",
        "fp16": "beaten by fp32 (the intervals overlap)",
        "int8_dynamic": "failed",
        "int8_static": "the fastest",
    }


def test_what_lies_within_the_noise_is_said():
    rows = [row("fp32", 2.1, 0.92, alike="fp16"), row("fp16", 2.0, 0.91, alike="fp32")]
    assert said(rows)["fp32"] == (
        "1 point better than fp16 and 0.1 ms slower (the intervals overlap, no difference in speed)"
    )


def test_the_fastest_names_those_that_may_be_as_fast():
    rows = [row("fp32", 2.0, 0.95, alike="export, fp16"), row("fp16", 2.1, 0.91), row("export", 1.9, 0.95)]
    assert said(rows)["fp32"] == "the fastest, or as fast as fp16"


def test_equal_points_are_both_on_the_front():
    assert set(said([row("fp32", 2.0, 0.9), row("fp16", 2.0, 0.9)]).values()) == {"the fastest", "the same as fp32"}


def test_no_error_at_all_is_better_than_any():
    rows = [row("fp32", 3.0, sqnr=None), row("fp16", 2.0, sqnr=50.0)]
    assert said(rows, SQNR)["fp32"] == "no error, unlike fp16, and 1 ms slower"


def test_an_error_that_is_not_finite_is_not_called_none():
    assert SQNR.written(math.inf) == "no error"
    broken = row("fp16", 2.0, sqnr=None, passed=False, max_abs_error=None)
    assert SQNR.written(points_of([broken], SQNR)[0].value) == "not finite"


def test_what_could_not_be_timed_has_no_point():
    assert [point.name for point in points_of([row("fp32", 2.0), row("fp16", None)], SQNR)] == ["fp32"]


def test_accuracy_counts_where_samples_are_labelled_else_agreement_and_sqnr_always():
    plain, labelled = row("fp32", 2.0), row("fp32", 2.0, 0.9, agreement=0.99)
    agreeing = row("fp32", 2.0, agreement=0.99)
    assert [quality.key for quality in qualities([labelled], "")] == ["accuracy", "sqnr_db"]
    assert [quality.key for quality in qualities([agreeing], "boxes matched")] == ["agreement", "sqnr_db"]
    assert qualities([agreeing], "boxes matched")[0].label == "boxes matched"
    assert qualities([plain], "") == [SQNR]


def test_points_are_compared_with_pytorch_and_the_budget():
    rows = [row("fp32", 2.0, 0.9)]
    assert levels(rows, ACCURACY, Budget(accuracy_drop=0.02)) == {"PyTorch": 0.96, "budget": pytest.approx(0.94)}
    assert levels(rows, ACCURACY, Budget(sqnr_db=19.5)) == {"PyTorch": 0.96}
    assert levels(rows, SQNR, Budget(sqnr_db=19.5)) == {"budget": 19.5}
    assert levels(rows, SQNR, None) == {}
