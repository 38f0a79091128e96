"""Errors against values worked out by hand."""

import math

import numpy as np
import pytest

from onnx_release.measure.numerics import (
    OutputError,
    cosine,
    finite_or_none,
    largest_error,
    other_infinities,
    tolerance_needed,
)


def error(*pairs):
    result = OutputError()
    for reference, output in pairs:
        result.add(np.array(reference, np.float64), np.array(output, np.float32))
    return result


def test_one_case_by_hand():
    result = error(([3.0, 4.0], [3.0, 4.5]))
    assert result.max_abs == 0.5
    assert result.max_rel == 0.125  # 0.5 of 4
    assert result.sqnr_db == pytest.approx(20.0)  # 25 to 0.25
    # (9 + 18) / (5 * sqrt(9 + 20.25))
    assert result.mean_cosine == pytest.approx(27 / (5 * math.sqrt(29.25)), abs=1e-12)


def test_several_cases_keep_the_largest_error_and_sum_up_signal_and_noise():
    result = error(([3.0, 4.0], [3.0, 4.5]), ([10.0], [8.0]))
    assert result.max_abs == 2.0
    assert result.max_rel == 0.2
    assert result.sqnr_db == pytest.approx(10 * math.log10(125 / 4.25))


def test_relative_errors_leave_out_what_is_next_to_zero():
    assert error(([1000.0, 0.5, 0.0], [1000.0, 1.0, 1.0])).max_rel == 0.0
    assert error(([1000.0, 2.0], [1000.0, 3.0])).max_rel == 0.5


def test_no_difference_is_an_infinite_ratio():
    result = error(([1.0, 2.0], [1.0, 2.0]))
    assert result.sqnr_db == math.inf
    assert result.max_abs == result.max_rel == 0.0
    assert result.mean_cosine == pytest.approx(1.0)


def test_noise_without_a_signal():
    assert error(([0.0], [1.0])).sqnr_db == -math.inf


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_infinity_are_never_lost(bad):
    result = error(([1.0], [1.0]), ([1.0, 2.0], [bad, 2.0]), ([1.0], [1.0]))
    assert not math.isfinite(result.max_abs)
    assert not math.isfinite(result.max_rel)
    assert finite_or_none(result.max_abs) is None


def test_nan_reaches_every_figure():
    result = error(([3.0, 4.0], [3.0, 4.0]), ([3.0, 4.0], [math.nan, 4.0]), ([3.0, 4.0], [3.0, 4.0]))
    figures = [result.max_abs, result.max_rel, result.sqnr_db, result.mean_cosine]
    assert all(math.isnan(figure) for figure in figures)


def test_the_cosine_is_the_mean_over_cases():
    # By hand: the same direction, a right angle, the opposite direction, and 45 degrees.
    cases = [([1.0, 0.0], [5.0, 0.0]), ([1.0, 0.0], [0.0, 1.0]), ([0.0, 2.0], [0.0, -2.0]), ([1.0, 0.0], [1.0, 1.0])]
    assert error(*cases).mean_cosine == pytest.approx((1 + 0 - 1 + math.sqrt(0.5)) / 4)


def test_arrays_of_any_shape_count_as_one_row_of_numbers():
    result = error(([[3.0], [4.0]], [[3.0], [4.5]]))
    assert (result.max_abs, result.max_rel) == (0.5, 0.125)
    assert result.sqnr_db == pytest.approx(20.0)
    assert result.mean_cosine == pytest.approx(27 / (5 * math.sqrt(29.25)))


def test_squares_beyond_float32_do_not_overflow():
    result = OutputError()
    result.add(np.array([1e30, 0.0], np.float32), np.array([0.0, 1e29], np.float32))
    assert result.sqnr_db == pytest.approx(-10 * math.log10(1.01), abs=1e-6)
    assert result.mean_cosine == 0.0


def test_the_difference_is_taken_in_float64():
    result = OutputError()
    result.add(np.array([1.0 + 2**-40]), np.array([1.0], np.float32))
    assert result.max_abs == 2**-40


def test_cosines_of_zeros():
    assert cosine(np.zeros(2), np.zeros(2)) == 1.0
    assert cosine(np.zeros(2), np.ones(2)) == 0.0
    assert cosine(np.array([1.0, 0.0]), np.array([-2.0, 0.0])) == -1.0


def test_the_tolerance_that_would_pass():
    reference, output = np.array([10.0, 1.0]), np.array([10.5, 1.2])
    # By hand: 0.5 - 0.01 * 10 and 0.2 - 0.01 * 1.
    assert tolerance_needed(reference, output, rtol=0.01) == pytest.approx(0.4)
    assert np.allclose(output, reference, rtol=0.01, atol=0.4 + 1e-12)
    assert not np.allclose(output, reference, rtol=0.01, atol=0.4 - 1e-12)
    assert tolerance_needed(reference, output, rtol=1.0) == 0.0
    assert math.isnan(tolerance_needed(reference, np.array([np.nan, 1.0]), rtol=0.0))


def test_the_same_infinity_in_both_counts_in_no_error():
    masked, plain = error(([3.0, -math.inf, 4.0], [3.0, -math.inf, 4.5])), error(([3.0, 4.0], [3.0, 4.5]))
    assert masked == plain
    reference, output = np.array([math.inf, 1.0]), np.array([math.inf, 1.5])
    assert tolerance_needed(reference, output, rtol=0.1) == pytest.approx(0.4)
    assert largest_error(reference, output) == 0.5
    assert other_infinities(reference, output) == ""
    nothing = error(([-math.inf], [-math.inf]))
    assert (nothing.max_abs, nothing.sqnr_db, nothing.mean_cosine) == (0.0, math.inf, 1.0)


@pytest.mark.parametrize("bad", [-65504.0, 0.0, math.inf, math.nan])
def test_infinity_that_the_output_does_not_have_reaches_every_figure(bad):
    reference, output = np.array([3.0, -math.inf, 4.0]), np.array([3.0, bad, 4.0])
    result = error((reference, output), ([1.0], [1.0]))
    figures = [result.max_abs, result.max_rel, result.sqnr_db, result.mean_cosine]
    figures += [tolerance_needed(reference, output, rtol=0.1), largest_error(reference, output)]
    assert not any(math.isfinite(figure) for figure in figures)
    said = f"1 of the 3 values are not infinite as PyTorch's are: {bad:g} in place of -inf"
    assert other_infinities(reference, output) == said


def test_finite_numbers_stay():
    assert finite_or_none(1.5) == 1.5
    assert finite_or_none(math.nan) is None
    assert finite_or_none(-math.inf) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("reference", [3.0, 1e-9, 0.0])
def test_what_is_not_finite_reaches_every_figure_wherever_it_stands(bad, reference):
    result = error(([1000.0, reference], [1000.0, bad]), ([1.0], [1.0]))
    figures = [result.max_abs, result.max_rel, result.sqnr_db, result.mean_cosine]
    assert not any(math.isfinite(figure) for figure in figures)
