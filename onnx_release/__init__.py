"""The library that the stages, the tools and the server share: from a trained PyTorch model to an ONNX release."""
