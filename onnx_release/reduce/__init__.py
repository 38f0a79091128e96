"""Reduce the precision: FP16, dynamic INT8, and the calibrated ranges that static INT8 starts from."""
