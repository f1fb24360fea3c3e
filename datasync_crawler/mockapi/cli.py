"""From parsed arguments to a running mock: shared by `scrapy mockapi` and `python -m`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from datasync_crawler.mockapi import faults, options

if TYPE_CHECKING:
    import argparse


def run(arguments: argparse.Namespace) -> int:
    """Serve, and give the exit status: 0 told to end, 1 can't listen or read, 2 wrong options."""
    try:
        chosen = options.from_arguments(arguments)
        if arguments.list_faults:
            faults.load_plugins(chosen.plugin)
            sys.stdout.write(faults.fault_list() + "\n")
            return 0
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    # Late: aiohttp takes 0.3 s to import, which a wrong option need not wait for.
    from datasync_crawler.mockapi.server import run as serve  # noqa: PLC0415

    return serve(chosen)
