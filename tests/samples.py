"""Prepared samples for graphs with one input: arrays without their batch axis, written as the pipeline does."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onnx_release.core.array_files import writing_arrays
from onnx_release.data.samples import SampleFile, sample_key


def save_samples(path: Path, arrays: Sequence[np.ndarray], name: str = "x") -> SampleFile:
    """Unchecked, so that a test can write bad ones."""
    with writing_arrays(path) as writer:
        for index, array in enumerate(arrays):
            writer.add_all(sample_key(index), {name: array})
        writer.add("labels", np.full(len(arrays), -1, np.int64))
        writer.add("groups", np.array([f"group {index}" for index in range(len(arrays))], np.str_))
    return SampleFile(path)
