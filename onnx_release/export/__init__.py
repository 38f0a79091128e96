"""Export the PyTorch network to an ONNX graph: the doctor before, two exporters, opsets, onnxslim after."""
