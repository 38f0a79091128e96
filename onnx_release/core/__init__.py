"""What every part of the pipeline and the server stands on: files, parameters, the model's spec, errors, hardware."""
