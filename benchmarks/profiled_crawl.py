"""`scrapy crawl events`, with CPU clocks around the steps of a page; prints them in seconds.

    python benchmarks/profiled_crawl.py [-s NAME=value …]

The clocks count a thread's own CPU time, so what waits for the database or the GIL costs nothing.
Around a page's steps, they don't slow the crawl. The last line printed is JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from scrapy import cmdline
from twisted.internet.asyncioreactor import AsyncioSelectorReactor

from datasync_crawler.events import copyrows
from datasync_crawler.events.decoding import PageDecoder
from datasync_crawler.extensions.heartbeat import Heartbeat
from datasync_crawler.extensions.progress import Progress
from datasync_crawler.monitor.feed import Feed
from datasync_crawler.pipelines import normalize
from datasync_crawler.store import writer
from datasync_crawler.store.runs import RunLog

if TYPE_CHECKING:
    from collections.abc import Callable

SPENT_S: dict[str, float] = defaultdict(float)
_mutex = threading.Lock()


def clocked(step: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """*function*, its CPU time added to *step*."""

    def run(*args: Any, **kwargs: Any) -> Any:
        began = time.thread_time()
        try:
            return function(*args, **kwargs)
        finally:
            with _mutex:
                SPENT_S[step] += time.thread_time() - began

    return run


def first_page(decode: Callable[..., Any]) -> Callable[..., Any]:
    """*decode*, which also tells when the start is over: at the first page."""

    def run(*args: Any, **kwargs: Any) -> Any:
        SPENT_S.setdefault("start (once)", time.thread_time())
        return decode(*args, **kwargs)

    return run


def main() -> None:
    """Wraps the steps and crawls; the status is the crawl's."""
    for owner, name, step in (
        (AsyncioSelectorReactor, "_readOrWrite", "download"),
        (PageDecoder, "decode", "decode"),
        (normalize, "normalize_timestamps", "normalise"),
        (copyrows, "encode", "encode"),
        (writer, "copy_in", "COPY, our end"),
        (writer.Writer, "write", "writer"),
        (Progress, "_say", "panel or lines"),
        (Heartbeat, "_beat", "heartbeat"),
        (RunLog, "beat", "heartbeat, its thread"),
        (Feed, "_read_all", "page"),
    ):
        setattr(owner, name, clocked(step, getattr(owner, name)))
    PageDecoder.decode = first_page(PageDecoder.decode)  # type: ignore[method-assign]
    status: Any = 0
    try:
        cmdline.execute(["scrapy", "crawl", "events", *sys.argv[1:]])
    except SystemExit as ended:
        status = ended.code
    main_s = time.thread_time()
    SPENT_S["ledger and transaction"] = (
        SPENT_S.pop("writer") - SPENT_S["encode"] - SPENT_S["COPY, our end"]
    )
    named = sum(
        SPENT_S[step]
        for step in (
            "start (once)", "download", "decode", "normalise", "panel or lines", "heartbeat",
        )
    )  # fmt: skip
    SPENT_S["Scrapy, and ours around it"] = main_s - named
    SPENT_S["heartbeat"] += SPENT_S.pop("heartbeat, its thread", 0.0)
    print(json.dumps(SPENT_S))
    sys.exit(status)


if __name__ == "__main__":
    main()
