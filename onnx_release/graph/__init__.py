"""ONNX graphs: writing and checking them, their layers and values, and what a machine wants of them."""
