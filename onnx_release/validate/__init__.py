"""Validate variants: compare their answers with PyTorch's, and explain where the error comes from."""
