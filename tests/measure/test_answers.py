"""What counts as the same answer, by hand for each task."""

import numpy as np
import pytest

from onnx_release.core.errors import DataError
from onnx_release.core.types import Detections, Embedding, Prediction
from onnx_release.data.samples import NO_LABEL
from onnx_release.measure.answers import accuracy_drop, compare_answers, details


@pytest.fixture
def spec_of(make_spec):
    def make(task):
        return make_spec({"x": ["batch", 2]}, {"y": ["batch", 3]}, task=task, batch=(1, 4, 2))

    return make


def classes(label):
    return Prediction(np.array([label, 9]), np.array([0.9, 0.1], np.float32))


def boxes(*rows, label=1):
    """Boxes as x1, y1, x2, y2, score."""
    table = np.array(rows, np.float32).reshape(-1, 5)
    return Detections(table[:, :4], table[:, 4], np.full(len(table), label))


def test_classes_agree_where_the_likeliest_is_the_same(spec_of):
    wanted, found = [classes(1), classes(2), classes(3)], [classes(1), classes(3), classes(3)]
    rows = compare_answers(spec_of("classification"), wanted, found, [1, 3, NO_LABEL])
    assert [row["agrees"] for row in rows] == [1, 0, 1]
    assert [(row["torch_right"], row["variant_right"]) for row in rows] == [(1, 1), (0, 1), (None, None)]
    assert rows[1]["torch_class"] == 2 and rows[1]["variant_class"] == 3
    assert details("classification", rows) == {}


def test_the_same_infinite_score_is_no_difference_and_an_infinite_embedding_is_refused(spec_of):
    wanted = boxes((0, 0, 10, 10, -np.inf))
    (row,) = compare_answers(spec_of("detection"), [wanted], [wanted], [NO_LABEL])
    assert (row["matched"], row["score_error"]) == (1, 0.0)
    vectors = [Embedding(np.array(vector, np.float32)) for vector in ([1, 0], [0, 1], [1, -np.inf])]
    with pytest.raises(DataError, match="an embedding of PyTorch has NaN or infinity, and so no direction"):
        compare_answers(spec_of("embedding"), vectors, vectors, [NO_LABEL] * 3)


def test_a_hundredth_lost_is_a_hundredth():
    labelled = [{"torch_right": int(n >= 4), "variant_right": int(n >= 5)} for n in range(100)]  # 0.96 and 0.95
    unknown = [{"torch_right": None, "variant_right": None}]
    assert accuracy_drop([*labelled, *unknown]) == 0.01
    assert accuracy_drop(unknown) is None


def test_boxes_agree_as_far_as_they_are_matched(spec_of):
    wanted = boxes((0, 0, 10, 10, 0.9), (20, 20, 30, 30, 0.8))
    # The first is shifted by two of ten: 80 of 120 are shared. The second overlaps too little: 25 of 175.
    found = boxes((2, 0, 12, 10, 0.85), (25, 25, 35, 35, 0.8), (50, 50, 60, 60, 0.7))
    (row,) = compare_answers(spec_of("detection"), [wanted], [found], [NO_LABEL])
    assert (row["torch_boxes"], row["variant_boxes"], row["matched"]) == (2, 3, 1)
    assert row["agrees"] == pytest.approx(2 / 5)
    assert row["iou"] == pytest.approx(80 / 120)
    assert row["score_error"] == pytest.approx(0.05, abs=1e-6)
    assert details("detection", [row]) == {
        "box_iou": row["iou"],
        "boxes": 2,
        "matched_boxes": 1,
        "score_error": row["score_error"],
    }


def test_a_box_of_another_label_is_another_object(spec_of):
    one = boxes((0, 0, 10, 10, 0.9))
    (row,) = compare_answers(spec_of("detection"), [one], [boxes((0, 0, 10, 10, 0.9), label=2)], [NO_LABEL])
    assert (row["matched"], row["agrees"], row["iou"], row["score_error"]) == (0, 0.0, None, None)


def test_nothing_found_on_both_sides_is_agreement(spec_of):
    rows = compare_answers(spec_of("detection"), [boxes()], [boxes()], [0])
    assert (rows[0]["agrees"], rows[0]["torch_right"], rows[0]["variant_right"]) == (1.0, 1, 1)
    assert details("detection", rows) == {"boxes": 0, "matched_boxes": 0, "box_iou": None, "score_error": None}


def test_a_detector_is_right_where_it_finds_something_exactly_where_there_is_something(spec_of):
    one = boxes((0, 0, 10, 10, 0.9))
    rows = compare_answers(spec_of("detection"), [one, one, boxes()], [boxes(), one, one], [1, 0, 0])
    assert [(row["torch_right"], row["variant_right"]) for row in rows] == [(1, 0), (0, 0), (1, 0)]


def points(*angles):
    return [Embedding(np.array([np.cos(angle), np.sin(angle)], np.float32) * 7) for angle in np.radians(angles)]


def test_embeddings_agree_where_the_nearest_neighbour_is_the_same(spec_of):
    wanted, found = points(0, 10, 50, 65), points(0, 30, 50, 65)
    rows = compare_answers(spec_of("embedding"), wanted, found, [NO_LABEL] * 4)
    # The second was nearest to the first, 10 degrees away, and is nearest to the third now, 20 against 30.
    assert [row["agrees"] for row in rows] == [1, 0, 1, 1]
    assert rows[1]["cosine"] == pytest.approx(np.cos(np.radians(20)), abs=1e-6)
    assert rows[0]["cosine"] == pytest.approx(1, abs=1e-6)
    # From the second, by falling nearness: first, third, fourth before; third, first, fourth after. Spearman's by
    # hand: 1 - 6 (1 + 1 + 0) / (3 * 8) = 0.5.
    assert rows[1]["rank_correlation"] == pytest.approx(0.5)
    assert rows[0]["rank_correlation"] == pytest.approx(1.0)
    assert set(details("embedding", rows)) == {"embedding_cosine", "rank_correlation"}


def test_of_two_neighbours_that_are_alike_either_will_do(spec_of):
    wanted, found = points(0, 20, 20, 90), points(0, 20.001, 20, 90)
    rows = compare_answers(spec_of("embedding"), wanted, found, [NO_LABEL] * 4)
    assert [row["agrees"] for row in rows] == [1, 1, 1, 1]


def test_zeros_and_nan_are_no_neighbours_and_no_crash(spec_of):
    wanted = points(0, 20, 50)
    zeros = [Embedding(np.zeros(2, np.float32))] * 3
    rows = compare_answers(spec_of("embedding"), wanted, zeros, [NO_LABEL] * 3)
    assert [row["cosine"] for row in rows] == [0, 0, 0]
    assert [row["rank_correlation"] for row in rows] == [0, 0, 0]


def test_two_embeddings_have_no_order(spec_of):
    with pytest.raises(DataError, match="2 evaluation samples are too few"):
        compare_answers(spec_of("embedding"), points(0, 1), points(0, 1), [NO_LABEL] * 2)


def test_an_answer_of_another_task_is_named(spec_of):
    with pytest.raises(DataError, match=r"returns Prediction: the task detection needs Detections"):
        compare_answers(spec_of("detection"), [classes(1)], [classes(1)], [NO_LABEL])
