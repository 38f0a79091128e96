"""Compare boxes given as x1, y1, x2, y2: their overlap, non-maximum suppression, and matching of two answers."""

import numpy as np

from onnx_release.core.types import Detections


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the intersection over union of each box of `a` [n, 4] with each of `b` [m, 4], as float64 [n, m] in 0..1.

    A size is the difference of two coordinates, without adding 1. A box without area, or with swapped corners, overlaps
    nothing, not even itself.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    starts = np.maximum(a[:, np.newaxis, :2], b[np.newaxis, :, :2])
    ends = np.minimum(a[:, np.newaxis, 2:], b[np.newaxis, :, 2:])
    shared = np.clip(ends - starts, 0, None).prod(2)
    union = areas(a)[:, np.newaxis] + areas(b)[np.newaxis] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def areas(boxes: np.ndarray) -> np.ndarray:
    """Return the areas, float64 [n], 0 where the corners of a box are swapped."""
    return np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1)


def suppress(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Do non-maximum suppression: return the indices, int64, of the boxes to keep, by falling score.

    A box of `boxes` [n, 4] is dropped if its IoU with a kept box of a higher score is above `threshold`. Of two equal
    `scores` [n] the earlier counts as higher. With several classes, call it once for each class.
    """
    rest = np.argsort(-scores, kind="stable")
    kept = []
    while len(rest):
        best, rest = rest[0], rest[1:]
        kept.append(best)
        rest = rest[iou(boxes[best : best + 1], boxes[rest])[0] <= threshold]
    return np.array(kept, np.int64)


def match(found: Detections, wanted: Detections, least: float) -> list[tuple[int, int]]:
    """Match boxes of one label with an IoU of `least` or more; return pairs of indices in `found` and `wanted`.

    Each box is in at most one pair: the pair with the highest IoU is taken first, then the best of the rest. Of equal
    IoUs the lower index in `found` comes first, then the lower in `wanted`, which is the surer detection.
    """
    overlaps = iou(found.boxes, wanted.boxes)
    same = found.labels[:, np.newaxis] == wanted.labels[np.newaxis]
    first, second = np.nonzero(same & (overlaps >= least) & (overlaps > 0))
    pairs: list[tuple[int, int]] = []
    taken: tuple[set[int], set[int]] = set(), set()
    for index in np.argsort(-overlaps[first, second], kind="stable"):
        pair = int(first[index]), int(second[index])
        if pair[0] not in taken[0] and pair[1] not in taken[1]:
            pairs.append(pair)
            taken[0].add(pair[0])
            taken[1].add(pair[1])
    return pairs
