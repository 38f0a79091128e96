"""The 1,797 handwritten digits that scikit-learn ships: 1,297 to train and calibrate with, 500 to evaluate on."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from onnx_release.core.types import Prediction, Sample, softmax_prediction

DIGITS = "digits.csv.gz"
EVALUATION_SAMPLES = 500
# The file is ordered by writer and class, so the split is drawn.
SEED = 7


def samples(raw: Path, split: str) -> Iterator[Sample]:
    """Each digit is a sample of its own; the file does not say who wrote which."""
    images, labels = load_split(raw, split)
    for image, label in zip(images, labels, strict=True):
        yield Sample(preprocess(image), label=int(label))


def preprocess(item: np.ndarray) -> dict[str, np.ndarray]:
    """Return an image of grey values 0..16 [8, 8]."""
    return {"image": (item[np.newaxis] / 16).astype(np.float32)}


def postprocess(outputs: dict[str, np.ndarray]) -> Prediction:
    """Return the ten digits, the likeliest first."""
    return softmax_prediction(outputs["logits"], top=10)


def load_split(raw: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images float64 [n, 8, 8] of 0..16 and labels int64 [n]. "calibration" is also what train.py learns from."""
    table = np.loadtxt(raw / DIGITS, delimiter=",")
    order = np.random.default_rng(SEED).permutation(len(table))
    rows = table[order[:EVALUATION_SAMPLES] if split == "evaluation" else order[EVALUATION_SAMPLES:]]
    return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int64)
