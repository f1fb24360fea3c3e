"""Item pipelines: normalising and storing pages."""
