"""Planning and proof: facts of the ledger in, the next requests or the verdict out.

Pure: no Scrapy, no database, no clock, no socket; they are passed in (`ports`).
"""
