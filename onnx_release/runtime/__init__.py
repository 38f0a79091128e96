"""Running an ONNX model with ONNX Runtime, and opening a release. What a server needs, without the pipeline."""
