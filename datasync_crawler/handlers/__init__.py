"""The last step before the wire: the download handler, and the gate where requests wait."""

from datasync_crawler.handlers.wire import PacedDownloadHandler

__all__ = ["PacedDownloadHandler"]
