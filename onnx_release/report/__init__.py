"""Make the report of a run: its pages and charts, and the meaning of every metric."""
