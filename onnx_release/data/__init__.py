"""Fetch a model's sources, and make samples of them: photographs, data.py, and the prepared arrays."""
