"""Misbehaviours of the mock API, and how a test steers it: a plug-in of `datasync_crawler.mockapi`.

`--plugin faults.mock`, with the folder `tests` in PYTHONPATH, adds all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

# Imported for what they enter into the mock's register.
from faults import badevents, pages, replies
from faults.control import Control

if TYPE_CHECKING:
    from datasync_crawler.mockapi.server import MockServer

__all__ = ["badevents", "extend", "pages", "replies"]


def extend(server: MockServer) -> None:
    """Add the control endpoints and the journal behind them; the mock calls this."""
    Control(server)
