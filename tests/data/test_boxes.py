"""Boxes overlap, are suppressed and are matched as worked out by hand."""

import numpy as np
import pytest

from onnx_release.core.types import Detections
from onnx_release.data.boxes import iou, match, suppress


def detections(boxes, labels=None):
    count = len(boxes)
    labels = np.ones(count, np.int64) if labels is None else np.array(labels, np.int64)
    return Detections(
        np.array(boxes, np.float32).reshape(count, 4), np.linspace(1, 0.5, count, dtype=np.float32), labels
    )


def test_overlaps_are_those_worked_out_by_hand():
    a = np.array([[0, 0, 2, 2], [10, 10, 14, 12]], np.float32)
    b = np.array([[1, 1, 3, 3], [0, 0, 2, 1], [10, 10, 14, 12], [2, 0, 4, 2]], np.float32)
    found = iou(a, b)
    assert found.dtype == np.float64
    # 1 of 4 + 4 - 1; 2 of 4 + 2 - 2; none; the last only touches.
    assert found == pytest.approx(np.array([[1 / 7, 1 / 2, 0, 0], [0, 0, 1, 0]]))


def test_large_boxes_are_not_rounded_as_float32_would():
    a = np.array([[0, 0, 5001, 5003]], np.float32)
    b = np.array([[0, 0, 5001, 5002]], np.float32)
    assert iou(a, b)[0, 0] == 5002 / 5003


def test_a_box_without_area_overlaps_nothing():
    flat = np.array([[1, 1, 1, 3], [3, 3, 1, 1]], np.float32)  # the second has its corners swapped
    around = np.array([[0, 0, 4, 4]], np.float32)
    assert (iou(flat, flat) == 0).all()
    assert (iou(flat, around) == 0).all()


def test_no_boxes_give_an_empty_matrix():
    none = np.zeros((0, 4), np.float32)
    some = np.array([[0, 0, 1, 1]], np.float32)
    assert iou(none, some).shape == (0, 1)
    assert iou(some, none).shape == (1, 0)


def test_the_best_of_boxes_that_overlap_is_kept_by_falling_score():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [20, 20, 30, 30], [0, 0, 10, 4]], np.float32)
    scores = np.array([0.7, 0.9, 0.8, 0.6], np.float32)
    # The best is the second: it shares 0.8 with the first and 0.5 with the last, which is not above the threshold.
    kept = suppress(boxes, scores, 0.5)
    assert kept.dtype == np.int64
    assert kept.tolist() == [1, 2, 3]
    assert suppress(boxes, scores, 0.49).tolist() == [1, 2]
    assert suppress(boxes, scores, 1.0).tolist() == [1, 2, 0, 3]


def test_a_box_that_is_suppressed_suppresses_none():
    # Each shares 0.6 with the next and 1/3 with the one after it.
    boxes = np.array([[0, 0, 4, 1], [1, 0, 5, 1], [2, 0, 6, 1]], np.float32)
    assert suppress(boxes, np.array([0.9, 0.8, 0.7], np.float32), 0.5).tolist() == [0, 2]


def test_of_equal_scores_the_earlier_box_is_kept():
    boxes = np.array([[0, 0, 4, 4]] * 3, np.float32)
    assert suppress(boxes, np.full(3, 0.5, np.float32), 0.5).tolist() == [0]


def test_nothing_is_kept_of_nothing():
    kept = suppress(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), 0.5)
    assert kept.dtype == np.int64
    assert kept.shape == (0,)


def test_the_best_pair_is_matched_first_and_each_box_once():
    found = detections([[0, 0, 10, 8], [0, 0, 10, 10]])
    wanted = detections([[0, 0, 10, 10], [0, 0, 10, 6]])
    # The second is the first wanted one itself; the first overlaps that by 0.8 too, but is left with 6 of 8.
    assert match(found, wanted, 0.5) == [(1, 0), (0, 1)]
    assert match(found, wanted, 0.76) == [(1, 0)]


def test_an_overlap_of_just_the_least_counts():
    found, wanted = detections([[0, 0, 10, 5]]), detections([[0, 0, 10, 10]])
    assert match(found, wanted, 0.5) == [(0, 0)]
    assert match(found, wanted, 0.51) == []


def test_boxes_of_other_labels_are_not_matched():
    same = [[0, 0, 4, 4], [0, 0, 4, 4]]
    assert match(detections(same, [1, 2]), detections(same, [2, 3]), 0.5) == [(1, 0)]


def test_ties_go_to_the_surer_of_both():
    same = [[0, 0, 4, 4]] * 3
    assert match(detections(same), detections(same[:2]), 0.5) == [(0, 0), (1, 1)]


def test_nothing_matches_nothing_nor_a_box_apart():
    none, some = detections([]), detections([[0, 0, 1, 1]])
    assert match(none, none, 0.5) == []
    assert match(none, some, 0.5) == []
    assert match(some, detections([[5, 5, 6, 6]]), 0) == []  # not even where nothing is asked for
