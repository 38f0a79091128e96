"""Make the report of a run and the overview of all models: pages and charts, and the meaning of every metric."""
