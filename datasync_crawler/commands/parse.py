"""``scrapy parse``, which doesn't open the database."""

from scrapy.commands import parse

from datasync_crawler.commands.looking import LookingCommand


class Command(LookingCommand, parse.Command):
    """Scrapy's command, with the key for the API, and a sentence for a missing setting."""
