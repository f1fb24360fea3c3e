"""From parsed arguments to a running mock: shared by `scrapy mockapi` and `python -m`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from datasync_crawler.mockapi import options
from datasync_crawler.mockapi.catalogue import fault_list

if TYPE_CHECKING:
    import argparse


def run(arguments: argparse.Namespace) -> int:
    """Serve as the arguments say, and give the exit status (0 told to end, 1 can't, 2 wrong)."""
    if arguments.list_faults:
        sys.stdout.write(fault_list() + "\n")
        return 0
    try:
        chosen = options.from_arguments(arguments)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    # Late: aiohttp takes 0.3 s to import, which a wrong option need not wait for.
    from datasync_crawler.mockapi.server import run as serve  # noqa: PLC0415

    return serve(chosen)
