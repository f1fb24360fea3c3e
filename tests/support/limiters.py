"""Simulated servers with rate limits, and a crawl of them in virtual time.

The limiters and header styles are those that servers of this kind have; the client behaves like the
download handler: FIFO, asks again when told to or when something changed. Run as a program, this
file prints how near the ideal each comes: `PYTHONPATH=. python tests/support/limiters.py`.
"""

import heapq
import itertools
import json
import math
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email.utils import formatdate

from datasync_crawler.ratelimit.in_flight import InFlightLimit
from datasync_crawler.ratelimit.limiter import Limiter as Client
from datasync_crawler.ratelimit.limits import Limit

EPOCH = 1_790_000_000.25


class Fixed:
    """N requests in each window; windows on a grid, or begun by the first request."""

    def __init__(self, limit: int, window_s: float, grid: float | None = None) -> None:
        self.limit, self.window_s = limit, window_s
        self.grid = grid
        self.ends = -math.inf if grid is None else grid
        self.used = 0

    def take(self, t: float) -> bool:
        if t >= self.ends:
            self.used = 0
            if self.grid is None:
                self.ends = t + self.window_s
            else:
                self.ends += self.window_s * (math.floor((t - self.ends) / self.window_s) + 1)
        if self.used >= self.limit:
            return False
        self.used += 1
        return True

    def remaining(self, t: float) -> int:
        return max(0, self.limit - self.used)

    def reset_s(self, t: float) -> float:
        return self.ends - t

    retry_s = reset_s

    def ideal_s(self, requests: int) -> float:
        windows = math.ceil(requests / self.limit) - 1
        if self.grid is None or windows == 0:
            return windows * self.window_s
        return self.grid + (windows - 1) * self.window_s


class Sliding:
    """N requests in any window that ends now."""

    def __init__(self, limit: int, window_s: float, *, reset_all: bool = False) -> None:
        self.limit, self.window_s, self.reset_all = limit, window_s, reset_all
        self.log: deque[float] = deque()

    def _trim(self, t: float) -> None:
        while self.log and self.log[0] <= t - self.window_s:
            self.log.popleft()

    def take(self, t: float) -> bool:
        self._trim(t)
        if len(self.log) >= self.limit:
            return False
        self.log.append(t)
        return True

    def remaining(self, t: float) -> int:
        return max(0, self.limit - len(self.log))

    def reset_s(self, t: float) -> float:
        last = self.log[-1 if self.reset_all else 0] if self.log else t - self.window_s
        return last + self.window_s - t

    def retry_s(self, t: float) -> float:
        return self.log[0] + self.window_s - t if self.log else 0.0

    def ideal_s(self, requests: int) -> float:
        return (math.ceil(requests / self.limit) - 1) * self.window_s


class Bucket:
    """N tokens at most, refilled evenly, N in a window."""

    def __init__(self, limit: int, window_s: float, *, reset_full: bool = False) -> None:
        self.limit, self.window_s, self.reset_full = limit, window_s, reset_full
        self.tokens, self.at = float(limit), 0.0

    def _fill(self, t: float) -> None:
        self.tokens += (t - self.at) * self.limit / self.window_s
        self.tokens, self.at = min(self.tokens, float(self.limit)), t

    def take(self, t: float) -> bool:
        self._fill(t)
        if self.tokens < 1 - 1e-9:
            return False
        self.tokens -= 1
        return True

    def remaining(self, t: float) -> int:
        return int(self.tokens + 1e-9)

    def reset_s(self, t: float) -> float:
        want = self.limit if self.reset_full else math.floor(self.tokens + 1e-9) + 1
        return max(0.0, (want - self.tokens) * self.window_s / self.limit)

    def retry_s(self, t: float) -> float:
        return max(0.0, (1 - self.tokens) * self.window_s / self.limit)

    def ideal_s(self, requests: int) -> float:
        return max(0, requests - self.limit) * self.window_s / self.limit


class Counter:
    """haproxy's http_req_rate: this period's count and what is left of the last one's, evenly less;
    refused requests count as well. Says nothing.
    """

    def __init__(self, limit: int, window_s: float, phase_s: float = 0.0) -> None:
        self.limit, self.window_s, self.phase_s = limit, window_s, phase_s
        self.period, self.here, self.before = 0, 0, 0

    def take(self, t: float) -> bool:
        t += self.phase_s  # into a period at the first request
        period = int(t // self.window_s)
        if period != self.period:
            self.before = self.here if period == self.period + 1 else 0
            self.period, self.here = period, 0
        self.here += 1
        left = 1 - (t % self.window_s) / self.window_s
        return self.here + int(self.before * left) <= self.limit

    def ideal_s(self, requests: int) -> float:
        return (requests - 1) * self.window_s / self.limit


class Punishing(Fixed):
    """Refused once, everything is refused: for so long, twice as long each time, or a window more
    with each refusal.
    """

    def __init__(self, limit: int, window_s: float, block_s: float, kind: str) -> None:
        super().__init__(limit, window_s)
        self.block_s, self.kind, self.blocked = block_s, kind, -math.inf

    def take(self, t: float) -> bool:
        if t < self.blocked:
            if self.kind == "anew":
                self.blocked = t + self.block_s
            return False
        if super().take(t):
            return True
        self.blocked = t + self.block_s
        self.block_s *= 2 if self.kind == "doubling" else 1
        return False

    def reset_s(self, t: float) -> float:
        return max(0.0, self.ends - t, self.blocked - t)

    retry_s = reset_s


class Stacked:
    """Two limits at once that share one set of fields: those of the last, or of what refuses."""

    def __init__(self, first: "Fixed | Sliding", second: "Fixed | Sliding") -> None:
        self.first, self.second = first, second
        self.said = second

    @property
    def limit(self) -> int:
        return self.said.limit

    @property
    def window_s(self) -> float:
        return self.said.window_s

    def take(self, t: float) -> bool:
        self.said = self.first
        if not self.first.take(t):
            return False
        self.said = self.second
        return self.second.take(t)

    def remaining(self, t: float) -> int:
        return self.said.remaining(t)

    def reset_s(self, t: float) -> float:
        return self.said.reset_s(t)

    retry_s = reset_s

    def ideal_s(self, requests: int) -> float:
        """As if only one held: a little less than the truth."""
        return max(self.first.ideal_s(requests), self.second.ideal_s(requests))


class Unlimited:
    limit, window_s = 10**9, 1.0

    def take(self, t: float) -> bool:
        return True

    def ideal_s(self, requests: int) -> float:
        return 0.0


class Hiccup(Unlimited):
    """No limit, but for one second everything is refused."""

    def __init__(self, *at: float) -> None:
        self.at = at

    def take(self, t: float) -> bool:
        return not any(at <= t < at + 1.0 for at in self.at)


class Storm(Fixed):
    """No limit, but after five requests fifty are refused, each told to come back in a second."""

    def __init__(self) -> None:
        super().__init__(10**9, 1.0)
        self.asked = 0

    def take(self, t: float) -> bool:
        self.asked += 1
        return not 5 < self.asked <= 55

    def retry_s(self, t: float) -> float:
        return 1.0


Limiter = Fixed | Sliding | Bucket | Counter | Stacked | Unlimited


def whole(seconds: float, rounding: str) -> int:
    up = math.ceil(seconds - 1e-9)
    return {"ceil": up, "floor": math.floor(seconds), "round": round(seconds)}[rounding]


def say(
    style: str, limiter: Limiter, t: float, *, refused: bool, rounding: str
) -> tuple[dict[str, str], bytes]:
    """The header fields and body of an answer given at server time `t`."""
    headers = {"date": formatdate(EPOCH + t, usegmt=True)}
    if isinstance(limiter, Unlimited | Counter) or style == "none":
        return headers, b""
    left, reset, retry = limiter.remaining(t), limiter.reset_s(t), limiter.retry_s(t)
    retry_text = str(max(1, math.ceil(retry - 1e-9)))
    if style.startswith("full"):
        reset_text = {
            "full": lambda: str(whole(reset, rounding)),
            "full epoch s": lambda: str(whole(EPOCH + t + reset, rounding)),
            "full epoch ms": lambda: str(round((EPOCH + t + reset) * 1000)),
        }[style]()
        headers |= {
            "x-ratelimit-limit": str(limiter.limit),
            "x-ratelimit-remaining": str(left),
            "x-ratelimit-reset": reset_text,
        }
    if style == "ietf":
        headers["ratelimit"] = f'"default";r={left};t={whole(reset, rounding)}'
        headers["ratelimit-policy"] = f'"default";q={limiter.limit};w={round(limiter.window_s)}'
    if refused and style == "body":
        return headers, json.dumps({"rateLimit": {"retryAfter": int(retry_text)}}).encode()
    if refused:
        headers["retry-after"] = retry_text
    return headers, b""


@dataclass
class Result:
    seconds: float = 0.0
    served: int = 0
    refusals: list[float] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    foreign: list[bool] = field(default_factory=list)  # whether the other client's were let through

    def bursts(self, apart_s: float) -> int:
        """Refusals, those nearer to each other than this counted as one."""
        return len(self.burst_sizes(apart_s))

    def burst_sizes(self, apart_s: float) -> list[int]:
        """How many were refused in each burst."""
        sizes, last = [], -math.inf
        for at in self.refusals:
            if at - last > apart_s:
                sizes.append(0)
            sizes[-1] += 1
            last = at
        return sizes


def client(
    *,
    first: int = 8,
    most: int = 64,
    limits: Iterable[Limit] = (),
    share: float = 1.0,
    seed: int = 1,
) -> Client:
    """A limiter with the crawl's own configuration."""
    return Client(
        in_flight_limit=InFlightLimit(first=first, most=most, max_bytes=64_000_000),
        max_wait_s=3600,
        random=random.Random(seed).random,
        limits=limits,
        share=share,
    )


def crawl(  # noqa: C901  # one loop of events, with a closure for each kind
    limiter: Limiter,
    style: str,
    *,
    pages: int,
    latency_s: float = 0.05,
    rounding: str = "ceil",
    wall_wrong_s: float = 0.0,
    changes: Iterable[tuple[float, Callable[[Limiter], None]]] = (),
    idle: tuple[float, float] = (0.0, 0.0),
    rate: Client | None = None,
    refusal: int = 429,
    foreign: Iterable[float] = (),
    seed: int = 1,
) -> Result:
    """Fetch `pages` pages; a refused page is asked for again. The server counts on arrival, a
    quarter into the latency, which varies by a fifth. `idle`: from when until when nobody asks.
    `foreign`: when another client sends a request with the same key; those before 0 come first.
    """
    rnd = random.Random(seed)
    rate = rate or client(seed=seed)
    result, ticket = Result(), itertools.count()
    events: list[tuple[float, int, Callable[[], None]]] = []
    now, todo, wake = 0.0, pages, math.inf
    for at, change in changes:
        heapq.heappush(events, (at, next(ticket), lambda change=change: change(limiter)))

    for at in foreign:
        if at <= 0:
            limiter.take(at)
        else:
            heapq.heappush(
                events, (at, next(ticket), lambda: result.foreign.append(limiter.take(now)))
            )

    def send(sent_at: float) -> None:
        latency = latency_s * rnd.uniform(0.8, 1.2)

        def arrive() -> None:
            admitted = limiter.take(now)
            status = 200 if admitted else refusal
            headers, body = say(style, limiter, now, refused=not admitted, rounding=rounding)
            back = now + latency * 0.75

            def answer() -> None:
                nonlocal todo
                outcome = rate.answered(
                    now, EPOCH + now + wall_wrong_s, status, headers, body, sent_at=sent_at
                )
                result.messages += outcome.messages
                if admitted:
                    result.served += 1
                    result.seconds = now
                else:
                    result.refusals.append(now)
                    todo += 1

            heapq.heappush(events, (back, next(ticket), answer))

        result.sent.append(sent_at)
        heapq.heappush(events, (now + latency * 0.25, next(ticket), arrive))

    while result.served < pages:
        is_idle = idle[0] <= now < idle[1]
        wake = idle[1] if is_idle else math.inf
        while todo and not is_idle:
            decision = rate.try_acquire(now)
            assert 0 <= decision.delay_s < math.inf
            if decision.delay_s:
                wake = now + decision.delay_s
                break
            todo -= 1
            send(now)
        if events and events[0][0] <= wake:
            now, _, act = heapq.heappop(events)
            act()
        else:
            now = wake + 0.002  # timers are late
        assert len(result.sent) < 50 * pages, "a storm"
    return result


LIMITERS: dict[str, Callable[[int, float], Limiter]] = {
    "fixed, from first request": Fixed,
    "fixed, on a grid": lambda n, w: Fixed(n, w, grid=0.37 * w),
    "sliding, reset oldest": Sliding,
    "sliding, reset all": lambda n, w: Sliding(n, w, reset_all=True),
    "bucket, reset next": Bucket,
    "bucket, reset full": lambda n, w: Bucket(n, w, reset_full=True),
}
# Resets that tell when all is free again, not when the next request is: met less well.
COMMON = [name for name in LIMITERS if not name.endswith(("reset all", "reset full"))]

FULL = [
    ("full", "ceil"),
    ("full", "floor"),
    ("full", "round"),
    ("full epoch s", "ceil"),
    ("full epoch s", "floor"),
    ("full epoch ms", "ceil"),
    ("ietf", "ceil"),
    ("ietf", "floor"),
]
UNADVERTISED = [("retry-after", "ceil"), ("body", "ceil"), ("none", "ceil")]


def table() -> None:
    """Time against the ideal, 429s and requests, for each limiter and header style."""
    sizes = [(10, 20.0, 60), (10, 60.0, 60), (50, 20.0, 300), (5, 2.0, 50), (100, 10.0, 1000)]
    heads = [f"{n} in {w:g} s" for n, w, _ in sizes]
    for style, rounding in FULL + UNADVERTISED:
        print(f"\n{style}, {rounding}: time / ideal, 429s (bursts)".ljust(46), *heads, sep=" | ")
        for name, make in LIMITERS.items():
            cells = []
            for n, w, pages in sizes:
                limiter = make(n, w)
                r = crawl(limiter, style, pages=pages, rounding=rounding)
                share = r.seconds / limiter.ideal_s(pages)
                cells.append(f"{share:.3f} {len(r.refusals):3d} ({r.bursts(2)})")
            print(f"{name:26s}", *cells, sep=" | ")


if __name__ == "__main__":
    table()
