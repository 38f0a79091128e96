"""What it means, for each task, that a variant gives PyTorch's answer, and how right both are.

classification  the likeliest class is the same
detection       boxes are matched one to one where they overlap and have the same label; what agrees is the share of
                all boxes, of both sides, that are matched (twice the matches by the boxes; 1 where there is no box)
embedding       the nearest neighbour among the other samples is the same
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from onnx_release.core.errors import DataError
from onnx_release.core.spec import Spec, Task
from onnx_release.core.types import Answer, Detections, Embedding, Prediction
from onnx_release.data.boxes import iou, match
from onnx_release.data.samples import NO_LABEL

# Boxes of less overlap are not the same object: the threshold of PASCAL VOC (Everingham et al., 2010).
LEAST_IOU = 0.5
# Cosines closer than this are alike: float32 keeps seven digits.
SAME_COSINE = 1e-6


def check_answers(spec: Spec, answers: Sequence[Answer]) -> None:
    """Raise DataError where postprocess() gives another kind of answer than the task has."""
    kind = {"classification": Prediction, "detection": Detections, "embedding": Embedding}[spec.task]
    for answer in answers:
        if not isinstance(answer, kind):
            raise DataError(
                f"postprocess() in data.py gives a {type(answer).__name__}: the task {spec.task} has a {kind.__name__}"
            )


def compare_answers(
    spec: Spec, wanted: Sequence[Answer], found: Sequence[Answer], labels: Sequence[int]
) -> list[dict[str, Any]]:
    """Return a row for each sample: `agrees` in 0..1, `torch_right` and `variant_right` (None without a label), and details.

    `wanted` are PyTorch's answers and `found` the variant's. Raises DataError for answers that are not the task's.
    """
    check_answers(spec, [*wanted, *found])
    if spec.task == "classification":
        return [
            compare_classes(cast(Prediction, one), cast(Prediction, other), int(label))
            for one, other, label in zip(wanted, found, labels, strict=True)
        ]
    if spec.task == "detection":
        return [
            compare_boxes(cast(Detections, one), cast(Detections, other), int(label))
            for one, other, label in zip(wanted, found, labels, strict=True)
        ]
    return compare_neighbours(vectors(wanted), vectors(found))


def compare_classes(wanted: Prediction, found: Prediction, label: int) -> dict[str, Any]:
    torch_class, variant_class = int(wanted.labels[0]), int(found.labels[0])
    return {
        "torch_class": torch_class,
        "variant_class": variant_class,
        "agrees": int(torch_class == variant_class),
        **both_right(torch_class == label, variant_class == label, label),
    }


def compare_boxes(wanted: Detections, found: Detections, label: int) -> dict[str, Any]:
    """`iou` is the mean overlap of matched boxes, `score_error` their largest difference of scores."""
    pairs = match(found, wanted, LEAST_IOU)
    overlaps = iou(found.boxes, wanted.boxes)
    scores = [abs(float(found.scores[one]) - float(wanted.scores[other])) for one, other in pairs]
    boxes = len(wanted.boxes) + len(found.boxes)
    return {
        "torch_boxes": len(wanted.boxes),
        "variant_boxes": len(found.boxes),
        "matched": len(pairs),
        "iou": float(np.mean([overlaps[pair] for pair in pairs])) if pairs else None,
        "score_error": max(scores, default=None),
        "agrees": 2 * len(pairs) / boxes if boxes else 1.0,
        **both_right((len(wanted.boxes) > 0) == (label == 1), (len(found.boxes) > 0) == (label == 1), label),
    }


def both_right(torch: bool, variant: bool, label: int) -> dict[str, int | None]:
    known = label != NO_LABEL
    return {"torch_right": int(torch) if known else None, "variant_right": int(variant) if known else None}


def accuracy_drop(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the accuracy lost against PyTorch on the samples that have a label; None where none has."""
    # The mean of the differences: 0.96 - 0.95 is more than 0.01 in floating point, and 0.01 may be what is allowed.
    return mean(row["torch_right"] - row["variant_right"] for row in rows if row["variant_right"] is not None)


def vectors(answers: Sequence[Answer]) -> np.ndarray:
    """Return float64 [n, d], each of length 1; one of zeros stays so."""
    stacked = np.stack([cast(Embedding, answer).vector for answer in answers]).astype(np.float64)
    lengths = np.linalg.norm(stacked, axis=1, keepdims=True)
    return stacked / np.where(lengths == 0, 1, lengths)


def compare_neighbours(wanted: np.ndarray, found: np.ndarray) -> list[dict[str, Any]]:
    """`cosine` of both embeddings of a sample; `rank_correlation` of the others by their nearness (Spearman's).

    A neighbour that is as near as the nearest, within SAME_COSINE, counts as it: texts may be there twice. Raises
    DataError for fewer than three samples, which have no order of neighbours.
    """
    count = len(wanted)
    if count < 3:
        raise DataError(f"{count} evaluation samples are too few for an embedding: neighbours need three or more")
    rows = []
    for index in range(count):
        others = np.arange(count) != index
        near_wanted, near_found = (wanted @ wanted[index])[others], (found @ found[index])[others]
        same = near_wanted[near_found.argmax()] >= near_wanted.max() - SAME_COSINE
        rows.append(
            {
                "cosine": float(wanted[index] @ found[index]),
                "rank_correlation": rank_correlation(near_wanted, near_found),
                "agrees": int(same),
                "torch_right": None,
                "variant_right": None,
            }
        )
    return rows


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's; 0 where one side has no order, since all are alike or NaN."""
    from scipy.stats import spearmanr  # takes a second, which only this task needs

    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.nan_to_num(spearmanr(first, second).statistic))


def details(task: Task, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the metrics say of the details in `rows`: means, and of differences the largest; None without any box."""
    if task == "detection":
        return {
            "boxes": sum(row["torch_boxes"] for row in rows),
            "matched_boxes": sum(row["matched"] for row in rows),
            "box_iou": mean(row["iou"] for row in rows),
            "score_error": max((row["score_error"] for row in rows if row["matched"]), default=None),
        }
    if task == "embedding":
        return {
            "embedding_cosine": mean(row["cosine"] for row in rows),
            "rank_correlation": mean(row["rank_correlation"] for row in rows),
        }
    return {}


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of those that are there; None without any."""
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None
