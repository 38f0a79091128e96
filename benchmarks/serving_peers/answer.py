"""Answer an upload with the same steps and the same code, for the bare session and for every other server."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from models.mobilenet_v2 import data


def open_model(path: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """Open a session, with one thread since these contenders make a call on every core at once; 0 is its default."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # only errors
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def answers(session: onnxruntime.InferenceSession, contents: list[bytes]) -> list[dict[str, list[Any]]]:
    """Answer for one photograph or several in one call of the model."""
    inputs = [data.preprocess(data.decode(content))["input"] for content in contents]
    batch = np.stack(inputs) if len(inputs) > 1 else inputs[0][np.newaxis]  # no copy of a single one
    (logits,) = session.run(["logits"], {"input": batch})
    predictions = [data.postprocess({"logits": row}) for row in logits]
    return [{"labels": found.labels.tolist(), "scores": found.scores.tolist()} for found in predictions]


def answer(session: onnxruntime.InferenceSession, content: bytes) -> dict[str, list[Any]]:
    """Return the five most probable classes of a photograph, given as the bytes of its file, in the form of JSON."""
    return answers(session, [content])[0]
