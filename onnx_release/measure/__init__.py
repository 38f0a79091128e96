"""How close answers are to PyTorch's: errors, agreement, intervals, and the budget of what may be lost."""
