"""What the bare session and every server that is compared with do with an upload: the same steps, by the same code."""

from pathlib import Path
from typing import Any

import onnxruntime

from models.mobilenet_v2 import data


def open_model(path: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """A session with one thread, since these contenders make a call on every core at once; 0 is its default."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors alone
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def answer(session: onnxruntime.InferenceSession, content: bytes) -> dict[str, list[Any]]:
    """The five likeliest classes of a photograph in the bytes of its file, as JSON has them."""
    inputs = {name: array[None] for name, array in data.preprocess(data.decode(content)).items()}
    (logits,) = session.run(["logits"], inputs)
    prediction = data.postprocess({"logits": logits[0]})
    return {"labels": prediction.labels.tolist(), "scores": prediction.scores.tolist()}
