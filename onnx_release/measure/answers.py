"""Compare a variant's answers with PyTorch's and with the labels. Two answers agree if, for the task

classification  the likeliest class is the same
detection       boxes of the same label that overlap are matched one to one; the agreement is the share of the boxes of
                both sides that are matched (twice the matches by the boxes; 1 without any box)
embedding       the nearest neighbour among the other samples is the same
tensor          the agreement is the share of equal elements, over the outputs of whole numbers, if there are any
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from onnx_release.core.errors import DataError
from onnx_release.core.spec import FLOATS, Spec, Task
from onnx_release.core.types import Answer, Detections, Embedding, Prediction
from onnx_release.data.boxes import iou, match
from onnx_release.data.samples import NO_LABEL
from onnx_release.measure.numerics import equal_share, largest_error

# Boxes of less overlap are not the same object: the threshold of PASCAL VOC (Everingham et al., 2010).
LEAST_IOU = 0.5
# Cosines closer than this are alike: float32 keeps seven digits.
SAME_COSINE = 1e-6


def check_answers(spec: Spec, answers: Sequence[Answer]) -> None:
    """Raise DataError if postprocess() returns another kind of answer than the task has."""
    kind = {"classification": Prediction, "detection": Detections, "embedding": Embedding}[spec.task]
    for answer in answers:
        if not isinstance(answer, kind):
            raise DataError(
                f"postprocess() in data.py returns {type(answer).__name__}: the task {spec.task} needs {kind.__name__}"
            )


def compare_answers(
    spec: Spec, wanted: Sequence[Answer], found: Sequence[Answer], labels: Sequence[int]
) -> list[dict[str, Any]]:
    """Compare PyTorch's answers, `wanted`, with the variant's, `found`, and return a row for each sample.

    A row has `agrees` in 0..1, `torch_right` and `variant_right` (None without a label), and details of the task.
    Raises DataError for answers that are not the task's, and for an embedding of PyTorch that is not finite.
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
    if not all(np.isfinite(cast(Embedding, answer).vector).all() for answer in wanted):
        raise DataError(
            "an embedding of PyTorch has NaN or infinity, and so no direction: let postprocess() in data.py return a "
            "finite vector"
        )
    return compare_neighbours(vectors(wanted), vectors(found))


def compare_classes(wanted: Prediction, found: Prediction, label: int) -> dict[str, Any]:
    """Compare the likeliest classes of both answers."""
    torch_class, variant_class = int(wanted.labels[0]), int(found.labels[0])
    return {
        "torch_class": torch_class,
        "variant_class": variant_class,
        "agrees": int(torch_class == variant_class),
        **both_right(torch_class == label, variant_class == label, label),
    }


def compare_boxes(wanted: Detections, found: Detections, label: int) -> dict[str, Any]:
    """Match the boxes of both answers: `iou` is their mean overlap, `score_error` the largest difference of scores."""
    pairs = match(found, wanted, LEAST_IOU)
    overlaps = iou(found.boxes, wanted.boxes)
    scores = [largest_error(np.asarray(wanted.scores[other]), np.asarray(found.scores[one])) for one, other in pairs]
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


def equal_numbers(spec: Spec, wanted: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the row of a sample of the task tensor: `agrees` is the share of equal elements, over its whole numbers.

    It is empty for another task, and for one without an output of whole numbers or booleans.
    """
    names = [tensor.name for tensor in spec.outputs if tensor.dtype not in FLOATS]
    if spec.task != "tensor" or not names:
        return {}
    agrees = float(np.mean([equal_share(wanted[name], found[name]) for name in names]))
    return {"agrees": agrees, "torch_right": None, "variant_right": None}


def both_right(torch: bool, variant: bool, label: int) -> dict[str, int | None]:
    """Return who is right, PyTorch and the variant; None without a label."""
    known = label != NO_LABEL
    return {"torch_right": int(torch) if known else None, "variant_right": int(variant) if known else None}


def accuracy_drop(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the accuracy lost compared with PyTorch on the samples with a label; None if there are none."""
    # The mean of the differences, since 0.96 - 0.95 is more than 0.01 in floating point, and 0.01 may be the bound.
    return mean(row["torch_right"] - row["variant_right"] for row in rows if row["variant_right"] is not None)


def vectors(answers: Sequence[Answer]) -> np.ndarray:
    """Stack the embeddings, float64 [n, d], each scaled to length 1; one of zeros stays as it is."""
    stacked = np.stack([cast(Embedding, answer).vector for answer in answers]).astype(np.float64)
    lengths = np.linalg.norm(stacked, axis=1, keepdims=True)
    return stacked / np.where(lengths == 0, 1, lengths)


def compare_neighbours(wanted: np.ndarray, found: np.ndarray) -> list[dict[str, Any]]:
    """Compare the embeddings of each sample, and the order of the other samples by their distance from it.

    `cosine` is that of both embeddings, `rank_correlation` Spearman's of the two orders. A neighbour as near as the
    nearest, within SAME_COSINE, counts as the nearest, since texts may be there twice. Raises DataError for fewer than
    three samples, which have no order of neighbours.
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
    """Return Spearman's rank correlation; 0 if one side has no order, since all values are equal or NaN."""
    from scipy.stats import spearmanr  # its import takes a second, and only this task needs it

    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.nan_to_num(spearmanr(first, second).statistic))


def details(task: Task, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the metrics of the details in `rows`: means, and the largest difference; None without any box."""
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
    """Return the mean of the values that are not None; None without any."""
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None
