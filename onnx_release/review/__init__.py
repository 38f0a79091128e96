"""Compare two revisions metric by metric, and check the gates."""
