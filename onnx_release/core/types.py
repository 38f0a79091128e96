"""Declare the types that a model's data.py uses; they need only numpy."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# Arrays by the names of inputs or outputs.
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Sample:
    """One item, without its batch axis.

    `inputs` maps each input's name to an array of the declared dtype and shape. `label` is the right class if it is
    known; for a detector, 1 if there is something to find and 0 if there is nothing. `group` is the photograph, patient
    or document that the item came from; None means that the item is a group of its own. Statistics resample groups, and
    no group may be in both splits.
    """

    inputs: Mapping[str, np.ndarray]
    label: int | None = None
    group: str | None = None


@dataclass(frozen=True)
class Prediction:
    """Classes of one item, the likeliest first: `labels` int64 [k], `scores` float32 [k] in 0..1."""

    labels: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Detections:
    """Objects in one item, the surest first.

    `boxes` float32 [n, 4] as x1, y1, x2, y2 in pixels of the network's input, `scores` float32 [n] in 0..1, `labels`
    int64 [n].
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Embedding:
    """One item as a vector that is near those of similar items: `vector` float32 [d]. Its length means nothing."""

    vector: np.ndarray


# The result of postprocess(), by the task of the spec.
Answer = Prediction | Detections | Embedding


def softmax_prediction(logits: np.ndarray, top: int) -> Prediction:
    """Return the `top` likeliest classes of `logits` [classes] with softmax scores. Ties go to the lower class.

    If the largest logit is infinite, or one is NaN, scores are NaN.
    """
    logits = logits.astype(np.float64)
    order = np.argsort(-logits, kind="stable")[:top]
    with np.errstate(invalid="ignore"):  # who calls it says what is wrong with the model, once
        exponentials = np.exp(logits - logits.max())
    return Prediction(order.astype(np.int64), (exponentials[order] / exponentials.sum()).astype(np.float32))
