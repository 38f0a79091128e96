"""Declare the networks of `python -m benchmarks.zoo`: how each is built, and which inputs it takes at which sizes."""
