"""What the bare session and every server that is compared with do with an upload: the same steps, by the same code."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from models.mobilenet_v2 import data


def open_model(path: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """A session with one thread, since these contenders make a call on every core at once; 0 is its default."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors alone
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def answers(session: onnxruntime.InferenceSession, contents: list[bytes]) -> list[dict[str, list[Any]]]:
    """Of one photograph or several in one call of the model."""
    inputs = [data.preprocess(data.decode(content))["input"] for content in contents]
    batch = np.stack(inputs) if len(inputs) > 1 else inputs[0][np.newaxis]  # no copy of a single one
    (logits,) = session.run(["logits"], {"input": batch})
    predictions = [data.postprocess({"logits": row}) for row in logits]
    return [{"labels": found.labels.tolist(), "scores": found.scores.tolist()} for found in predictions]


def answer(session: onnxruntime.InferenceSession, content: bytes) -> dict[str, list[Any]]:
    """The five likeliest classes of a photograph in the bytes of its file, as JSON has them."""
    return answers(session, [content])[0]
