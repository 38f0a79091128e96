"""The chosen variant at its best: runtime settings, an optimised file, and a profile."""
