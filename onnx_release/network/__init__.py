"""Load the PyTorch network and its checkpoint, and run it in float64 and at the sizes of the shape cases."""
