"""`python -m datasync_crawler.mockapi`: the mock API without Scrapy, with the same options."""

from __future__ import annotations

import argparse
import sys

from datasync_crawler.mockapi import cli, options


def main(argv: list[str] | None = None) -> int:
    """Serve as the arguments say, and give the exit status."""
    parser = argparse.ArgumentParser(prog="mockapi", description="The fake DataSync API.")
    options.add_arguments(parser)
    return cli.run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
