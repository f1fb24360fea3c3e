"""When the next request may go out: headers in, decision out.

Owns the policy against rate limits. Pure: the clock, the random source and the answers are
passed in, nothing is sent, logged or slept here.
"""

from datasync_crawler.core.ratelimit.controller import (
    Budget,
    Decision,
    Outcome,
    RateController,
)

__all__ = ["Budget", "Decision", "Outcome", "RateController"]
