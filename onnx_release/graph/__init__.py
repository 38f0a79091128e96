"""Write, check and describe ONNX graphs: their layers, their values, and the targets of quantization."""
