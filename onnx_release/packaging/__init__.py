"""The release folder: its files, its packages, its model card."""
