"""The API as a client sees it: addresses, what stands in an answer, what a status means. Pure."""
