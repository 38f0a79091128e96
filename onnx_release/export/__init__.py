"""From the PyTorch network to an ONNX graph: the doctor before, both exporters, opsets, onnxslim after."""
