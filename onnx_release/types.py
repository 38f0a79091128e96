"""The names that a model's data.py imports; they stay at this path when the library moves."""

from onnx_release.core.types import Answer, Arrays, Detections, Embedding, Prediction, Sample, softmax_prediction

__all__ = ["Answer", "Arrays", "Detections", "Embedding", "Prediction", "Sample", "softmax_prediction"]
