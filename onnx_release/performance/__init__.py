"""Optimise and profile the chosen variant on this machine with ONNX Runtime."""
