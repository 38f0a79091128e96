"""Choose the variant to release, and say why: report and package read this decision."""
