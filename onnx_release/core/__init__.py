"""Files, parameters, the model's spec, errors and hardware: what every part of the pipeline and the server uses."""
