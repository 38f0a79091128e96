"""The benchmark: contenders in processes of their own, timed in paired rounds."""
