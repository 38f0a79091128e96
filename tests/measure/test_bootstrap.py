"""Intervals: by hand where a closed form is known, by what they must do elsewhere."""

import numpy as np
import pytest

from onnx_release.measure.bootstrap import grouped_interval


def interval(values, groups, seed=0, resamples=2000, confidence=0.95):
    return grouped_interval(values, groups, resamples, confidence, seed)


def test_all_right_is_the_interval_of_clopper_and_pearson_over_groups():
    # 0.025 ** (1 / 20) = 0.83157, with 20 groups of 3 samples.
    low, high = interval([1] * 60, [f"g{i % 20}" for i in range(60)])
    assert (low, high) == (pytest.approx(0.831567, abs=1e-6), 1.0)


def test_one_group_that_is_all_right_says_little():
    assert interval([1, 1, 1], ["a", "a", "a"]) == (pytest.approx(0.025), 1.0)


def test_all_wrong_mirrors_it():
    low, high = interval([0] * 5, list("abcde"), confidence=0.9)
    assert (low, high) == (0.0, pytest.approx(1 - 0.05**0.2))


def test_the_interval_holds_the_mean_and_narrows_with_more_groups():
    random = np.random.default_rng(1)
    widths = []
    for count in (20, 200):
        values = (random.random(count) < 0.8).astype(int).tolist()
        low, high = interval(values, [str(i) for i in range(count)])
        assert low < np.mean(values) < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_samples_of_one_group_count_together():
    # Ten groups of twenty equal samples say as much as ten samples.
    values = np.repeat([1, 1, 1, 1, 1, 1, 1, 0, 0, 0], 20).tolist()
    groups = np.repeat([str(i) for i in range(10)], 20).tolist()
    grouped = interval(values, groups)
    single = interval(values, [str(i) for i in range(200)])
    assert grouped[1] - grouped[0] > 3 * (single[1] - single[0])
    assert grouped == interval([1] * 7 + [0] * 3, [str(i) for i in range(10)])


def test_groups_weigh_by_their_samples():
    values, groups = [1] * 9 + [0], ["a"] * 9 + ["b"]
    low, high = interval(values, groups)
    assert low == 0.0  # b twice
    assert high == 1.0  # a twice


def test_the_interval_of_two_groups_by_hand():
    # Four draws: both a with 1/4, both b with 1/4, one of each with 1/2; means 1, 0 and 0.75.
    values, groups = [1, 1, 1, 0], ["a", "a", "a", "b"]
    assert interval(values, groups, confidence=0.4) == (0.75, 0.75)
    assert interval(values, groups, confidence=0.6) == (0.0, 1.0)


def test_more_confidence_is_a_wider_interval():
    values, groups = [1, 0] * 20, [str(i) for i in range(40)]
    low, high = interval(values, groups, confidence=0.5)
    wide_low, wide_high = interval(values, groups, confidence=0.99)
    assert wide_low < low < 0.5 < high < wide_high


def test_the_order_of_the_samples_changes_nothing():
    values, groups = [1, 0, 1, 1, 0, 1], list("aabbcc")
    assert interval(values[::-1], groups[::-1]) == interval(values, groups)


def test_the_seed_decides():
    random = np.random.default_rng(0)
    values, groups = random.integers(0, 2, 50).tolist(), [str(i) for i in range(50)]
    intervals = [interval(values, groups, seed, resamples=101) for seed in (3, 3, 4, 5, 6)]
    assert intervals[0] == intervals[1]
    assert len(set(intervals)) > 1


def test_the_95_percent_interval_holds_the_truth_about_that_often():
    random = np.random.default_rng(2)
    hits = 0
    for trial in range(200):
        values = (random.random(60) < 0.7).astype(int).tolist()
        low, high = interval(values, [str(i) for i in range(60)], seed=trial, resamples=400)
        hits += low <= 0.7 <= high
    assert 180 <= hits <= 199
