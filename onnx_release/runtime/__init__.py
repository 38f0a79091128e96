"""Run an ONNX model with ONNX Runtime, and open a release: what a server needs of the pipeline."""
