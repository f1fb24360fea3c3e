"""The mock's command line: shared by `scrapy mockapi` and `python -m`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from datasync_crawler.mockapi import faults, options

if TYPE_CHECKING:
    import argparse


def run(arguments: argparse.Namespace) -> int:
    """Serves; returns the exit status: 0 stopped, 1 can't listen or read, 2 wrong options."""
    try:
        chosen = options.from_arguments(arguments)
        if arguments.list_faults:
            faults.load_plugins(chosen.plugin)
            sys.stdout.write(faults.fault_list() + "\n")
            return 0
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    # Imported late: aiohttp takes 0.3 s, which an error in the options doesn't need.
    from datasync_crawler.mockapi.server import run as serve  # noqa: PLC0415

    return serve(chosen)
