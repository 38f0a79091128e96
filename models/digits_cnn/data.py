"""The 1,797 handwritten digits of scikit-learn: 1,297 for training and calibration, 500 for evaluation."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from onnx_release.types import Prediction, Sample, softmax_prediction

DIGITS = "digits.csv.gz"
EVALUATION_SAMPLES = 500
# The file is sorted by writer and class, so the split is drawn.
SEED = 7


def samples(raw: Path, split: str) -> Iterator[Sample]:
    """Yield each digit as a group of its own, since the file does not say who wrote it."""
    images, labels = load_split(raw, split)
    for image, label in zip(images, labels, strict=True):
        yield Sample(preprocess(image), label=int(label))


def preprocess(item: np.ndarray) -> dict[str, np.ndarray]:
    """Scale an image of grey values 0..16 [8, 8] to 0..1."""
    return {"image": (item[np.newaxis] / 16).astype(np.float32)}


def postprocess(outputs: dict[str, np.ndarray]) -> Prediction:
    """Return the ten digits, the likeliest first."""
    return softmax_prediction(outputs["logits"], top=10)


def load_split(raw: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images float64 [n, 8, 8] of 0..16 and labels int64 [n]. train.py also uses "calibration"."""
    table = np.loadtxt(raw / DIGITS, delimiter=",")
    order = np.random.default_rng(SEED).permutation(len(table))
    rows = table[order[:EVALUATION_SAMPLES] if split == "evaluation" else order[EVALUATION_SAMPLES:]]
    return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int64)
