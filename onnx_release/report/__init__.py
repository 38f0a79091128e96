"""What a person reads of a run: every metric's meaning, charts, and the pages."""
