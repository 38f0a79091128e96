"""Run the pipeline with many sets of parameters, on one machine or on Ray, and compare the results."""
