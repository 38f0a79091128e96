"""Fewer bits: FP16, dynamic INT8, and the ranges that static INT8 starts from."""
