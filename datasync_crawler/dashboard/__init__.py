"""The dashboard: the page, its JSON, and the metrics; one for the extension and the command."""
