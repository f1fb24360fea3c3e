"""What a person sees: figures, summary, terminal panel, web page, metrics, health."""
