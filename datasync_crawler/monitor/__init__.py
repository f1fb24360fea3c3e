"""What a person is told: figures, summary, terminal panel, web page, metrics, health."""
