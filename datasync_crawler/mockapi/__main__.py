"""`python -m datasync_crawler.mockapi`: the mock API without Scrapy, with the same options."""

from __future__ import annotations

import argparse
import sys

from datasync_crawler.mockapi import cli, options

parser = argparse.ArgumentParser(prog="mockapi", description="The fake DataSync API.")
options.add_arguments(parser)
sys.exit(cli.run(parser.parse_args()))
