"""Whether a variant answers as PyTorch does, why not, and which variant is released."""
