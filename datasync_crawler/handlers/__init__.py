"""The download handler, and the gate where requests wait until they may be sent."""

from datasync_crawler.handlers.wire import PacedDownloadHandler

__all__ = ["PacedDownloadHandler"]
