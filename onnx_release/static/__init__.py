"""Static INT8: quantizing, fitting weights and ranges, and the search for layers that stay in float."""
