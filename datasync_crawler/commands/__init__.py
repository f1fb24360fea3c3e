"""Commands of `scrapy`: each is imported at every start, so what they need is imported in run()."""
