"""Quantize to static INT8: fit weights and ranges, and search for the layers that stay in float."""
