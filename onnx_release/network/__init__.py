"""The PyTorch network: its checkpoint, its answers in float64, and the sizes at which it is asked."""
