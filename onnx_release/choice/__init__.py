"""Which variant is released, and why: the one decision that report and package read."""
