"""Measure how close answers are to PyTorch's: errors, agreement, intervals, and the budget for losses."""
