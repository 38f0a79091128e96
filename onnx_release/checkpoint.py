"""The names that a model's network.py imports; they stay at this path when the library moves."""

from onnx_release.network.checkpoint import load_checkpoint, read_checkpoint

__all__ = ["load_checkpoint", "read_checkpoint"]
