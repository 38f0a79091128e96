"""Counts against numpy's, and sums that do not depend on the order."""

import numpy as np
import pytest

from onnx_release.reduce.histograms import LEAST_EXPONENT, count, observe_values


def normal(scale, size=1000, seed=0):
    return (np.random.default_rng(seed).normal(size=size) * scale).astype(np.float32)


def test_counts_are_numpys():
    values = normal(1.0, 10_000)
    found = count(values, 8.0, 64)  # powers of two: no value can be rounded into another bin
    np.testing.assert_array_equal(found, np.histogram(values, 64, (-8, 8))[0])


def test_the_limit_itself_belongs_to_the_last_bin():
    assert list(count(np.array([-4, 0, 4], np.float32), 4.0, 4)) == [1, 0, 1, 1]


@pytest.mark.parametrize(("largest", "exponent"), [(3.0, 2), (4.0, 2), (0.3, -1), (0.0, LEAST_EXPONENT)])
def test_the_reach_is_the_next_power_of_two(largest, exponent):
    observed = observe_values(np.array([0, -largest], np.float32), 8)
    assert observed.exponent == exponent
    assert observed.low == pytest.approx(-largest)
    assert observed.high == 0
    assert observed.counts is not None and observed.counts.sum() == 2


def test_a_sum_is_the_histogram_of_all_values_in_any_order():
    parts = [normal(scale, seed=seed) for seed, scale in enumerate((0.1, 30.0, 1.0))]
    observed = [observe_values(part, 256) for part in parts]
    one = observed[0].merge(observed[1]).merge(observed[2])
    other = observed[2].merge(observed[0]).merge(observed[1])
    whole = observe_values(np.concatenate(parts), 256)
    for found in (one, other):
        assert (found.low, found.high, found.exponent) == (whole.low, whole.high, whole.exponent)
        np.testing.assert_array_equal(found.counts, whole.counts)


def test_zeros_merge_with_anything():
    zeros = observe_values(np.zeros(7, np.float32), 256)
    merged = zeros.merge(observe_values(normal(1.0), 256))
    assert merged.counts is not None and merged.counts.sum() == 1007 and merged.counts[128] >= 7


def test_without_bins_only_the_extremes_are_kept():
    merged = observe_values(normal(1.0), None).merge(observe_values(normal(2.0), None))
    assert merged.counts is None and merged.high == normal(2.0).max()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, np.finfo(np.float32).min])
def test_what_has_no_bound_is_marked_and_left_out(bad):
    observed = observe_values(np.array([1, bad, 2], np.float32), 8)
    assert (observed.low, observed.high, observed.boundless) == (1, 2, True)
    assert observed.counts is not None and observed.counts.sum() == 2
    assert observe_values(np.ones(1, np.float32), 8).merge(observed).boundless
    assert not observe_values(np.ones(1, np.float32), 8).boundless


@pytest.mark.parametrize("values", [np.zeros((0, 4), np.float32), np.full(3, -np.inf, np.float32)])
def test_no_value_at_all_counts_as_zero(values):
    observed = observe_values(values, 8)
    assert (observed.low, observed.high) == (0, 0)
    assert observed.counts is not None and observed.counts.sum() == 0
