"""The interval of a speed-up: by hand where it is known, by what it must do elsewhere."""

import math

import numpy as np
import pytest

from onnx_release.timing.speedup import OTHER_WORK, TOO_WIDE, Speedup, describe_doubt, speedup_interval


def test_a_speed_up_is_the_median_of_the_pairs():
    assert speedup_interval([2, 4, 6, 8, 30], [1, 2, 3, 4, 5], 1, 0)[0] == pytest.approx(2)
    assert speedup_interval([2.0] * 5, [4.0] * 5, 1, 0) == pytest.approx((0.5, 0.5, 0.5))


def test_pairing_removes_what_both_have_in_common():
    speed = np.random.default_rng(0).uniform(1, 10, 15)
    assert speedup_interval((3 * speed).tolist(), speed.tolist(), 3, 0) == pytest.approx((3, 3, 3))


def test_one_slow_round_does_not_move_the_median():
    assert speedup_interval([4.0] * 14 + [400.0], [2.0] * 15, 1, 0)[0] == pytest.approx(2)


def test_the_interval_of_two_starts_by_hand():
    # The logarithms are 0 and 1: Student's interval of two values is their mean and t(1) = 12.7062 times half of their
    # distance. Resampling leaves a few per cent of chance in the width.
    middle, low, high = speedup_interval([1.0, math.e], [1.0, 1.0], 2, 0)
    assert math.log(middle) == pytest.approx(0.5)
    assert math.log(low) == pytest.approx(0.5 - 12.7062 / 2, rel=0.05)
    assert math.log(high) == pytest.approx(0.5 + 12.7062 / 2, rel=0.05)


def test_a_single_pair_has_no_interval():
    assert speedup_interval([4.0], [2.0], 1, 0) == pytest.approx((2, 0, math.inf))


def test_a_process_that_differs_from_the_next_widens_the_interval():
    alike = [4.0, 4.1, 3.9, 4.0, 4.05]
    narrow = speedup_interval(alike * 3, [1.0] * 15, 3, 0)
    wide = speedup_interval([*alike * 2, *(1.5 * value for value in alike)], [1.0] * 15, 3, 0)
    assert narrow[2] / narrow[1] < 1.2
    assert wide[2] / wide[1] > 2


@pytest.mark.parametrize(("between", "within"), [(0.05, 0.02), (0.0, 0.02)])
def test_two_equal_contenders_differ_as_seldom_as_promised(between, within):
    """Three starts of five rounds, where a process keeps its own speed: 95 % of the intervals should hold 1."""
    random = np.random.default_rng(4)
    hits = 0
    for trial in range(200):
        starts = np.repeat(random.normal(0, between, (2, 3)), 5, axis=1)
        base, own = np.exp(starts + random.normal(0, within, (2, 15)))
        _, low, high = speedup_interval(base.tolist(), own.tolist(), 3, trial)
        hits += low <= 1 <= high
    assert hits >= 184  # 190 expected, with a standard deviation of 3


@pytest.mark.parametrize(
    ("speedup", "doubt"),
    [
        (Speedup(2.0, 1.2, 3.6, disturbed=7, rounds=15), ""),  # wide by a factor of 3, disturbed in less than a half
        (Speedup(2.0, 1.9, 2.1, disturbed=8, rounds=15), OTHER_WORK),
        (Speedup(2.0, 1.2, 3.7, disturbed=1, rounds=15), OTHER_WORK),
        (Speedup(2.0, 1.2, 3.7, disturbed=0, rounds=15), TOO_WIDE),
        (Speedup(1.0, 4.59e-07, 379_067_000.0), TOO_WIDE),
        (Speedup(2.0, 0.0, math.inf), TOO_WIDE),
        (Speedup(2.0, 1.0, None), TOO_WIDE),
        (Speedup(1.0, 1.0, 1.0, disturbed=15, rounds=15), ""),  # the base over itself
        (Speedup(None, None, None, disturbed=15, rounds=15), ""),  # not timed at all, which is said elsewhere
    ],
)
def test_what_counts_as_not_measured_and_why(speedup, doubt):
    assert speedup.doubt == doubt
    assert speedup.measured is (not doubt and speedup.value is not None)
    assert bool(describe_doubt(speedup, "net")) is bool(doubt)


def test_an_interval_without_1_says_which_is_faster_however_wide_unless_the_times_are_of_other_work():
    assert not Speedup(2.0, 1.9, 2.1).no_difference
    assert Speedup(2.0, 0.9, 2.1).no_difference
    assert Speedup(2.0, 1.9, 2.1, disturbed=8, rounds=15).no_difference
    assert not Speedup(20.0, 2.0, 200.0).no_difference
    assert not Speedup(0.05, 0.005, 0.5, disturbed=7, rounds=15).no_difference
    assert Speedup(20.0, 0.9, 200.0).no_difference
    assert Speedup(2.0, 0.0, math.inf).no_difference  # a single pair
    assert Speedup(None, None, None).no_difference


def test_what_to_do_fits_the_cause():
    disturbed = describe_doubt(Speedup(2.0, 1.9, 2.1, 8, 15), "net")
    assert "other work took cores in 8 of 15 rounds" in disturbed.lower()
    assert "`dvc repro -f -s pipelines/net/dvc.yaml:benchmark`, and then `make repro MODEL=net`" in disturbed
    wide = describe_doubt(Speedup(20.0, 2.0, 200.0, 0, 15), "net")
    assert "benchmark.starts" in wide and "work took" not in wide
    assert "in models/net/params.yaml, then run `make repro MODEL=net`." in wide
