"""Run an ONNX model with ONNX Runtime on the CPU."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime

from onnx_release.errors import GraphError


def open_session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """A session on the CPU; `threads` 0 means every core. Raises GraphError if ONNX Runtime does not load the model."""
    try:
        return onnxruntime.InferenceSession(str(path), session_options(threads), providers=["CPUExecutionProvider"])
    except Exception as cause:  # ONNX Runtime's exceptions share no base class
        raise GraphError(f"ONNX Runtime {onnxruntime.__version__} does not load {path}: {cause}") from cause


def session_options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # silent: what goes wrong is raised
    return options


def run_session(session: onnxruntime.InferenceSession, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All outputs by name. Raises GraphError with ONNX Runtime's reason if the run fails."""
    names = [output.name for output in session.get_outputs()]
    try:
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))
    except Exception as cause:  # as above
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
        raise GraphError(f"the model fails on {shapes}: {cause}") from cause
