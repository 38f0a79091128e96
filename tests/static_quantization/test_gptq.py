"""Rounding against an exhaustive search and against plain rounding, in float64."""

import itertools

import numpy as np
import pytest

from onnx_release.static_quantization.gptq import (
    InputStatistics,
    Limits,
    corrected_bias,
    round_layer,
    round_weights,
    search_scales,
)


def output_error(difference, covariance):
    return float(np.einsum("goi,gij,goj->", difference, covariance, difference))


def statistics_of(inputs):
    """Of float [groups, inputs, positions]."""
    return InputStatistics.of(inputs.astype(np.float32))


@pytest.fixture
def case():
    """Correlated inputs with a mean, and random weights: one group, four outputs, six inputs."""
    random = np.random.default_rng(0)
    inputs = (random.normal(size=(6, 6)) @ random.normal(size=(6, 500)) + 3)[np.newaxis]
    return random.normal(size=(1, 4, 6)), statistics_of(inputs), inputs


def test_the_covariance_is_numpys(case):
    _, statistics, inputs = case
    np.testing.assert_allclose(statistics.covariance[0], np.cov(inputs[0], bias=True), rtol=1e-4)
    np.testing.assert_allclose(statistics.mean, inputs.mean(axis=2), rtol=1e-6)


def test_statistics_of_two_halves_are_those_of_the_whole(case):
    _, statistics, inputs = case
    one, other = (statistics_of(part) for part in np.split(inputs, 2, axis=2))
    np.testing.assert_allclose(one.merge(other).covariance, statistics.covariance, rtol=1e-3)


@pytest.mark.parametrize("inputs", [np.full((2, 30, 200), 0.1), np.random.default_rng(0).normal(size=(2, 30, 1)) + 5])
def test_inputs_that_do_not_vary_round_every_weight_by_itself(inputs):
    """Of a sum of squares less the square of a sum, float32 would leave noise of either sign."""
    weights, covariance = np.random.default_rng(1).normal(size=(2, 4, 30)), statistics_of(inputs).covariance
    integers, scales = round_layer(weights, covariance, Limits(127))
    assert np.abs(covariance).max() < 1e-12
    np.testing.assert_array_equal(integers, np.clip(np.rint(weights / scales[..., None]), -127, 127))


def test_rounding_knows_what_the_inputs_are(case):
    weights, statistics, _ = case
    covariance, limits = statistics.covariance, Limits(7)
    scales = search_scales(weights, covariance, limits)
    rounded = round_weights(weights, covariance, scales, limits)
    plain = np.clip(np.rint(weights / scales[..., None]), -7, 7)
    unit = scales[..., None]
    assert np.array_equal(rounded, np.rint(rounded)) and np.abs(rounded).max() <= 7
    ours, theirs = (output_error(weights - found * unit, covariance) for found in (rounded, plain))
    assert ours < 0.85 * theirs


def test_two_weights_come_within_a_few_per_cent_of_the_best_there_is():
    covariance = np.array([[[1.0, 0.9], [0.9, 1.0]]])
    weights, scale = np.array([[[0.43, 0.44]]]), np.array([[0.1]])
    found = output_error(weights - round_weights(weights, covariance, scale, Limits(8)) * 0.1, covariance)
    grid = itertools.product(range(9), repeat=2)
    best = min(output_error(weights - np.array([[pair]]) * 0.1, covariance) for pair in grid)
    plain = output_error(weights - np.rint(weights / 0.1) * 0.1, covariance)
    assert found <= 1.05 * best < plain


def test_more_inputs_than_a_block_are_rounded_as_well():
    random = np.random.default_rng(1)
    covariance = statistics_of(random.normal(size=(1, 150, 150)) @ random.normal(size=(1, 150, 3000))).covariance
    weights = random.normal(size=(1, 3, 150))
    integers, scales = round_layer(weights, covariance, Limits(7))
    plain = np.clip(np.rint(weights / scales[..., None]), -7, 7)
    unit = scales[..., None]
    ours, theirs = (output_error(weights - found * unit, covariance) for found in (integers, plain))
    assert integers.dtype == np.int8 and ours < 0.6 * theirs


def test_scales_give_up_a_lone_large_weight_where_its_input_hardly_moves():
    covariance = np.diag([1.0, 1.0, 1e-6])[np.newaxis]
    weights = np.array([[[0.51, -0.49, 1.0]]])
    assert search_scales(weights, covariance, Limits(7))[0, 0] < 1.0 / 7
    even = np.eye(3)[np.newaxis]
    assert search_scales(np.array([[[0.0, 0.0, 1.0]]]), even, Limits(7))[0, 0] == pytest.approx(1 / 7)


def test_rows_of_zeros_stay_zeros():
    covariance = statistics_of(np.random.default_rng(0).normal(size=(2, 3, 50))).covariance
    integers, scales = round_layer(np.zeros((2, 1, 3)), covariance, Limits(127))
    assert not integers.any() and (scales > 0).all()


PARTNERS = np.array([1, 0, 3, 2, -1])


def pair_sums(integers):
    """The largest sum of the positive and of the negative parts of two partners."""
    pairs = integers[..., :4].astype(int).reshape(*integers.shape[:2], 2, 2)
    return max(np.maximum(pairs, 0).sum(axis=-1).max(), np.maximum(-pairs, 0).sum(axis=-1).max())


def test_the_bounds_of_a_weight_are_what_its_partner_leaves():
    low, high = Limits(127, PARTNERS).bounds(np.array([0, 1, 2, 100, -100, 127, -127]))
    assert list(high) == [127, 127, 126, 28, 127, 1, 127]
    assert list(low) == [-127, -127, -127, -127, -28, -127, -1]


def test_no_two_partners_pass_their_sum_and_it_costs_less_than_halving_all():
    random = np.random.default_rng(2)
    covariance = statistics_of(random.normal(size=(2, 5, 400))).covariance
    weights = random.normal(size=(2, 40, 5)) * [1.0, 0.9, 0.2, 1.0, 0.1]
    errors = {}
    for name, limits in (("free", Limits(127)), ("pairs", Limits(127, PARTNERS)), ("halved", Limits(64))):
        integers, scales = round_layer(weights, covariance, limits)
        errors[name] = output_error(weights - integers * scales[..., None], covariance)
        assert (pair_sums(integers) <= 128) == (name != "free")
    assert errors["free"] < errors["pairs"] < 0.8 * errors["halved"]


def test_the_bias_makes_the_mean_what_it_should_be():
    """Inputs that should be 1 and 3 in the mean are 2 and 3; weights 2 and 1 became 1 and 1: 5 + bias from 5."""
    wanted, found = np.array([[1.0, 3.0]]), np.array([[2.0, 3.0]])
    bias = corrected_bias(np.array([[[2.0, 1.0]]]), np.array([[[1.0, 1.0]]]), np.array([0.5]), wanted, found)
    np.testing.assert_allclose(bias, [0.5 + (2 * 1 + 3) - (2 + 3)])
