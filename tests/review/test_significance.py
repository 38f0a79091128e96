"""The paired test and the adjustment for many, by hand."""

import sys

import numpy as np
import pytest

from onnx_release.review import significance
from onnx_release.review.significance import holm, sign_flip_p


def test_all_differences_in_one_direction_are_two_of_all_assignments_of_signs():
    assert sign_flip_p([-1] * 10 + [0] * 90, [str(number) for number in range(100)]) == pytest.approx(2 / 2**10)


def test_as_many_in_either_direction_are_no_difference():
    assert sign_flip_p([1, -1, 1, -1], list("abcd")) == 1.0


def test_three_against_one_by_hand():
    # Of 16 assignments, 2 have all signs alike and 8 have one that differs: 10 are as far from 0 as the one found.
    assert sign_flip_p([1, 1, 1, -1], list("abcd")) == pytest.approx(10 / 16)


def test_a_group_counts_by_the_sum_of_its_samples():
    assert sign_flip_p([-1] * 10, ["a"] * 10) == 1.0
    assert sign_flip_p([1, -1, 1], ["a", "a", "b"]) == 1.0  # a cancels out
    assert sign_flip_p([2, 2, 2], list("abc")) == pytest.approx(2 / 8)


def test_scipy_is_imported_only_where_there_is_something_to_test(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.stats", None)  # its import would fail
    assert sign_flip_p([0, 0], list("ab")) is None
    assert sign_flip_p([0, 1], list("ab")) == 1.0
    with pytest.raises(ImportError, match=r"scipy\.stats"):
        sign_flip_p([1, 1], list("ab"))


def test_where_nothing_differs_there_is_nothing_to_test():
    assert sign_flip_p([0, 0, 0], list("abc")) is None


def test_drawn_signs_come_close_to_all_of_them(monkeypatch):
    differences = np.random.default_rng(1).normal(0.5, 1, 12).tolist()
    groups = [str(number) for number in range(12)]
    counted = sign_flip_p(differences, groups)
    monkeypatch.setattr(significance, "MOST_SIGN_FLIPS", 4000)  # of 4096 assignments
    assert sign_flip_p(differences, groups) == pytest.approx(counted, abs=0.02)


def test_equal_sides_are_called_different_as_seldom_as_promised():
    random = np.random.default_rng(2)
    groups = [str(number) for number in range(10)]
    p_values = [sign_flip_p(random.normal(0, 1, 10).tolist(), groups) or 1 for _ in range(200)]
    assert np.mean(np.array(p_values) < 0.05) <= 0.08


def test_holm_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == {"a": 0.03, "c": 0.06, "b": 0.06}
    assert holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}
    assert holm({}) == {}
