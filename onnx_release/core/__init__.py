"""Read and write files, parameters and specs, describe errors and hardware: what every part of the pipeline uses."""
