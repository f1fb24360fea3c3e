"""Extensions: what watches a crawl, and what may end it."""
