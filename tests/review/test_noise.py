"""Spreads, what two timings may be apart, and the test of what is beyond it."""

import math
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from benchmarks.compare import COMPARE_BENCHMARK
from onnx_release.core.files import read_json
from onnx_release.core.metrics import Noise
from onnx_release.report.metrics import metric
from onnx_release.review.noise import (
    ALLOWANCES,
    SLICES_MS,
    UNCHANGED_MACHINE,
    Spread,
    Uncertainty,
    allowed_range,
    certain,
    change_of,
    difference_p,
    pooled,
    round_latencies,
    rounds_spread,
    spread_of,
    uncertainty,
    within,
)
from tests.imports import ROOT


def test_every_kind_of_timing_has_an_allowance():
    assert {*ALLOWANCES} == {*get_args(Noise)} - {"", "decision", "by-product", "latency"}
    assert all(factor > 1 for factor in ALLOWANCES.values())


def test_measured_again_and_again_nothing_that_is_compared_was_called_a_difference():
    measured = read_json(ROOT / COMPARE_BENCHMARK)
    assert measured["replicates"] >= 20
    for other in measured["others"]:
        file, _, key = other.partition(":")[0].partition(".")
        assert not metric(file, key).is_compared, other


def test_the_allowances_cover_what_was_measured():
    """Except metrics with an interval, which may differ by that much more, and differences that slices explain."""
    measured = read_json(ROOT / COMPARE_BENCHMARK)["largest_factor"]
    for kind, found in measured.items():
        if kind in ALLOWANCES and kind not in ("speedup", "profile", *SLICES_MS):
            assert found["factor"] <= ALLOWANCES[kind], found


def test_the_error_behind_an_interval_is_that_of_student_by_hand():
    # Student's t of 2 degrees of freedom is 4.3027 at 97.5 %.
    found = spread_of(math.exp(-0.43027), math.exp(0.43027), 3)
    assert found is not None
    assert found.error == pytest.approx(0.1, rel=1e-4)
    assert found.freedom == 2


@pytest.mark.parametrize(("low", "high", "units"), [(None, 1.0, 3), (1.0, 1.0, 3), (0.0, math.inf, 3), (0.5, 2.0, 1)])
def test_what_is_no_interval_has_no_spread(low, high, units):
    assert spread_of(low, high, units) is None


def rounds(between, within=0.01):
    """Latencies in 3 starts of 5 rounds; `between` starts and `within` them, by the deviation of the logarithm."""
    random = np.random.default_rng(0)
    return np.exp(np.repeat(random.normal(0, between, 3), 5) + random.normal(0, within, 15)).tolist()


def test_the_spread_of_latencies_grows_with_how_starts_differ():
    wide, narrow = (rounds_spread(rounds(between), 3) for between in (0.1, 0.001))
    assert wide is not None and narrow is not None
    assert wide.error > 3 * narrow.error
    assert wide.low < 1 < wide.high


def test_rounds_that_do_not_divide_by_the_starts_have_no_spread():
    own = [1.0, 1.1, 1.0, 1.2]
    assert rounds_spread(own, 2) is not None
    assert rounds_spread(own, 3) is None and rounds_spread(own, 0) is None and rounds_spread([], 1) is None


def test_medians_and_means_of_rounds_by_hand():
    table = pd.DataFrame(
        {"variant": ["b", "a", "a", "a", "a"], "round": [0, 1, 0, 0, 0], "latency_ms": [9, 7, 1, 2, 6]}
    )
    assert round_latencies(table, "a", "median") == [2, 7] and round_latencies(table, "a", "mean") == [3, 7]
    assert round_latencies(table, "b", "median") == [9] and round_latencies(table, "c", "mean") == []


def test_the_pooled_error_by_hand():
    assert pooled([Spread(1, 1, 3.0, 2), Spread(1, 1, 4.0, 2)]) == pytest.approx((math.sqrt(12.5), 4))
    assert pooled([]) == (0.0, 0)


STEADY = (Spread(1, 1, 0.01, 2), Spread(1, 1, 0.01, 2))


@pytest.mark.parametrize(
    ("ratio", "spreads", "p"),
    [
        (1.0, STEADY, 1.0),
        (1.15, STEADY, 1.0),
        (1 / 1.15, STEADY, 1.0),
        # The distance beyond the allowance is as long as the error: t = 1, of 4 degrees of freedom.
        (1.15 * math.exp(0.02 * math.sqrt(2)), STEADY, 0.3739),
    ],
)
def test_what_is_within_the_allowance_is_not_tested_and_beyond_it_student_decides(ratio, spreads, p):
    found = difference_p(ratio, uncertainty(spreads, (0.02, 4)), allowed_range("speedup", "", 1.0))
    assert found == pytest.approx(p, abs=1e-4)


def test_a_contender_that_differs_more_than_others_counts_with_its_own_error():
    wild = (Spread(1, 1, 0.3, 2), Spread(1, 1, 0.3, 2))
    allowed = allowed_range("speedup", "", 1.0)
    assert difference_p(2.0, uncertainty(STEADY, (0.02, 28)), allowed) < 1e-9
    assert difference_p(2.0, uncertainty(wild, (0.02, 28)), allowed) > 0.1


def test_two_equal_contenders_differ_as_seldom_as_promised_without_any_allowance():
    random = np.random.default_rng(3)
    hits = 0
    for _ in range(400):
        errors = np.sqrt(random.chisquare(2, (6, 2)) / 2) * 0.05
        spreads = [(Spread(1, 1, one, 2), Spread(1, 1, other, 2)) for one, other in errors.tolist()]
        pool = pooled(spread for pair in spreads for spread in pair)
        ratio = math.exp(random.normal(0, 0.05 * math.sqrt(2)))
        hits += difference_p(ratio, uncertainty(spreads[0], pool), (1.0, 1.0)) < 0.05
    assert hits <= 28  # 20 expected at most, with a standard deviation of 4.4


def test_a_slower_machine_allows_for_longer_times_and_no_other_ratios():
    low, high = ALLOWANCES["load"], 2 * ALLOWANCES["load"]
    assert allowed_range("load", "ms", 2.0) == pytest.approx((1 / low, high))
    assert allowed_range("speedup", "", 2.0) == (1 / ALLOWANCES["speedup"], ALLOWANCES["speedup"])


def test_a_contender_that_was_not_measured_says_nothing_of_the_others():
    wild, steady = Spread(0.001, 1000, 4.0, 2), Spread(0.9, 1.1, 0.1, 2)
    assert pooled([wild, steady, steady]) == pytest.approx((0.1, 4))
    assert pooled([wild]) == (4.0, 2)  # unless there is no other
    assert uncertainty((wild, steady), (0.1, 28)) == Uncertainty(math.hypot(4.0, 0.1), 2)


def test_the_noise_of_a_change_adds_interval_and_allowance_by_their_squares():
    allowance = math.log(ALLOWANCES["speedup"])
    found = change_of(2.0, 3.0, "speedup", "", 1.0, margin=0.1)
    assert found is not None and found.times == pytest.approx(1.5)
    assert math.log(found.noise) == pytest.approx(math.sqrt(0.1**2 + allowance**2))


def test_a_change_is_without_what_the_machine_has_moved():
    found = [change_of(2.0, 3.0, kind, unit, 2.0, 0.1) for kind, unit in (("fastest", "ms"), ("speedup", ""))]
    assert [item and item.times for item in found] == [0.75, 1.5]


def test_without_an_interval_the_noise_is_the_allowance_or_a_few_time_slices():
    found = [change_of(base, base, "load", "ms", 1.0, None) for base in (100.0, 1.0)]
    assert [item and item.noise for item in found] == pytest.approx([ALLOWANCES["load"], 1 + SLICES_MS["load"]])
    assert change_of(0.0, 1.0, "load", "ms", 1.0, None) is None


def test_the_drift_of_the_machine_counts_as_far_as_it_is_sure():
    allowance = math.log(UNCHANGED_MACHINE)
    assert certain(1.5, margin=allowance) == pytest.approx(1.5)  # measured as well as two runs of the same agree
    assert certain(1.5, margin=allowance + math.log(1.2)) == pytest.approx(1.25)
    assert certain(1 / 1.5, margin=allowance + math.log(1.2)) == pytest.approx(0.8)
    assert certain(83.0, margin=6.0) == 1.0 and certain(1.0, margin=0.0) == 1.0


def test_a_metric_measured_once_is_within_the_allowance_or_not():
    assert within(100.0, 100.0 * ALLOWANCES["load"], "load", allowed_range("load", "ms", 1.0))
    assert not within(100.0, 100.1 * ALLOWANCES["load"], "load", allowed_range("load", "ms", 1.0))
    assert within(0.0, 0.0, "load", (0.5, 2.0)) and not within(0.0, 21.0, "load", (0.5, 2.0))
    assert within(0.3, 10.2, "tail", (0.5, 2.0)) and not within(0.3, 10.4, "tail", (0.5, 2.0))  # time slices
    assert within(0.3, 20.2, "load", (0.5, 2.0)) and not within(0.3, 20.4, "load", (0.5, 2.0))
    assert within(0.001, 0.005, "profile", (0.9, 1.1))  # four of the microseconds that the profiler counts
