"""The front on values worked out by hand: (accuracy, -latency in ms)."""

import math

import pytest

from onnx_release.report.pareto import pareto_front


def test_a_point_that_another_beats_on_every_axis_is_off_the_front():
    accurate, fast, between, beaten = (0.95, -9.0), (0.80, -1.0), (0.90, -2.0), (0.85, -3.0)
    assert pareto_front([accurate, beaten, fast, between]) == [True, False, True, True]


def test_as_good_on_one_axis_and_worse_on_the_other_is_off_it():
    assert pareto_front([(0.9, -2.0), (0.9, -3.0)]) == [True, False]
    assert pareto_front([(0.8, -2.0), (0.9, -2.0)]) == [False, True]


def test_equal_points_stay_together():
    assert pareto_front([(0.9, -2.0), (0.9, -2.0), (0.8, -3.0)]) == [True, True, False]


@pytest.mark.parametrize("unknown", [None, math.nan])
def test_what_is_unknown_is_never_on_it_and_beats_nothing(unknown):
    assert pareto_front([(1.0, unknown), (0.9, -2.0)]) == [False, True]
    assert pareto_front([(unknown, -1.0)]) == [False]


def test_three_axes_and_no_point():
    assert pareto_front([(1, 1, 1), (1, 1, 0), (0, 0, 2)]) == [True, False, True]
    assert pareto_front([]) == []


def test_infinity_is_the_best_there_is():
    assert pareto_front([(math.inf, -2.0), (120.0, -2.0), (120.0, -1.0)]) == [True, False, True]
