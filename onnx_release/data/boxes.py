"""Boxes as x1, y1, x2, y2: how much two overlap, which of many to keep, which of two answers belong together."""

import numpy as np

from onnx_release.core.types import Detections


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of each box of `a` [n, 4] with each of `b` [m, 4], as float64 [n, m] in 0..1.

    Sizes are differences of coordinates, not one more. A box without area, its corners swapped among them, overlaps
    nothing, not even itself.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    starts = np.maximum(a[:, np.newaxis, :2], b[np.newaxis, :, :2])
    ends = np.minimum(a[:, np.newaxis, 2:], b[np.newaxis, :, 2:])
    shared = np.clip(ends - starts, 0, None).prod(2)
    union = areas(a)[:, np.newaxis] + areas(b)[np.newaxis] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def areas(boxes: np.ndarray) -> np.ndarray:
    """float64 [n], 0 where the corners of a box are swapped."""
    return np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1)


def suppress(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Non-maximum suppression: the indices, int64, of the boxes that are kept, by falling score.

    A box of `boxes` [n, 4] goes if its IoU with one that is kept and scores [n] higher is above `threshold`. Of equal
    scores the earlier box counts as higher. Boxes of several classes are suppressed class by class, by the caller.
    """
    rest = np.argsort(-scores, kind="stable")
    kept = []
    while len(rest):
        best, rest = rest[0], rest[1:]
        kept.append(best)
        rest = rest[iou(boxes[best : best + 1], boxes[rest])[0] <= threshold]
    return np.array(kept, np.int64)


def match(found: Detections, wanted: Detections, least: float) -> list[tuple[int, int]]:
    """Pairs of an index in `found` and one in `wanted`: the same label, an IoU of `least` or more, best IoU first.

    Each is in one pair at most: the pair of the highest IoU is taken, then the best of those that are left. Equal
    IoUs go by the lower index in `found`, then in `wanted`, that is to the surer detection.
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
