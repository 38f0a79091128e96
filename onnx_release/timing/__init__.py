"""Run the benchmark: time contenders in processes of their own, in paired rounds."""
