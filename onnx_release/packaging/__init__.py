"""Make the release folder: its files, its list of packages, its model card."""
