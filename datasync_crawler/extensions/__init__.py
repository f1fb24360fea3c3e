"""Extensions: they watch a crawl, and may end it."""
