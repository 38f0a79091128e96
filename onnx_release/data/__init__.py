"""From a model's sources to samples: fetching, photographs, data.py, and the prepared arrays."""
