"""What one component leaves on a request for another: the only place that spells these keys.

The spider gives each request its `Ask`; the download handler notes whether the answer was the rate
limit's; whoever retries notes the delay, which the scheduler takes.
"""

import random
from typing import TYPE_CHECKING, Final

from datasync_crawler.ratelimit import backoff

if TYPE_CHECKING:
    from scrapy import Request
    from scrapy.settings import BaseSettings

    from datasync_crawler.crawl.values import Ask

_DELAY_S: Final = "delay_s"
_LIMITED: Final = "limited"


def ask_of(request: "Request") -> "Ask | None":
    """What the planner asked for; None for a request of somebody else's."""
    ask: Ask | None = request.cb_kwargs.get("ask")
    return ask


def mark_limited(request: "Request", *, is_limited: bool) -> None:
    """Whether its answer was the rate limit's: it is sent again, and no retry is used up."""
    request.meta[_LIMITED] = is_limited


def is_limited(request: "Request") -> bool:
    """See `mark_limited`."""
    return bool(request.meta.get(_LIMITED))


def delay_retry(request: "Request", settings: "BaseSettings") -> None:
    """Delays a request that Scrapy has made for a retry.

    Settings: RETRY_BACKOFF_BASE, RETRY_BACKOFF_CAP.
    """
    request.meta[_DELAY_S] = backoff.delay_s(
        request.meta["retry_times"],
        base_s=settings.getfloat("RETRY_BACKOFF_BASE"),
        cap_s=settings.getfloat("RETRY_BACKOFF_CAP"),
        random=random.random,
    )


def delay_s(request: "Request") -> float:
    """Seconds to wait before the request is scheduled; 0.0 for none."""
    return float(request.meta.get(_DELAY_S, 0.0))


def take_delay_s(request: "Request") -> float:
    """The same, once: the request that comes back has no delay."""
    return float(request.meta.pop(_DELAY_S, 0.0))
