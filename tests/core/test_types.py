"""Softmax predictions by hand."""

import math

import numpy as np
import pytest

from onnx_release.core.types import softmax_prediction


def test_the_likeliest_classes_come_first_with_their_scores():
    prediction = softmax_prediction(np.array([0.0, math.log(6), math.log(3)], np.float32), top=2)
    assert prediction.labels.tolist() == [1, 2]
    assert prediction.labels.dtype == np.int64
    assert prediction.scores == pytest.approx([0.6, 0.3], abs=1e-6)
    assert prediction.scores.dtype == np.float32


def test_ties_go_to_the_lower_class():
    assert softmax_prediction(np.zeros(5, np.float32), top=3).labels.tolist() == [0, 1, 2]
    # Short arrays are sorted stably by any method, long ones are not.
    logits = np.tile(np.array([1, 0, 2], np.float32), 400)
    assert softmax_prediction(logits, top=3).labels.tolist() == [2, 5, 8]


def test_large_logits_do_not_overflow():
    assert softmax_prediction(np.array([1e4, 0], np.float32), top=1).scores.tolist() == [1.0]


def test_there_are_no_more_answers_than_classes():
    prediction = softmax_prediction(np.array([1.0, 3.0, 2.0], np.float32), top=10)
    assert prediction.labels.tolist() == [1, 2, 0]
    assert prediction.scores.sum() == pytest.approx(1.0)


def test_half_precision_is_scored_in_double():
    scores = softmax_prediction(np.array([11.0, 11.0, -11.0], np.float16), top=3).scores
    # By hand: exp(-22) / 2; in float16 the sum of the exponentials would be infinite.
    assert scores == pytest.approx([0.5, 0.5, math.exp(-22) / 2], rel=1e-6)
