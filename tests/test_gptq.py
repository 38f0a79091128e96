"""Rounding against an exhaustive search and against plain rounding, in float64."""

import itertools

import numpy as np
import pytest

from onnx_release.gptq import InputStatistics, corrected_bias, round_layer, round_weights, search_scales


def output_error(difference, covariance):
    return float(np.einsum("goi,gij,goj->", difference, covariance, difference))


@pytest.fixture
def case():
    """Correlated inputs with a mean, and random weights: one group, four outputs, six inputs."""
    random = np.random.default_rng(0)
    inputs = (random.normal(size=(6, 6)) @ random.normal(size=(6, 500)) + 3)[np.newaxis]
    statistics = InputStatistics.empty(1, 6)
    statistics.add(inputs.astype(np.float32), inputs.astype(np.float32))
    return random.normal(size=(1, 4, 6)), statistics, inputs


def test_the_covariance_is_numpys(case):
    _, statistics, inputs = case
    np.testing.assert_allclose(statistics.covariance[0], np.cov(inputs[0], bias=True), rtol=1e-4)


def test_statistics_of_two_halves_are_those_of_the_whole(case):
    _, statistics, inputs = case
    halves = [InputStatistics.empty(1, 6) for _ in range(2)]
    for half, part in zip(halves, np.split(inputs, 2, axis=2), strict=True):
        half.add(part.astype(np.float32), part.astype(np.float32))
    np.testing.assert_allclose(halves[0].merge(halves[1]).covariance, statistics.covariance, rtol=1e-3)


def test_rounding_knows_what_the_inputs_are(case):
    weights, statistics, _ = case
    covariance, limit = statistics.covariance, 7
    scales = search_scales(weights, covariance, limit)
    rounded = round_weights(weights, covariance, scales, limit)
    plain = np.clip(np.rint(weights / scales[..., None]), -limit, limit)
    unit = scales[..., None]
    assert np.array_equal(rounded, np.rint(rounded)) and np.abs(rounded).max() <= limit
    ours, theirs = (output_error(weights - found * unit, covariance) for found in (rounded, plain))
    assert ours < 0.85 * theirs


def test_two_weights_come_within_a_few_per_cent_of_the_best_there_is():
    covariance = np.array([[[1.0, 0.9], [0.9, 1.0]]])
    weights, scale = np.array([[[0.43, 0.44]]]), np.array([[0.1]])
    found = output_error(weights - round_weights(weights, covariance, scale, 8) * 0.1, covariance)
    grid = itertools.product(range(9), repeat=2)
    best = min(output_error(weights - np.array([[pair]]) * 0.1, covariance) for pair in grid)
    plain = output_error(weights - np.rint(weights / 0.1) * 0.1, covariance)
    assert found <= 1.05 * best < plain


def test_more_inputs_than_a_block_are_rounded_as_well():
    random = np.random.default_rng(1)
    inputs = random.normal(size=(1, 150, 150)) @ random.normal(size=(1, 150, 3000))
    statistics = InputStatistics.empty(1, 150)
    statistics.add(inputs.astype(np.float32), inputs.astype(np.float32))
    weights = random.normal(size=(1, 3, 150))
    integers, scales = round_layer(weights, statistics, 7)
    plain = np.clip(np.rint(weights / scales[..., None]), -7, 7)
    unit = scales[..., None]
    ours, theirs = (output_error(weights - found * unit, statistics.covariance) for found in (integers, plain))
    assert integers.dtype == np.int8 and ours < 0.6 * theirs


def test_scales_give_up_a_lone_large_weight_where_its_input_hardly_moves():
    covariance = np.diag([1.0, 1.0, 1e-6])[np.newaxis]
    weights = np.array([[[0.51, -0.49, 1.0]]])
    assert search_scales(weights, covariance, 7)[0, 0] < 1.0 / 7
    even = np.eye(3)[np.newaxis]
    assert search_scales(np.array([[[0.0, 0.0, 1.0]]]), even, 7)[0, 0] == pytest.approx(1 / 7)


def test_rows_of_zeros_stay_zeros():
    integers, scales = round_layer(np.zeros((2, 1, 3)), unit_statistics(2, 3), 127)
    assert not integers.any() and (scales > 0).all()


def unit_statistics(groups, inputs):
    statistics = InputStatistics.empty(groups, inputs)
    data = np.random.default_rng(0).normal(size=(groups, inputs, 50)).astype(np.float32)
    statistics.add(data, data)
    return statistics


def test_the_bias_makes_the_mean_what_it_should_be():
    """Inputs that should be 1 and 3 in the mean are 2 and 3; weights 2 and 1 became 1 and 1: 5 + bias from 5."""
    statistics = InputStatistics.empty(1, 2)
    statistics.add(np.array([[[2.0, 2.0], [2.0, 4.0]]]), np.array([[[0.0, 2.0], [3.0, 3.0]]]))
    bias = corrected_bias(np.array([[[2.0, 1.0]]]), np.array([[[1.0, 1.0]]]), np.array([0.5]), statistics)
    np.testing.assert_allclose(bias, [0.5 + (2 * 1 + 3) - (2 + 3)])
