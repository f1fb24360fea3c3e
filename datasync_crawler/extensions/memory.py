"""The last resort against running out of memory: ends the crawl cleanly before the kernel does.

The memory of a response is bounded in `handlers.transport` and `handlers.decompression`.
"""

from pathlib import Path
from typing import Final

from scrapy.extensions.memusage import MemoryUsage

from datasync_crawler import signals

_STATM: Final = Path("/proc/self/statm")


class MemoryLimit(MemoryUsage):
    """Replaces Scrapy's MemoryUsage. Settings: MEMUSAGE_…; 0 MB is no limit.

    Sends `signals.stop_requested`. Stats: memusage/….
    """

    def get_virtual_size(self) -> int:
        """Bytes in memory now. Scrapy's own figure (getrusage) is a peak that includes that of the
        parent process.
        """
        try:
            pages = int(_STATM.read_text().split()[1])
        except OSError:  # not Linux
            return super().get_virtual_size()
        return pages * int(self.resource.getpagesize())

    def _check_limit(self) -> None:
        size = self.get_virtual_size()
        if size <= self.limit:
            return
        self._stats.set_value("memusage/limit_reached", 1)
        self.crawler.signals.send_catch_log(
            signals.stop_requested,
            reason="memusage_exceeded",
            sentence=(
                f"The crawl uses {size // 2**20:,} MB of memory, more than MEMUSAGE_LIMIT_MB "
                f"({self.limit // 2**20:,}), and ends before the system kills it. What is stored "
                "stays, and the next run resumes there; set BULK_PAGE_SIZE or WORKERS lower."
            ),
        )
