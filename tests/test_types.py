"""Softmax predictions by hand."""

import math

import numpy as np
import pytest

from onnx_release.types import softmax_prediction


def test_the_likeliest_classes_come_first_with_their_scores():
    prediction = softmax_prediction(np.array([0.0, math.log(6), math.log(3)], np.float32), top=2)
    assert prediction.labels.tolist() == [1, 2]
    assert prediction.labels.dtype == np.int64
    assert prediction.scores == pytest.approx([0.6, 0.3], abs=1e-6)
    assert prediction.scores.dtype == np.float32


def test_ties_go_to_the_lower_class():
    assert softmax_prediction(np.zeros(5, np.float32), top=3).labels.tolist() == [0, 1, 2]


def test_large_logits_do_not_overflow():
    assert softmax_prediction(np.array([1e4, 0], np.float32), top=1).scores.tolist() == [1.0]
