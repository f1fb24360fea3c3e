"""Item pipelines: what becomes of a page."""
