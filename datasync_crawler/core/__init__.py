"""The pure rooms: no Scrapy, no database, no clock, no sockets; policy that is tested by itself."""
