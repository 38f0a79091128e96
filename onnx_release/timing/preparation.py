"""Time the steps before the network: decoding what a client sends, and preprocessing it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from onnx_release.data.model_data import ModelData
from onnx_release.timing.metrics import PreparationMetrics

# How often every item is decoded and preprocessed.
REPEATS = 3


def time_preparation(data: ModelData, raw: Path) -> PreparationMetrics:
    """Return the median milliseconds of decode() and of preprocess() for an item of encoded().

    Both are None for a model whose data.py does not define encoded() and decode(): it has no raw items.
    """
    none = PreparationMetrics(decode_ms=None, preprocess_ms=None, raw_items=0)
    if not hasattr(data, "encoded") or not hasattr(data, "decode"):
        return none
    contents = list(data.encoded(raw))
    if not contents:
        return none
    items = [data.decode(content) for content in contents]
    return PreparationMetrics(
        decode_ms=median_ms(data.decode, contents),
        preprocess_ms=median_ms(data.preprocess, items),
        raw_items=len(contents),
    )


def median_ms(work: Callable[[Any], Any], items: list[Any]) -> float:
    """Return the median time over all items and REPEATS."""
    seconds = []
    for _ in range(REPEATS):
        for item in items:
            start = time.perf_counter()
            work(item)
            seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)) * 1e3
